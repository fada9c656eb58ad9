/*
 * connector-shim FD: starts one program at a time, reaps everything below it, and kills every descendant when it is
 * told to or when the socket at FD closes. PROTOCOL.md, beside this file, is the contract with the runner.
 *
 * One thread, one poll loop. Nothing in it waits for a program: a start that hangs in exec (a dead network disk) and a
 * process that cannot die yet (state D) are looked at again while the socket is still listened to.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CHILDREN_FILE
#define CHILDREN_FILE "children" /* the tests give another name, to take the way of kernels without it */
#endif

enum {
    MAGIC = 0x314a4e43,
    MAX_JOB = 8 << 20,   /* exec itself takes at most 6 MiB of arguments and variables */
    MAX_RECEIVED = 253,  /* the kernel's SCM_MAX_FD */
    MAX_PID = 1 << 22,   /* the kernel's highest pid_max */
    MAX_VICTIMS = 65536, /* of one pass; more descendants take more passes */
    MAX_ROUNDS = 64, MAX_PAUSE_MS = 100, MAX_UNREAD = 16384,
    CLOSE_RANGE = 436,   /* the same on all architectures; older headers lack the name */
};

/* As they lie in messages and in the job; x86_64 and aarch64 are little-endian. */
struct failure { uint32_t error; char stage; } __attribute__((packed));
struct usage { int32_t code, signal; uint64_t user_us, system_us, resident_kib; };
struct header { uint32_t magic, flags; int32_t uid, gid; uint32_t ports, limits, arguments, variables; };
struct limit { uint32_t resource, zero; uint64_t value; } __attribute__((packed));
struct job {
    struct header *header; /* also the start of what was allocated */
    uint32_t *target;
    struct limit *limit;
    char *folder, **arguments, **variables;
};

static int channel, signals, status_pipe = -1; /* the last: open from fork to exec; says why exec did not happen */
static pid_t program;                          /* 0: none; else not reaped yet, so the number is nobody else's */
static struct failure start_failure;           /* stage 0: none */
static int hung_up;                            /* the socket is gone: kill everything and leave */
static uint32_t kills_asked, killed;           /* `K`s without their `G`; descendants that died of it */
static pid_t victims[MAX_VICTIMS], victim_count;
static unsigned char is_victim[MAX_PID / 8];

static void close_from(int first)
{
    if (syscall(CLOSE_RANGE, first, ~0u, 0) == 0) return;
    struct rlimit limit = { 0, 0 }; /* kernels before 5.9, and older seccomp profiles of container engines */
    getrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = first; fd < 1 << 20 && (rlim_t)fd < limit.rlim_max; fd++) close(fd);
}

/* ---- messages to the runner ---- */
/* Never waits, never raises SIGPIPE. A runner that leaves some hundred messages unread is taken for gone. */
static void tell(char type, const void *body, size_t size)
{
    unsigned char packet[40] = { (unsigned char)type };
    memcpy(packet + 1, body, size);
    if (!hung_up && send(channel, packet, size + 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) hung_up = 1;
}
static void tell_failure(int error, char stage) { tell('F', &(struct failure){ (uint32_t)error, stage }, 5); }

/* ---- the job: nothing in it is believed before it is checked ---- */
/* Takes the next string; NULL when it is not ended. */
static char *next_string(char **place, const char *end)
{
    char *start = *place, *zero = memchr(start, 0, (size_t)(end - start));
    if (zero) *place = zero + 1;
    return zero ? start : NULL;
}

/* 0, or the errno that says why this is no job. The caller frees `header` and `arguments` in both cases. */
static int parse_job(int fd, uint32_t ports, struct job *job)
{
    struct stat about;
    size_t size = fstat(fd, &about) == 0 && S_ISREG(about.st_mode) ? (size_t)about.st_size : 0;
    if (size < sizeof(struct header) || size > MAX_JOB) return EINVAL;
    const struct header *header = job->header = malloc(size);
    if (!header) return ENOMEM;
    /* no mmap: a file that is cut short meanwhile would raise SIGBUS */
    if (pread(fd, job->header, size, 0) != (ssize_t)size) return EINVAL;
    if (header->magic != MAGIC || header->flags != 0 || header->uid < -1 || header->gid < -1) return EINVAL;
    if (header->ports != ports || header->limits > RLIM_NLIMITS || header->arguments < 1) return EINVAL;
    /* each string takes a byte at least, which bounds what is allocated below */
    uint64_t strings = 1 + (uint64_t)header->arguments + header->variables;
    if (sizeof *header + 4ull * ports + sizeof(struct limit) * header->limits + strings > size) return EINVAL;
    job->target = (uint32_t *)(job->header + 1);
    job->limit = (struct limit *)(job->target + ports);
    char *at = (char *)(job->limit + header->limits), *end = (char *)job->header + size;
    fd_set taken;
    FD_ZERO(&taken);
    for (uint32_t i = 0; i < ports; i++) {
        if (job->target[i] >= FD_SETSIZE || FD_ISSET(job->target[i], &taken)) return EINVAL;
        FD_SET(job->target[i], &taken);
    }
    for (uint32_t i = 0; i < header->limits; i++)
        if (job->limit[i].resource >= RLIM_NLIMITS || job->limit[i].zero != 0) return EINVAL;
    if (!(job->arguments = calloc(strings + 1, sizeof(char *)))) return ENOMEM; /* room for two closing NULLs */
    if (!(job->folder = next_string(&at, end))) return EINVAL;
    job->variables = job->arguments + header->arguments + 1;
    for (uint32_t i = 0; i < header->arguments; i++)
        if (!(job->arguments[i] = next_string(&at, end))) return EINVAL;
    for (uint32_t i = 0; i < header->variables; i++) {
        char *variable = job->variables[i] = next_string(&at, end);
        if (!variable || variable[0] == '=' || !strchr(variable, '=')) return EINVAL;
    }
    return at == end ? 0 : EINVAL;
}

/* ---- in the child, between fork and exec ---- */
static void give_up(int status, char stage, int error)
{
    (void)!write(status, &(struct failure){ (uint32_t)error, stage }, sizeof(struct failure));
    _exit(127);
}

/* Puts the ports at their numbers and closes the rest; returns where the status pipe is now. A target may be the number
 * of another's source, so all sources go above every target first. */
static int place_ports(const struct job *job, int *source, int status)
{
    int base = 0, ports = (int)job->header->ports, moved;
    for (int i = 0; i < ports; i++) base = job->target[i] < (uint32_t)base ? base : (int)job->target[i] + 1;
    for (int i = 0; i < ports; i++)
        if ((source[i] = fcntl(source[i], F_DUPFD, base + 1)) < 0) give_up(status, 'p', errno);
    if ((moved = fcntl(status, F_DUPFD, base + 1)) < 0 || dup3(moved, base, O_CLOEXEC) < 0) give_up(status, 'p', errno);
    for (int fd = 0; fd < base; fd++) close(fd);
    for (int i = 0; i < ports; i++)
        if (dup2(source[i], (int)job->target[i]) < 0) give_up(base, 'p', errno);
    close_from(base + 1);
    return base;
}

/* A libc keeps some signals for itself (32 to 34), and its functions leave them out, so ask the kernel. */
static void default_signals(void)
{
    const char zeros[64] = { 0 }; /* as kernel_sigaction: SIG_DFL, no flags; as mask: none */
    for (int number = 1; number <= 64; number++) syscall(SYS_rt_sigaction, number, zeros, NULL, 8);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, zeros, NULL, 8);
}

/* Returns the errno of what could not be executed. Like execvpe, but looks in the PATH of the job, not in its own, and
 * never hands a file without an interpreter line to a shell. */
static int search_and_exec(const struct job *job)
{
    static const char passed_over[] = { ENOENT, ENOTDIR, ELOOP, ESTALE, ENODEV, ETIMEDOUT, ENAMETOOLONG };
    const char *name = job->arguments[0], *path = "/usr/local/bin:/usr/bin:/bin";
    if (strchr(name, '/') || !*name) return execve(name, job->arguments, job->variables), errno;
    for (char **variable = job->variables; *variable; variable++)
        if (strncmp(*variable, "PATH=", 5) == 0) { path = *variable + 5; break; }
    for (int error = ENOENT;; path++) { /* EACCES says more than the ENOENT of a later folder */
        int length = (int)strcspn(path, ":"); /* an empty part is the current folder (POSIX) */
        char whole[PATH_MAX];
        if (snprintf(whole, sizeof whole, "%.*s%s%s", length, path, length ? "/" : "", name) < PATH_MAX) {
            execve(whole, job->arguments, job->variables);
            if (errno == EACCES) error = EACCES;
            else if (!memchr(passed_over, errno, sizeof passed_over)) return errno;
        }
        if (!*(path += length)) return error;
    }
}

static void become_program(const struct job *job, int *source, int status, pid_t shim)
{
    setsid();
    status = place_ports(job, source, status);
    for (struct limit *limit = job->limit; limit < job->limit + job->header->limits; limit++) {
        struct rlimit both = { limit->value, limit->value }; /* all ones is RLIM_INFINITY */
        if (setrlimit((int)limit->resource, &both) < 0) give_up(status, 'l', errno);
    }
    uid_t uid = (uid_t)job->header->uid, gid = (gid_t)job->header->gid; /* -1 leaves each as it is */
    if (((uid & gid) != (uid_t)-1 && setgroups(0, NULL) < 0) || setresgid(gid, gid, gid) < 0
        || setresuid(uid, uid, uid) < 0) give_up(status, 'u', errno);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* after the change of user, which clears it (prctl(2)) */
    if (getppid() != shim) _exit(127); /* the shim died before that */
    if (chdir(job->folder) < 0) give_up(status, 'c', errno);
    default_signals();
    give_up(status, 'x', search_and_exec(job));
}

/* ---- starting and ending ---- */
static void start(const struct job *job, int *source)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return tell_failure(errno, 'f');
    pid_t shim = getpid(), child = fork();
    if (child == 0) become_program(job, source, ends[1], shim);
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
/* Reaps whatever has ended; whether any child is left. */
static int reap(void)
{
    struct rusage usage;
    int status, pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) killed++;
        if (pid != program) continue;
        if (status_pipe >= 0) read_status(); /* the child's end is closed by now, so this does not wait */
        program = 0;
        if (start_failure.stage) tell_failure((int)start_failure.error, start_failure.stage);
        else tell('X', &(struct usage){ WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                                        WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                                        microseconds(usage.ru_utime), microseconds(usage.ru_stime),
                                        (uint64_t)usage.ru_maxrss }, sizeof(struct usage));
    }
    return pid == 0;
}

/* ---- killing all descendants ---- */
static void stop_victim(pid_t pid)
{
    if (pid <= 0 || pid >= MAX_PID || victim_count == MAX_VICTIMS || is_victim[pid / 8] & 1 << pid % 8) return;
    is_victim[pid / 8] |= (unsigned char)(1 << pid % 8);
    victims[victim_count++] = pid;
    kill(pid, SIGSTOP);  /* at once, before it can start another */
    kill(-pid, SIGSTOP); /* a group that it leads, in one step; its session is below the shim, so all of it is */
}

/* Stops the children of all threads of `pid`; 0 where the kernel has no such list (CONFIG_PROC_CHILDREN). */
static int stop_children(pid_t pid)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/task", pid);
    DIR *threads = opendir(name);
    int listed = 1, child;
    for (struct dirent *thread; threads && (thread = readdir(threads));) {
        if (thread->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "/proc/%d/task/%.16s/" CHILDREN_FILE, pid, thread->d_name);
        FILE *list = fopen(name, "re");
        while (list && fscanf(list, "%d", &child) == 1) stop_victim(child);
        if (list) fclose(list);
        else listed &= pid != getpid(); /* another's thread may have ended, the shim's own has not */
    }
    if (threads) closedir(threads);
    return listed;
}

/* The slower way: every process of the machine whose parent is the shim or a victim. */
static void stop_by_parent(void)
{
    DIR *all = opendir("/proc");
    for (struct dirent *entry; all && (entry = readdir(all));) {
        char name[64], text[512] = "";
        int parent = 0, pid = atoi(entry->d_name);
        snprintf(name, sizeof name, "/proc/%d/stat", pid);
        FILE *file = pid > 0 ? fopen(name, "re") : NULL;
        if (!file) continue;
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        const char *rest = strrchr(text, ')'); /* the last one: a program's name may hold more of them */
        if (!rest || sscanf(rest + 1, " %*c %d", &parent) != 1 || parent <= 0 || parent >= MAX_PID) continue;
        if (parent == getpid() || is_victim[parent / 8] & 1 << parent % 8) stop_victim(pid);
    }
    if (all) closedir(all);
}

/* Stops the whole tree before it kills any of it: a fork bomb loses nothing by the death of some, but cannot fork while
 * all are stopped. The list of children is only exact for stopped ones (proc(5)), so look until nothing new is seen. */
static void kill_pass(void)
{
    char self[16] = "";
    int before = -1, known = readlink("/proc/self", self, sizeof self - 1) > 0 && atoi(self) == getpid();
    /* where it may, ahead of what it has to stop: a thousand of them leave it a thousandth of the time */
    int ahead = syscall(SYS_sched_getscheduler, 0) == SCHED_OTHER /* the calls, as musl's functions refuse */
                && syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &(int){ 1 }) == 0;
    if (getpid() == 1) kill(-1, SIGKILL); /* one step for the kernel, and it reaches what was injected too */
    else if (known)
        for (int round = 0; victim_count != before && round < MAX_ROUNDS; round++) {
            before = victim_count;
            if (!stop_children(getpid())) stop_by_parent();
            else for (int i = 0; i < victim_count; i++) stop_children(victims[i]);
        }
    else if (program) kill(-program, SIGKILL); /* no /proc, or one of another pid namespace: its numbers are not ours */
    for (; victim_count > 0; is_victim[victims[victim_count] / 8] = 0) kill(victims[--victim_count], SIGKILL);
    if (ahead) syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &(int){ 0 });
}

/* ---- the runner's requests and the signals ---- */
static void request_start(int *received, int count, int whole)
{
    struct job job = { 0 };
    if (program || kills_asked) return tell_failure(EBUSY, 'b');
    int error = whole && count > 0 ? parse_job(received[0], (uint32_t)count - 1, &job) : EINVAL;
    if (error) tell_failure(error, 'j');
    else start(&job, received + 1);
    free(job.header), free(job.arguments);
}

static void receive(void)
{
    struct { char type; int32_t number; char more; } __attribute__((packed)) request;
    union { char bytes[CMSG_SPACE(sizeof(int) * MAX_RECEIVED)]; struct cmsghdr align; } space;
    struct iovec part = { &request, sizeof request };
    struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof space };
    ssize_t size = recvmsg(channel, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0) hung_up = errno != EAGAIN;
    if (size <= 0) return; /* an empty packet; the end of the stream is seen by poll */
    int received[MAX_RECEIVED], count = 0, whole = !(packet.msg_flags & MSG_CTRUNC);
    struct cmsghdr *head = CMSG_FIRSTHDR(&packet);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
        count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(received, CMSG_DATA(head), (size_t)count * sizeof(int));
    }
    if (request.type == 'S') request_start(received, count, whole && size == 1);
    else if (request.type == 'K' && size == 1) killed = kills_asked++ ? killed : 0;
    else if (request.type == 'T' && size == 5 && program && status_pipe < 0 && request.number > 0)
        kill(-program, request.number); /* anything else is no request of this version, and is passed over */
    while (count > 0) close(received[--count]);
}

static void read_signals(void)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info) {
        int unread = 0;
        ioctl(channel, TIOCOUTQ, &unread); /* a flood of these must not take the room of what matters */
        if (info.ssi_signo != SIGCHLD && unread < MAX_UNREAD) tell('R', &info.ssi_signo, 4);
    }
}

static int prepare(const char *number)
{
    char *end;
    long fd = strtol(number, &end, 10);
    int type = 0, low = 0;
    socklen_t size = sizeof type;
    if (!*number || *end || fd < 0 || fd > INT_MAX || getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0
        || type != SOCK_SEQPACKET || (channel = dup2((int)fd, 3)) < 0) return -1;
    fcntl(channel, F_SETFD, FD_CLOEXEC);
    if (fd < channel) close((int)fd);
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

int main(int argc, char **argv)
{
    if (argc != 2 || prepare(argv[1]) < 0) {
        fprintf(stderr, "usage: connector-shim FD (a connected SOCK_SEQPACKET socket); build " SHIM_BUILD "\n");
        return 2;
    }
    for (int pause_ms = 1;;) {
        struct pollfd sources[3] = { { hung_up ? -1 : channel, POLLIN | POLLRDHUP, 0 },
                                     { signals, POLLIN, 0 }, { status_pipe, POLLIN, 0 } };
        poll(sources, 3, kills_asked || hung_up ? pause_ms : -1);
        if (sources[2].revents) read_status();
        if (sources[1].revents) read_signals();
        if (sources[0].revents & (POLLRDHUP | POLLHUP | POLLERR)) hung_up = 1;
        else if (sources[0].revents) receive();
        if (kills_asked || hung_up) kill_pass();
        pause_ms = !kills_asked && !hung_up ? 1 : pause_ms < MAX_PAUSE_MS ? pause_ms * 2 : pause_ms;
        if (reap()) continue;
        if (hung_up) return 0;
        for (; kills_asked; kills_asked--) tell('G', &killed, 4);
    }
}
