#define _GNU_SOURCE
#include "probe.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PASSES, FAILS, ASKED_WRONGLY,
    MAX_HOST = 64,    /* the longest address in text has 45 */
    MAX_URL = 8192,   /* longer ones are asked wrongly */
    MAX_ANSWER = 256, /* of which the status is wanted, at the begin of it */
};

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* A number and nothing else; 0 when it is no port. */
static uint16_t parse_port(const char *text, size_t length)
{
    unsigned port = 0;
    if (length < 1 || length > 5) return 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return 0;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* Fills in the addresses that `text` (HOST:PORT, or HOST where there is a `usual` port) means; how many, 0 for none. */
static int parse_addresses(const char *text, size_t length, uint16_t usual, union address found[2])
{
    char host[MAX_HOST];
    const char *colon = memrchr(text, ':', length), *bracket = memrchr(text, ']', length);
    if (colon && bracket && colon < bracket) colon = NULL; /* one of the address itself */
    size_t host_length = colon ? (size_t)(colon - text) : length;
    uint16_t port = colon ? parse_port(colon + 1, length - host_length - 1) : usual;
    if (!port || host_length >= sizeof host) return 0;
    memcpy(host, text, host_length);
    host[host_length] = 0;
    int local = strcmp(host, "localhost") == 0;
    memset(found, 0, 2 * sizeof *found);
    if (*host == '[') {
        if (host[host_length - 1] != ']') return 0;
        host[host_length - 1] = 0;
        found[0].v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
        return inet_pton(AF_INET6, host + 1, &found[0].v6.sin6_addr) == 1;
    }
    found[0].v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
    found[1].v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port),
                                         .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    const char *number = local || !*host ? "127.0.0.1" : host;
    return inet_pton(AF_INET, number, &found[0].v4.sin_addr) == 1 ? 1 + local : 0;
}

/* A connected socket to the first of them that accepts, or -1. */
static int connect_to(const union address *addresses, int count)
{
    for (const union address *address = addresses; address < addresses + count; address++) {
        int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, &address->any, sizeof *address) == 0) return fd;
        close(fd);
    }
    return -1;
}

static int check_tcp(const char *text)
{
    union address addresses[2];
    int count = parse_addresses(text, strlen(text), 0, addresses);
    if (!count) return ASKED_WRONGLY;
    return connect_to(addresses, count) >= 0 ? PASSES : FAILS;
}

/* The status of the answer (RFC 9112, section 4); 0 when it is none. */
static int read_status(int fd)
{
    char answer[MAX_ANSWER + 1] = "", *line_end = NULL;
    for (size_t size = 0; size < MAX_ANSWER && !line_end; line_end = strchr(answer, '\n')) {
        ssize_t more = recv(fd, answer + size, MAX_ANSWER - size, 0);
        if (more <= 0) return 0;
        size += (size_t)more;
    }
    int status = 0, end = 0;
    if (sscanf(answer, "HTTP/1.%*1[0-9] %3d%n", &status, &end) != 1 || end != (int)sizeof "HTTP/1.1 200" - 1) return 0;
    return strchr(" \r\n", answer[end]) ? status : 0;
}

static int check_http(const char *url)
{
    static const char scheme[] = "http://";
    if (strncmp(url, scheme, sizeof scheme - 1) != 0 || strlen(url) > MAX_URL) return ASKED_WRONGLY;
    for (const char *at = url; *at; at++)
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 127) return ASKED_WRONGLY; /* it would end the line */
    const char *host = url + sizeof scheme - 1;
    int host_length = (int)strcspn(host, "/?#");
    const char *path = host + host_length;
    int path_length = (int)strcspn(path, "#"); /* what follows is not sent (RFC 9110, section 4.2.5) */
    union address addresses[2];
    int count = parse_addresses(host, (size_t)host_length, 80, addresses);
    if (!count) return ASKED_WRONGLY;
    char request[MAX_URL + 128];
    int size = snprintf(request, sizeof request,
                        "GET %s%.*s HTTP/1.1\r\nHost: %s%.*s\r\nUser-Agent: " PROBER "\r\nConnection: close\r\n\r\n",
                        *path == '/' ? "" : "/", path_length, path,
                        host_length > 0 && *host != ':' ? "" : "127.0.0.1", host_length, host);
    int fd = connect_to(addresses, count);
    if (fd < 0 || send(fd, request, (size_t)size, MSG_NOSIGNAL) != size) return FAILS;
    int status = read_status(fd);
    return status >= 200 && status < 400 ? PASSES : FAILS;
}

int run_prober(char **arguments)
{
    const char *kind = arguments[1], *what = kind ? arguments[2] : NULL;
    if (!what || arguments[3]) return ASKED_WRONGLY;
    if (strcmp(kind, "tcp") == 0) return check_tcp(what);
    if (strcmp(kind, "http") == 0) return check_http(what);
    if (strcmp(kind, "file") == 0) return access(what, F_OK) == 0 ? PASSES : FAILS;
    return ASKED_WRONGLY;
}
