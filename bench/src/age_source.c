/* Writes a line every 1/RATE seconds for SECONDS seconds; each holds CLOCK_MONOTONIC ns, padded to 100 bytes.
 * usage: age_source RATE SECONDS */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIZE 100

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    long rate = strtol(argv[1], NULL, 10);
    long long left = (long long)(strtod(argv[2], NULL) * (double)rate);
    char line[SIZE + 1];
    struct timespec due, now;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (; left > 0; left--) {
        due.tv_nsec += 1000000000L / rate;
        if (due.tv_nsec >= 1000000000L) {
            due.tv_nsec -= 1000000000L;
            due.tv_sec++;
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
            ;
        clock_gettime(CLOCK_MONOTONIC, &now);
        memset(line, 'x', SIZE);
        int digits = snprintf(line, sizeof line, "%lld ", now.tv_sec * 1000000000LL + now.tv_nsec);
        line[digits] = 'x';
        line[SIZE - 1] = '\n';
        if (write(1, line, SIZE) != SIZE)
            return 1;
    }
    return 0;
}
