/*
 * connector-shim WHERE: starts one program at a time, and one probe beside it, reaps everything below it, and kills
 * every descendant when it is told to or when its socket closes. PROTOCOL.md, beside this file, is the contract with
 * the runner. job.c reads what is to be started, program.c becomes it, tree.c kills, probe.c is the built-in prober.
 * With --stay it outlives the runner: it waits for the next one until it is told that the run is over.
 *
 * One thread, one poll loop. Nothing in it waits for a program: a start that hangs in exec (a dead network disk) and a
 * process that cannot die yet (state D) are looked at again while the socket is still listened to.
 */
#define _GNU_SOURCE
#include "probe.h"
#include "program.h"
#include "tree.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MAX_RECEIVED = 253, /* the kernel's SCM_MAX_FD */
    MAX_PAUSE_MS = 100, MAX_UNREAD = 16384,
    FIRST_WAIT_MS = 100, MAX_WAIT_MS = 5000, /* between two tries to connect */
    VERSION = 1, NOT_OVER = -1,
};

/* As they lie in messages; x86_64 and aarch64 are little-endian. */
struct usage { int32_t code, signal; uint64_t user_us, system_us, resident_kib; };
struct outcome { int32_t code, signal; struct failure failure; } __attribute__((packed));

static int channel, signals, status_pipe = -1; /* the last: open from fork to exec; says why exec did not happen */
static pid_t program;                          /* 0: none; else not reaped yet, so the number is nobody else's */
static struct failure start_failure;           /* stage 0: none */
static pid_t nest;                             /* the probe's parent (see keep_apart), likewise; 0: no probe */
static int nest_pipe = -1;                     /* open until the probe's outcome is known */
static struct outcome probed;                  /* what its `Q` will say */
static int hung_up;                            /* the socket is gone: kill everything and leave */
static uint32_t kills_asked, killed;           /* `K`s without their `G`; descendants that died of it */
static int over = NOT_OVER;                    /* the run is over: what to exit with */
static uint32_t stop_signal;                   /* asked to stop by it; 0: not */
static int heard;                              /* the runner at the other end has said something */

/* ---- messages to the runner ---- */
/* Never waits, never raises SIGPIPE. A runner that leaves some hundred messages unread is taken for gone. */
static void tell(char type, const void *body, size_t size)
{
    unsigned char packet[128] = { (unsigned char)type };
    memcpy(packet + 1, body, size);
    if (!hung_up && send(channel, packet, size + 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) hung_up = 1;
}
static void tell_failure(int error, char stage) { tell('F', &(struct failure){ (uint32_t)error, stage }, 5); }
static void tell_no_probe(int error, char stage)
{
    tell('Q', &(struct outcome){ -1, 0, { (uint32_t)error, stage } }, sizeof(struct outcome));
}
static int exit_code(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }
static int end_signal(int status) { return WIFSIGNALED(status) ? WTERMSIG(status) : 0; }

/* ---- the program ---- */
static void start(struct job *job, int *source)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return tell_failure(errno, 'f');
    pid_t shim = getpid(), child = fork();
    if (child == 0) {
        setsid();
        become_program(job, source, ends[1], shim);
    }
    if (child < 0) tell_failure(errno, 'f');
    else program = child;
    close(ends[1]);
    start_failure.stage = 0;
    status_pipe = ends[0]; /* at its end at once when there is no child */
}

static void read_status(void)
{
    ssize_t count = read(status_pipe, &start_failure, sizeof start_failure); /* told by reap: then a start can follow */
    close(status_pipe);
    status_pipe = -1;
    if (count == 0 && program) tell('B', &program, 4); /* closed by exec, or by a death that `X` will tell */
}

static uint64_t microseconds(struct timeval time) { return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec; }
static void program_ended(int status, const struct rusage *usage)
{
    if (status_pipe >= 0) read_status(); /* the child's end is closed by now, so this does not wait */
    program = 0;
    if (start_failure.stage) tell_failure((int)start_failure.error, start_failure.stage);
    else tell('X', &(struct usage){ exit_code(status), end_signal(status), microseconds(usage->ru_utime),
                                    microseconds(usage->ru_stime), (uint64_t)usage->ru_maxrss }, sizeof(struct usage));
}

/* ---- the probe ---- */
/* The probe's parent: a subreaper, so that the probe's orphans stay apart from those of the program. It tells how the
 * probe ended, and waits to be killed, with whatever is left below it; it leads their session, so by its group too. */
static void keep_apart(struct job *job, int *source, int status, pid_t shim)
{
    int end;
    setsid();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != shim) _exit(127); /* it died before that */
    pid_t self = getpid(), probe = fork();
    if (probe == 0) become_program(job, source, status, self);
    if (probe < 0) give_up(status, 'f', errno);
    dup3(status, channel, O_CLOEXEC); /* which closes this end of the socket */
    for (int fd = 0; fd < channel; fd++) close(fd);
    close_from(channel + 1);
    for (pid_t ended = 0; ended != -1;)
        if ((ended = wait(&end)) == probe) (void)!write(channel, &end, sizeof end);
    for (;;) pause();
}

static void start_probe(struct job *job, int *source)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return tell_no_probe(errno, 'f');
    pid_t shim = getpid(), child = fork();
    if (child == 0) keep_apart(job, source, ends[1], shim);
    int error = errno;
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return tell_no_probe(error, 'f');
    }
    nest = child;
    nest_pipe = ends[0];
    probed = (struct outcome){ -1, SIGKILL, { 0, 0 } }; /* when nothing else is heard */
}

/* First comes the failure of a start, if there is one, and then the status of an end. */
static void read_outcome(void)
{
    unsigned char text[sizeof(struct failure) + sizeof(int)];
    ssize_t size = read(nest_pipe, text, sizeof text);
    int status;
    if (size >= (ssize_t)sizeof(struct failure)) {
        probed = (struct outcome){ -1, 0, { 0, 0 } };
        memcpy(&probed.failure, text, sizeof probed.failure);
    } else if (size == sizeof status) {
        memcpy(&status, text, sizeof status);
        probed = (struct outcome){ exit_code(status), end_signal(status), { 0, 0 } };
    }
    close(nest_pipe);
    nest_pipe = -1; /* from here on the rest of it is killed */
}

static void probe_ended(void)
{
    if (nest_pipe >= 0) read_outcome();
    nest = 0;
    tell('Q', &probed, sizeof probed);
}

/* Reaps whatever has ended; whether any child is left. */
static int reap(void)
{
    struct rusage usage;
    int status, pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        if (pid == nest) probe_ended();
        else if (end_signal(status) == SIGKILL) killed++;
        if (pid == program) program_ended(status, &usage);
    }
    return pid == 0;
}

/* ---- the runner's requests and the signals ---- */
static void request_start(int *received, int count, int whole)
{
    struct job job = { 0 };
    if (program || kills_asked) return tell_failure(EBUSY, 'b');
    int error = whole && count > 0 ? parse_job(received[0], (uint32_t)count - 1, &job) : EINVAL;
    if (error) tell_failure(error, 'j');
    else start(&job, received + 1);
    free_job(&job);
}

static void request_probe(int *received, int count, int whole)
{
    struct job job = { 0 };
    if (nest || kills_asked) return tell_no_probe(EBUSY, 'b');
    int error = whole && count > 0 ? parse_job(received[0], (uint32_t)count - 1, &job) : EINVAL;
    if (error) tell_no_probe(error, 'j');
    else start_probe(&job, received + 1);
    free_job(&job);
}

struct request { char type; int32_t number; char more; } __attribute__((packed));
static void receive(void)
{
    struct request request;
    union { char bytes[CMSG_SPACE(sizeof(int) * MAX_RECEIVED)]; struct cmsghdr align; } space;
    struct iovec part = { &request, sizeof request };
    struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof space };
    ssize_t size = recvmsg(channel, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0) hung_up = errno != EAGAIN;
    if (size <= 0) return; /* an empty packet; the end of the stream is seen by poll */
    heard = 1;
    int received[MAX_RECEIVED], count = 0, whole = !(packet.msg_flags & MSG_CTRUNC);
    struct cmsghdr *head = CMSG_FIRSTHDR(&packet);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
        count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(received, CMSG_DATA(head), (size_t)count * sizeof(int));
    }
    if (request.type == 'S') request_start(received, count, whole && size == 1);
    else if (request.type == 'P') request_probe(received, count, whole && size == 1);
    else if (request.type == 'k' && size == 1 && nest_pipe >= 0) read_outcome();
    else if (request.type == 'K' && size == 1) killed = kills_asked++ ? killed : 0;
    else if (request.type == 'O' && size == 5) over = request.number & 0xff, hung_up = 1;
    else if (request.type == 'T' && size == 5 && program && status_pipe < 0 && request.number > 0)
        kill(-program, request.number); /* anything else is no request of this version, and is passed over */
    while (count > 0) close(received[--count]);
}

/* The socket has ended. Of what was not read yet, only the end of the run matters. */
static void hang_up(void)
{
    struct request last;
    hung_up = 1;
    for (ssize_t size; (size = recv(channel, &last, sizeof last, MSG_DONTWAIT)) > 0;)
        if (last.type == 'O' && size == 5) over = last.number & 0xff;
}

/* As PID 1 the shim is asked to stop from outside only: what runs below it can neither end nor fake its container's
 * stop. A signal from outside of the PID namespace has no sender, and SI_USER cannot be forged (rt_sigqueueinfo(2)). */
static int asks_to_stop(const struct signalfd_siginfo *info)
{
    if (info->ssi_signo == SIGCHLD) return 0;
    return getpid() != 1 || (info->ssi_code == SI_USER && info->ssi_pid == 0);
}

static void read_signals(void)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info) {
        int unread = 0;
        if (!asks_to_stop(&info)) continue;
        stop_signal = info.ssi_signo;
        ioctl(channel, TIOCOUTQ, &unread); /* a flood of these must not take the room of what matters */
        if (unread < MAX_UNREAD) tell('R', &info.ssi_signo, 4);
    }
}

/* ---- getting ready ---- */
/* The inherited socket of that number; -1 when it is none of ours. */
static int inherited_socket(const char *number)
{
    char *end;
    long fd = strtol(number, &end, 10);
    int type = 0;
    socklen_t size = sizeof type;
    if (!*number || *end || fd < 0 || fd > INT_MAX || getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0
        || type != SOCK_SEQPACKET) return -1;
    return (int)fd;
}

/* Never waits, not even for a listener whose queue is full. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path) return errno = ENAMETOOLONG, -1;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    int error = errno;
    close(fd);
    return errno = error, -1;
}

static int prepare(int fd)
{
    int low = 0;
    if ((channel = dup2(fd, 3)) < 0) return -1;
    fcntl(channel, F_SETFD, FD_CLOEXEC);
    if (fd < channel) close(fd);
    close_from(channel + 1);
    while (low >= 0 && low < 3) low = open("/dev/null", O_RDWR | O_CLOEXEC); /* takes the lowest that is free */
    if (low > 2) close(low);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_DUMPABLE, 0);
    setsid(); /* the terminal's Ctrl-C is for the runner; refused when it leads its own group, which does as well */
    default_signals(); /* an inherited "ignore" of SIGCHLD would have the kernel reap, and lose every exit status */
    /* but for SIGKILL and its own faults nothing ends the shim */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &(uint64_t){ ~0ull }, NULL, 8);
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < 4; i++) sigaddset(&set, (int[]){ SIGCHLD, SIGTERM, SIGINT, SIGHUP }[i]);
    return signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Until the socket has ended and nothing is left below. */
static void serve(void)
{
    for (int pause_ms = 1;;) {
        int killing = kills_asked || hung_up || (nest && nest_pipe < 0);
        struct pollfd sources[4] = { { hung_up ? -1 : channel, POLLIN | POLLRDHUP, 0 }, { signals, POLLIN, 0 },
                                     { status_pipe, POLLIN, 0 }, { nest_pipe, POLLIN, 0 } };
        if (poll(sources, 4, killing ? pause_ms : -1) < 0 && errno != EINTR)
            exit(3); /* somebody of its user took its descriptors away (prlimit(2)): it can hear and find nothing more */
        if (sources[2].revents) read_status();
        if (sources[3].revents) read_outcome();
        if (sources[1].revents) read_signals();
        if (sources[0].revents & (POLLRDHUP | POLLHUP | POLLERR)) hang_up();
        else if (sources[0].revents) receive();
        if (nest && (nest_pipe < 0 || kills_asked || hung_up)) kill_tree(nest, nest);
        if (kills_asked || hung_up) kill_tree(getpid(), program);
        pause_ms = !killing ? 1 : pause_ms < MAX_PAUSE_MS ? pause_ms * 2 : pause_ms;
        if (reap()) continue;
        if (hung_up) return;
        for (; kills_asked; kills_asked--) tell('G', &killed, 4);
    }
}

/* ---- staying ---- */
static void say_hello(const char *path)
{
    struct { char type; uint32_t version; char path[108]; } __attribute__((packed)) hello = { 'H', VERSION, "" };
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } space = { { 0 } };
    strncpy(hello.path, path, sizeof hello.path - 1);
    struct iovec part = { &hello, 1 + sizeof hello.version + strlen(hello.path) };
    struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof space };
    struct cmsghdr *head = CMSG_FIRSTHDR(&packet);
    head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &(int){ 2 }, sizeof(int)); /* its own log: what people ask its container for */
    if (sendmsg(channel, &packet, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) hung_up = 1;
}

/* Serves one runner after the other; returns what to exit with. Whatever ran for one is dead before the next. */
static int stay(const char *path)
{
    for (int wait_ms = FIRST_WAIT_MS, told = 0;;) {
        int fd = connect_to(path);
        if (fd < 0 && !told++)
            fprintf(stderr, "connector-shim: waiting for the runner at %s: %s\n", path, strerror(errno));
        if (fd >= 0) {
            dup3(fd, channel, O_CLOEXEC);
            close(fd);
            hung_up = heard = told = 0;
            say_hello(path);
            serve();
            kills_asked = 0;
            hung_up = 1; /* nobody is told anything until the next one is there */
            if (heard) wait_ms = FIRST_WAIT_MS; /* one that shuts the door at once does not want it for now */
        }
        if (over != NOT_OVER) return over;
        /* the end of an orphan cuts the wait short, which does no harm */
        if (!stop_signal && poll(&(struct pollfd){ signals, POLLIN, 0 }, 1, wait_ms) > 0) read_signals();
        if (stop_signal) return 128 + (int)stop_signal;
        wait_ms = wait_ms * 2 < MAX_WAIT_MS ? wait_ms * 2 : MAX_WAIT_MS;
        reap();
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], PROBER) == 0) {
        alarm(PROBE_S); /* nobody else may end it */
        return run_prober(argv + 1);
    }
    if (argc == 3 && strcmp(argv[1], "--stay") == 0 && strchr(argv[2], '/')) {
        hung_up = 1;
        return prepare(open("/dev/null", O_RDWR)) < 0 ? 2 : stay(argv[2]); /* which keeps the socket's number */
    }
    int by_path = argc == 2 && strchr(argv[1], '/');
    int fd = by_path ? connect_to(argv[1]) : argc == 2 ? inherited_socket(argv[1]) : -1;
    if (by_path && fd < 0) {
        fprintf(stderr, "connector-shim: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    if (fd < 0 || prepare(fd) < 0) {
        fprintf(stderr, "usage: connector-shim WHERE (the number of a connected SOCK_SEQPACKET socket, or the path of "
                        "a listening one), or connector-shim --stay PATH; build " SHIM_BUILD "\n");
        return 2;
    }
    serve();
}
