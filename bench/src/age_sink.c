/* Takes the lines of age_source; appends "SENT ARRIVED" (CLOCK_MONOTONIC ns) for each to FILE. usage: age_sink FILE */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char data[1 << 20];

int main(int argc, char **argv) {
    FILE *out = argc > 1 ? fopen(argv[1], "a") : NULL;
    if (out == NULL)
        return 3;
    size_t kept = 0;
    ssize_t length;
    while ((length = read(0, data + kept, sizeof data - kept)) > 0) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        char *at = data, *end = data + kept + length, *newline;
        while ((newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
            fprintf(out, "%lld %lld\n", strtoll(at, NULL, 10), now.tv_sec * 1000000000LL + now.tv_nsec);
            at = newline + 1;
        }
        kept = (size_t)(end - at);
        memmove(data, at, kept);
    }
    return fclose(out) != 0;
}
