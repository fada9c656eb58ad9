/* The least that a program with ZeroMQ sockets can cost: a PULL and a PUSH that speak ZMTP 3 (NULL) and pass frames on
 * as they come, without looking at them. After SIGTERM it takes what is there, and ends. No libzmq. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static volatile sig_atomic_t stopped;
static char data[1 << 18];

static void stop(int number) { (void)number; stopped = 1; }

static void put(int to, const char *from, size_t size) {
    for (ssize_t written; size > 0; from += written, size -= (size_t)written)
        if ((written = write(to, from, size)) < 0) {
            if (errno != EINTR) exit(1);
            written = 0;
        }
}

static void take(int from, char *to, size_t size) {
    for (ssize_t count; size > 0; to += count, size -= (size_t)count)
        if ((count = read(from, to, size)) <= 0) {
            if (count == 0 || errno != EINTR) exit(2);
            count = 0;
        }
}

/* Connects to the endpoint in `variable` as a socket of `type`; the other side's greeting and READY are read. */
static int joined(const char *variable, const char *type) {
    const char *address = getenv(variable);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int made = socket(AF_UNIX, SOCK_STREAM, 0);
    char greeting[64] = {(char)0xff, [9] = 0x7f, 3, 0, 'N', 'U', 'L', 'L'}, ready[64] = "\4\0\5READY\xbSocket-Type\0\0\0\4";
    if (address == NULL || strncmp(address, "ipc://", 6) != 0 || strlen(address + 6) >= sizeof at.sun_path) exit(3);
    strcpy(at.sun_path, address + 6);
    if (connect(made, (struct sockaddr *)&at, sizeof at) < 0) exit(4);
    memcpy(ready + 24, type, 4);
    ready[1] = 26;
    put(made, greeting, sizeof greeting);
    put(made, ready, 28);
    take(made, greeting, sizeof greeting);
    take(made, ready, 2);
    take(made, ready, (size_t)ready[1]);
    return made;
}

int main(void) {
    struct sigaction on_term = {.sa_handler = stop};
    sigaction(SIGTERM, &on_term, NULL);
    int from = joined("CONNECTOR_READER_STDIN", "PULL"), to = joined("CONNECTOR_WRITER_STDOUT", "PUSH");
    for (;;) {
        struct pollfd ready = {.fd = from, .events = POLLIN};
        int found = poll(&ready, 1, stopped ? 0 : 20);
        if (found == 0 && stopped) return 0;
        if (found <= 0) continue;
        ssize_t count = read(from, data, sizeof data);
        if (count <= 0) return 5;
        put(to, data, (size_t)count);
    }
}
