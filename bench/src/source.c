/* Writes COUNT lines of SIZE bytes (newline included), in blocks of about 64 KiB of whole lines.
 * With a third argument it then waits until a signal ends it. usage: source COUNT SIZE [stay] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK (64 * 1024)

static void write_all(const char *data, size_t length) {
    while (length > 0) {
        ssize_t done = write(1, data, length);
        if (done < 0)
            exit(1);
        data += done;
        length -= (size_t)done;
    }
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    unsigned long long count = strtoull(argv[1], NULL, 10);
    size_t size = strtoull(argv[2], NULL, 10);
    size_t per_block = size < BLOCK ? BLOCK / size : 1;
    char *block = malloc(per_block * size);
    if (block == NULL || size == 0)
        return 2;
    memset(block, 'x', per_block * size);
    for (size_t line = 1; line <= per_block; line++)
        block[line * size - 1] = '\n';
    for (; count >= per_block; count -= per_block)
        write_all(block, per_block * size);
    write_all(block, count * size);
    if (argc > 3)
        for (;;)
            pause();
    return 0;
}
