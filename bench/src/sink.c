/* Reads all of stdin; appends to FILE: lines, bytes, and CLOCK_MONOTONIC ns of the first and the last byte read.
 * The line for the first byte is written at once ("first NS"), the rest at the end. usage: sink FILE */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char data[1 << 20];

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    int out = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (out < 0)
        return 3;
    unsigned long long lines = 0, bytes = 0;
    long long first = 0, last = 0;
    ssize_t length;
    while ((length = read(0, data, sizeof data)) > 0) {
        last = now_ns();
        if (first == 0) {
            first = last;
            dprintf(out, "first %lld\n", first);
        }
        bytes += (unsigned long long)length;
        for (char *at = data, *end = data + length; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++)
            lines++;
    }
    dprintf(out, "lines %llu\nbytes %llu\nlast %lld\n", lines, bytes, last);
    return length < 0;
}
