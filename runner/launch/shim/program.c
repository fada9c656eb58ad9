#define _GNU_SOURCE
#include "program.h"
#include "probe.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CLOSE_RANGE = 436 }; /* the same on all architectures; older headers lack the name */

void close_from(int first)
{
    if (syscall(CLOSE_RANGE, first, ~0u, 0) == 0) return;
    struct rlimit limit = { 0, 0 }; /* kernels before 5.9, and older seccomp profiles of container engines */
    getrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = first; fd < 1 << 20 && (rlim_t)fd < limit.rlim_max; fd++) close(fd);
}

/* A libc keeps some signals for itself (32 to 34), and its functions leave them out, so ask the kernel. */
void default_signals(void)
{
    const char zeros[64] = { 0 }; /* as kernel_sigaction: SIG_DFL, no flags; as mask: none */
    for (int number = 1; number <= 64; number++) syscall(SYS_rt_sigaction, number, zeros, NULL, 8);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, zeros, NULL, 8);
}

void give_up(int status, char stage, int error)
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

/* Puts the job's variables over the shim's own environment; 0 when there is no memory. */
static int inherit_environment(struct job *job)
{
    size_t ours = 0, count = job->header->variables;
    while (environ[ours]) ours++;
    char **all = calloc(count + ours + 1, sizeof *all), **next = all + count;
    if (!all) return 0;
    memcpy(all, job->variables, count * sizeof *all);
    for (char **variable = environ; *variable; variable++) {
        size_t name = strcspn(*variable, "=") + 1, i = 0; /* with the sign, or with the end where there is none */
        while (i < count && strncmp(all[i], *variable, name) != 0) i++;
        if (i == count) *next++ = *variable;
    }
    job->variables = all;
    return 1;
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

/* -1 leaves each as it is; nothing is asked of the kernel where both are, as a seccomp filter may refuse it. */
static int change_user(uid_t uid, gid_t gid)
{
    if ((uid & gid) == (uid_t)-1) return 0;
    return setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0 ? -1 : 0;
}

void become_program(struct job *job, int *source, int status, pid_t parent)
{
    status = place_ports(job, source, status);
    for (struct limit *limit = job->limit; limit < job->limit + job->header->limits; limit++) {
        struct rlimit both = { limit->value, limit->value }; /* all ones is RLIM_INFINITY */
        if (setrlimit((int)limit->resource, &both) < 0) give_up(status, 'l', errno);
    }
    if (change_user((uid_t)job->header->uid, (gid_t)job->header->gid) < 0) give_up(status, 'u', errno);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* after the change of user, which clears it (prctl(2)) */
    if (getppid() != parent) _exit(127); /* it died before that */
    if (*job->folder && chdir(job->folder) < 0) give_up(status, 'c', errno);
    if (job->header->flags & INHERIT_ENVIRONMENT && !inherit_environment(job)) give_up(status, 'x', ENOMEM);
    default_signals();
    if (strcmp(job->arguments[0], PROBER) == 0) {
        close(status); /* as by an exec */
        _exit(run_prober(job->arguments));
    }
    give_up(status, 'x', search_and_exec(job));
}
