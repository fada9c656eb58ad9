/* counted.py in C: copies stdin to stdout; FOLDER/PID holds what /proc/self/io stood at before it read stdin. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long read_so_far(void) {
    char text[4096];
    int descriptor = open("/proc/self/io", O_RDONLY);
    ssize_t length = read(descriptor, text, sizeof text - 1);
    close(descriptor);
    if (length <= 0)
        exit(3);
    text[length] = 0;
    return strtol(strstr(text, "rchar:") + 6, NULL, 10) + length;
}

int main(int argc, char **argv) {
    static char data[1 << 16];
    char part[4096], name[4096], number[32];
    if (argc < 2)
        return 2;
    snprintf(name, sizeof name, "%s/%d", argv[1], (int)getpid());
    snprintf(part, sizeof part, "%s/%d.part", argv[1], (int)getpid());
    int out = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    int digits = snprintf(number, sizeof number, "%ld", read_so_far());
    if (out < 0 || write(out, number, (size_t)digits) != digits || close(out) != 0 || rename(part, name) != 0)
        return 3;
    ssize_t length;
    while ((length = read(0, data, sizeof data)) > 0)
        for (ssize_t done = 0; done < length;) {
            ssize_t more = write(1, data + done, (size_t)(length - done));
            if (more < 0)
                return 1;
            done += more;
        }
    return 0;
}
