/* Answers each line with itself, and dies from inside when a signal says so. usage: doomed MARK
 *
 * USR1: it kills itself, wherever it is. USR2: at the next message it has a child, which hides in a session of its own,
 * kills it and goes on in its place, with all that it had read. HUP: it takes memory until it is killed. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_BYTES = 256 << 20, STEP_BYTES = 1 << 20 };

static volatile sig_atomic_t replace;
static char data[1 << 16], *mark;

static void kill_itself(int number) {
    (void)number;
    kill(getpid(), SIGKILL);
}

static void be_replaced(int number) {
    (void)number;
    replace = 1;
}

static void swell(int number) {
    (void)number;
    for (long taken = 0; taken < MOST_BYTES; taken += STEP_BYTES) { /* a missing limit does not take the machine down */
        char *more = mmap(NULL, STEP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more != MAP_FAILED)
            memset(more, 1, STEP_BYTES);
    }
    _exit(4);
}

static void have_an_heir(void) {
    pid_t doomed = getpid();
    replace = 0;
    mark[0] = '-'; /* from here on neither is found where victims are looked for */
    pid_t heir = fork();
    if (heir == 0) {
        setsid();
        kill(doomed, SIGKILL);
        return;
    }
    if (heir < 0)
        kill(doomed, SIGKILL);
    for (;;)
        pause();
}

static void write_all(const char *text, size_t length) {
    while (length > 0) {
        ssize_t done = write(1, text, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            _exit(1);
        text += done;
        length -= (size_t)done;
    }
}

int main(int argc, char **argv) {
    size_t kept = 0;
    if (argc != 2)
        return 2;
    mark = argv[1];
    /* no SA_RESTART: a wait for input ends when it is to be replaced */
    sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = be_replaced }, NULL);
    sigaction(SIGHUP, &(struct sigaction){ .sa_handler = swell }, NULL);
    sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = kill_itself }, NULL); /* the last: now all are there */
    for (;;) {
        if (replace)
            have_an_heir();
        ssize_t more = read(0, data + kept, sizeof data - kept);
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0)
            return more < 0;
        kept += (size_t)more;
        char *from = data, *end;
        while ((end = memchr(from, '\n', kept))) {
            if (replace)
                have_an_heir();
            write_all(from, (size_t)(end + 1 - from));
            kept -= (size_t)(end + 1 - from);
            from = end + 1;
        }
        memmove(data, from, kept);
    }
}
