/* The programs of random pipelines: quick to start, easy to find, dying at any moment. usage: relay WHAT [ARGUMENT…] MARK
 *
 * echo                                one-to-one, any codec: what it reads, in pieces of uneven size
 * answer [NACKS]                      acknowledged: each message by itself; every NACKS-th is refused the first time
 * batch                               one batch: the same, and it takes a moment before it ends
 * half                                one-to-one, lines: its first runs answer half of what they read, and kill themselves
 * keep CODEC FILE [GATE]              one-to-one sink: each message to FILE, then an answer; reads nothing before GATE is there
 * store FILE                          acknowledged sink: the number and the content of each message to FILE, then its ack
 * source skip|self|state CODEC ORIGIN TARGET   numbered messages up to the number in TARGET, which grows
 *
 * Files are appended to by several at once, and a killed one may leave a piece: so each write begins with a newline. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1 << 20, ONE = 256 };

static char in[MOST], out[MOST];
static size_t kept, begun, made; /* bytes in `in` and where the first unread one is; bytes in `out` */
static uint64_t dice;

static unsigned chance(unsigned below) {
    dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
    return (unsigned)(dice % below);
}

static void write_all(int where, const char *data, size_t size) {
    while (size > 0) {
        size_t piece = where == 1 && chance(2) ? 1 + chance((unsigned)size) : size;
        ssize_t done = write(where, data, piece);
        if (done < 0)
            exit(1);
        data += done, size -= (size_t)done;
    }
}

static void flush(void) {
    write_all(1, out, made);
    made = 0;
}

static void put(const char *data, size_t size) {
    if (made + size > MOST)
        flush();
    memcpy(out + made, data, size);
    made += size;
}

/* More input; 0 at its end. */
static int more(void) {
    if (begun > 0)
        memmove(in, in + begun, kept), begun = 0;
    ssize_t got = read(0, in + kept, MOST - kept);
    if (got > 0)
        kept += (size_t)got;
    return got > 0;
}

static void skip(size_t size) {
    begun += size, kept -= size;
}

static void nap(void) {
    nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

/* The file of a sink: lines are gathered, and stored with one write. */
static int file;
static char lines[1 << 16];
static size_t gathered;

static void store(void) {
    if (gathered > 0 && write(file, lines, gathered) != (ssize_t)gathered)
        exit(1);
    gathered = 0;
}

static void gather(const char *number, const char *payload, size_t size) {
    if (gathered + size + ONE > sizeof lines)
        store();
    gathered += (size_t)sprintf(lines + gathered, "%s%s ", gathered ? "" : "\n", number);
    memcpy(lines + gathered, payload, size);
    lines[gathered + size] = '\n';
    gathered += size + 1;
}

/* One frame of codec CODEC in `in`, or 0; where its payload is. */
static size_t framed(char codec, const char **payload, size_t *size) {
    if (codec == 'p') { /* length-prefixed */
        const unsigned char *head = (const unsigned char *)in + begun;
        if (kept < 4)
            return 0;
        *size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        *payload = in + begun + 4;
        return kept < 4 + *size ? 0 : 4 + *size;
    }
    const char *end = memchr(in + begun, codec == 'n' ? 0 : '\n', kept);
    *payload = in + begun;
    *size = end ? (size_t)(end - *payload) : 0;
    return end ? *size + 1 : 0;
}

static void frame(char codec, const char *payload, size_t size) {
    if (codec == 'p')
        put((char[]){ (char)(size >> 24), (char)(size >> 16), (char)(size >> 8), (char)size }, 4);
    put(payload, size);
    if (codec != 'p')
        put(codec == 'n' ? "" : "\n", 1);
}

static char codec_of(const char *name) {
    return (char)(strcmp(name, "length-prefixed") == 0 ? 'p' : name[0]);
}

/* -- one-to-one */

static int echo(void) {
    ssize_t got;
    while ((got = read(0, in, 1 + chance(MOST - 1))) > 0)
        write_all(1, in, (size_t)got);
    return got < 0;
}

static int half(void) {
    const char *payload;
    size_t size, whole;
    int dies = atoi(getenv("CONNECTOR_ATTEMPT")) <= 3;
    while (more()) {
        unsigned count = 0, most = 0;
        for (size_t at = 0; at < kept; at++)
            count += in[begun + at] == '\n';
        most = count > 8 && dies ? count / 2 : count;
        for (unsigned line = 0; line < most && (whole = framed('l', &payload, &size)) > 0; line++) {
            frame('l', payload, size);
            skip(whole);
        }
        flush();
        if (most < count)
            kill(getpid(), SIGKILL);
    }
    return kept > 0;
}

static int keep(char codec, const char *path, const char *gate) {
    const char *payload;
    size_t size, whole;
    while (gate && access(gate, F_OK) != 0)
        nap();
    file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    do {
        while ((whole = framed(codec, &payload, &size)) > 0) {
            gather("-", payload, size);
            frame(codec, "stored", 6);
            skip(whole);
        }
        store();
        flush();
    } while (more());
    return kept > 0;
}

/* -- the connector protocol */

static char head[ONE], *word[9], *payload;
static size_t payload_bytes;
static int words;

/* The next frame, with pings answered; 0: there is no whole one in `in`. */
static int next(void) {
    char *end = memchr(in + begun, '\n', kept);
    if (!end)
        return 0;
    size_t size = (size_t)(end - in) - begun;
    if (size >= ONE)
        exit(1);
    memcpy(head, in + begun, size);
    head[size] = 0;
    words = 0;
    for (char *rest = head; words < 8 && (word[words] = strtok_r(rest, " ", &rest));)
        words++;
    payload_bytes = strtoul(word[1], NULL, 10);
    if (kept < size + 1 + payload_bytes)
        return 0;
    payload = end + 1;
    skip(size + 1 + payload_bytes);
    if (strcmp(word[0], "ping") == 0) {
        char said[ONE];
        put(said, (size_t)sprintf(said, "pong 0 %s\n", word[2]));
    }
    return 1;
}

static int is(const char *kind, int count) {
    return strcmp(word[0], kind) == 0 && words >= count;
}

static void say(const char *header) {
    put(header, strlen(header));
}

static void acknowledge(const char *first, const char *last) {
    char said[ONE];
    sprintf(said, "ack 0 %s %s\n", first, last);
    say(said);
}

/* Each message by itself, or into the file; several at once are acknowledged together, now and then. */
static int answer(unsigned nacks, const char *path) {
    char said[ONE], first[32] = "", last[32] = "";
    if (path)
        file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    say("ready 0 1\n");
    flush();
    while (more()) {
        while (next()) {
            if (is("end", 1) && words == 2) {
                store();
                if (*first)
                    acknowledge(first, last);
                say("end 0\n");
                flush();
                return 0;
            }
            if (!is("msg", 7))
                continue;
            if (nacks && strtoul(word[3], NULL, 10) % nacks == 0 && strcmp(word[4], "1") == 0) {
                sprintf(said, "nack 0 %s\n", word[2]);
                say(said);
                continue;
            }
            if (path)
                gather(word[3], payload, payload_bytes);
            else {
                sprintf(said, "out %zu %s stdout\n", payload_bytes, word[2]);
                say(said);
                put(payload, payload_bytes);
            }
            if (nacks || !*first)
                strcpy(first, word[2]);
            strcpy(last, word[2]);
            if (nacks || chance(8) == 0) {
                store();
                acknowledge(first, last);
                *first = 0;
            }
            if (chance(64) == 0)
                flush();
        }
        store();
        if (*first)
            acknowledge(first, last);
        *first = 0;
        flush();
    }
    return 1;
}

/* -- sources */

static int target_file;

/* How far it may go; whether that is all there is. */
static unsigned long target(int *final) {
    char text[32] = "";
    unsigned long most = 0;
    if (pread(target_file, text, sizeof text - 1, 0) > 0)
        sscanf(text, "%lu %d", &most, final);
    return most;
}

static size_t message(char *into, char origin, unsigned long number) {
    size_t size = (size_t)sprintf(into, "%c%09lu ", origin, number);
    memset(into + size, 'x', number % 90);
    return size + number % 90;
}

static int source(const char *mode, char codec, char origin, const char *path) {
    char one[ONE], said[2 * ONE];
    int final = 0, states = 0, acknowledged = strcmp(mode, "state") == 0;
    unsigned long number = strcmp(mode, "self") == 0 ? strtoul(getenv("CONNECTOR_WRITTEN"), NULL, 10) : 0;
    target_file = open(path, O_RDONLY);
    if (acknowledged) {
        say("ready 0 1 stateful=yes\n");
        flush();
        do
            if (!more())
                return 1;
        while (!next());
        if (is("ack-state", 3) && payload_bytes > 0)
            number = strtoul(payload, NULL, 10);
    }
    for (;;) {
        unsigned long most = target(&final), stop = number + 1 + chance(200);
        if (acknowledged && poll(&(struct pollfd){ .fd = 0, .events = POLLIN }, 1, 0) > 0) {
            if (!more())
                return 1;
            while (next())
                ;
            flush();
        }
        if (number == most && final)
            break;
        if (number >= most) {
            nap();
            continue;
        }
        while (number < most && number < stop) {
            size_t size = message(one, origin, ++number);
            if (acknowledged) {
                sprintf(said, "out %zu 0 stdout\n", size);
                say(said);
                put(one, size);
            } else
                frame(codec, one, size);
        }
        if (acknowledged) {
            sprintf(one, "%lu ", number);
            sprintf(said, "state %zu %d\n%s", strlen(one), ++states, one);
            say(said);
        }
        flush();
    }
    if (acknowledged) {
        say("end 0\n");
        flush();
    }
    return 0;
}

int main(int argc, char **argv) {
    dice = (uint64_t)getpid() * 0x9e3779b97f4a7c15u + (uint64_t)time(NULL);
    if (argc < 3)
        return 2;
    char *what = argv[1];
    argv[argc - 1] = NULL; /* the mark */
    if (strcmp(what, "echo") == 0)
        return echo();
    if (strcmp(what, "batch") == 0) {
        int failed = echo();
        for (int naps = 0; naps < 5; naps++)
            nap();
        return failed;
    }
    if (strcmp(what, "half") == 0)
        return half();
    if (strcmp(what, "answer") == 0)
        return answer(argv[2] ? (unsigned)strtoul(argv[2], NULL, 10) : 0, NULL);
    if (strcmp(what, "keep") == 0)
        return keep(codec_of(argv[2]), argv[3], argv[4]);
    if (strcmp(what, "store") == 0)
        return answer(0, argv[2]);
    if (strcmp(what, "source") == 0)
        return source(argv[2], codec_of(argv[3]), argv[4][0], argv[5]);
    return 2;
}
