/* Answers each message with itself. usage: echo [lines|null|length-prefixed] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *room;
static size_t room_bytes;

static void need(size_t bytes) {
    if (bytes <= room_bytes)
        return;
    room = realloc(room, bytes);
    room_bytes = bytes;
    if (room == NULL)
        abort();
}

static int length_prefixed(void) {
    unsigned char head[4];
    while (fread(head, 1, 4, stdin) == 4) {
        size_t length = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        need(length + 1);
        if (fread(room, 1, length, stdin) != length)
            return 1;
        fwrite(head, 1, 4, stdout);
        fwrite(room, 1, length, stdout);
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *codec = argc > 1 ? argv[1] : "lines";
    if (strcmp(codec, "length-prefixed") == 0)
        return length_prefixed();
    int end = strcmp(codec, "null") == 0 ? 0 : '\n';
    ssize_t length;
    while ((length = getdelim(&room, &room_bytes, end, stdin)) > 0) {
        fwrite(room, 1, (size_t)length, stdout);
        fflush(stdout);
    }
    return 0;
}
