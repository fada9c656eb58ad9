/* Moves bytes with nothing but the kernel, 256 KiB at a time, over pipes as large as the runner's: from standard input to
 * standard output; or to or from a TCP port of this machine, for one connection.
 * usage: relay | relay to PORT | relay from PORT */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 256 << 10, PIPE = 512 << 10 };

static char data[AT_ONCE];

static int listened(const struct sockaddr_in *address) {
    int listening = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (const struct sockaddr *)address, sizeof *address) < 0 || listen(listening, 1) < 0)
        return -1;
    return accept(listening, NULL, NULL);
}

/* Whoever listens may not be there yet. */
static int connected(const struct sockaddr_in *address) {
    const struct timespec wait = {0, 10 * 1000 * 1000};
    for (int tries = 0; tries < 1000; tries++) {
        int connecting = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(connecting, (const struct sockaddr *)address, sizeof *address) == 0)
            return connecting;
        close(connecting);
        nanosleep(&wait, NULL);
    }
    return -1;
}

int main(int argc, char **argv) {
    int in = 0, out = 1;
    if (argc == 3) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[2]))};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (strcmp(argv[1], "from") == 0)
            in = listened(&address);
        else
            out = connected(&address);
    } else if (argc != 1) {
        return 2;
    }
    fcntl(in, F_SETPIPE_SZ, PIPE); /* fails where it is no pipe */
    fcntl(out, F_SETPIPE_SZ, PIPE);
    ssize_t length;
    while ((length = read(in, data, sizeof data)) > 0)
        for (ssize_t at = 0, written; at < length; at += written)
            if ((written = write(out, data + at, (size_t)(length - at))) < 0)
                return 1;
    return length < 0;
}
