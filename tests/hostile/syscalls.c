/* Tries one system call that nobody untrusted may make, and tells what came of it.
 *
 * usage: attempt NAME [PATH] | attempt --list | attempt --calls NUMBER…
 *
 * One line for each: {"attempt": "mount", "worked": false, "errno": "EPERM"}. `worked` means that the kernel let it
 * through: also where it then refused the arguments, which are wrong on purpose wherever the real thing would change
 * the machine. What is made is taken away at once, or goes with the process, which ends within LIMIT_S seconds.
 * PATH is for setuid_program: a copy of this program that belongs to root and is setuid.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_S = 10, KILLED = 1000 }; /* KILLED + n: by signal n */

/* Newer than the headers that this may be built with. */
#define NR_PIDFD_OPEN 434
#define NR_CLONE3 435
#define NR_PIDFD_GETFD 438
#define NR_PROCESS_MADVISE 440
#define NR_OPEN_TREE 428
#define NR_FSOPEN 430
#define NR_MOUNT_SETATTR 442
#define NR_MEMFD_SECRET 447
#define NR_IO_URING_SETUP 425

static const char *path; /* of the command line, or NULL */

/* The error of a call; 0: it worked. What it opened goes with the process. */
static int of(long result) { return result < 0 ? errno : 0; }

/* The same of a call whose arguments are wrong on purpose: these errors come after the wall. */
static int past(long result, int first, int second) {
    int error = of(result);
    return error == first || error == second ? 0 : error;
}

static int ended(pid_t child) {
    int status;
    if (child == -1) return errno;
    if (waitpid(child, &status, 0) == -1) return errno;
    return WIFSIGNALED(status) ? KILLED + WTERMSIG(status) : WEXITSTATUS(status);
}

/* In a process of its own, since it may be killed for it. */
static int apart(int (*attempt)(void)) {
    pid_t child = fork();
    if (child == 0) _exit(attempt());
    return ended(child);
}

static int try_ptrace_init(void) { return of(ptrace(PTRACE_SEIZE, 1, NULL, NULL)); }

static int try_ptrace_sibling(void) {
    pid_t sibling = fork();
    if (sibling == 0) {
        alarm(LIMIT_S);
        pause();
        _exit(0);
    }
    pid_t other = sibling == -1 ? -1 : fork();
    if (other == 0) _exit(of(ptrace(PTRACE_SEIZE, sibling, NULL, NULL)));
    int error = ended(other);
    if (sibling > 0) {
        kill(sibling, SIGKILL);
        waitpid(sibling, NULL, 0);
    }
    return error;
}

static int vm_of_init(int number) {
    char byte = 0;
    struct iovec here = { &byte, 1 }, there = { (void *)1, 1 }; /* where nobody has anything */
    return past(syscall(number, 1, &here, 1, &there, 1, 0), EFAULT, EFAULT);
}
static int try_process_vm_readv_init(void) { return vm_of_init(SYS_process_vm_readv); }
static int try_process_vm_writev_init(void) { return vm_of_init(SYS_process_vm_writev); }

static int try_pidfd_getfd_init(void) {
    int pidfd = syscall(NR_PIDFD_OPEN, 1, 0);
    if (pidfd == -1) return errno;
    return past(syscall(NR_PIDFD_GETFD, pidfd, 0, 0), EBADF, EBADF); /* it may have no 0 */
}

static int try_process_madvise_self(void) {
    static char page[8192] __attribute__((aligned(4096)));
    struct iovec what = { page, 4096 };
    return of(syscall(NR_PROCESS_MADVISE, syscall(NR_PIDFD_OPEN, getpid(), 0), &what, 1, 20 /* MADV_COLD */, 0));
}

static int try_kcmp_self(void) { return of(syscall(SYS_kcmp, getpid(), getpid(), 1 /* KCMP_VM */, 0, 0)); }

static int try_io_uring_setup(void) {
    struct io_uring_params params = { 0 };
    return of(syscall(NR_IO_URING_SETUP, 1, &params));
}

static int try_aio(void) {
    unsigned long context = 0;
    return of(syscall(SYS_io_setup, 1, &context));
}

static int try_userfaultfd(void) { return of(syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */)); }
static int try_memfd_secret(void) { return of(syscall(NR_MEMFD_SECRET, 0)); }

static int try_socket_vsock(void) { return of(socket(40, SOCK_STREAM, 0)); }
static int try_socket_raw(void) { return of(socket(AF_INET, SOCK_RAW, 1)); }
static int try_socket_raw6(void) { return of(socket(AF_INET6, SOCK_RAW, 58)); }
static int try_socket_packet(void) { return of(socket(17, SOCK_RAW, 0)); }
static int try_socket_packet_old(void) { return of(socket(AF_INET, 10 /* SOCK_PACKET */, 0)); }
static int try_socket_alg(void) { return of(socket(38, SOCK_SEQPACKET, 0)); }
static int try_socket_uevent(void) { return of(socket(16, SOCK_RAW, 15)); }
static int try_socket_ping(void) { return of(socket(AF_INET, SOCK_DGRAM, 1)); }
static int try_socket_udplite(void) { return of(socket(AF_INET, SOCK_DGRAM, 136)); }

/* Bits that the kernel does not look at must not make the filter look away. */
static int try_socket_vsock_high(void) {
    return of(syscall(SYS_socket, 40 | 1ul << 32, SOCK_STREAM | 1ul << 32, 1ul << 32));
}

static int try_keyctl(void) { return of(syscall(SYS_keyctl, 0, -2 /* KEY_SPEC_PROCESS_KEYRING */, 1)); }
static int try_add_key(void) { return of(syscall(SYS_add_key, "user", "connector-attempt", "x", 1ul, -2)); }
static int try_request_key(void) {
    return past(syscall(SYS_request_key, "user", "connector-attempt-nowhere", NULL, 0), ENOKEY, ENOKEY);
}

static int try_bpf(void) {
    union bpf_attr map;
    memset(&map, 0, sizeof map);
    map.map_type = BPF_MAP_TYPE_ARRAY;
    map.key_size = map.value_size = 4;
    map.max_entries = 1;
    return of(syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
}

static int try_perf_event_open(void) {
    struct perf_event_attr event;
    memset(&event, 0, sizeof event);
    event.type = PERF_TYPE_SOFTWARE;
    event.size = sizeof event;
    event.config = PERF_COUNT_SW_TASK_CLOCK;
    event.exclude_kernel = event.exclude_hv = 1;
    return of(syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
}

static int try_fanotify(void) { return of(syscall(SYS_fanotify_init, 0x200 /* FAN_REPORT_FID */, O_RDONLY)); }

static int try_mount_tmpfs(void) {
    char place[] = "/tmp/attempt-XXXXXX";
    if (!mkdtemp(place)) return errno;
    int error = of(mount("none", place, "tmpfs", 0, "size=4k"));
    if (error == 0) umount2(place, MNT_DETACH);
    rmdir(place);
    return error;
}

static int try_fsopen(void) { return of(syscall(NR_FSOPEN, "tmpfs", 0)); }
static int try_open_tree(void) { return of(syscall(NR_OPEN_TREE, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */)); }
static int try_mount_setattr(void) {
    uint64_t nothing[4] = { 0 };
    return of(syscall(NR_MOUNT_SETATTR, AT_FDCWD, "/", 0, nothing, sizeof nothing));
}
static int try_chroot_here(void) { return of(chroot("/")); }
static int try_pivot_root(void) { return past(syscall(SYS_pivot_root, "/", "/"), EBUSY, EINVAL); }

static int try_unshare_user(void) { return of(unshare(CLONE_NEWUSER)); }
static int try_unshare_net(void) { return of(unshare(CLONE_NEWNET)); }

static int try_clone_user(void) {
    pid_t child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return ended(child);
}

static int try_clone3_user(void) {
    uint64_t how[8] = { CLONE_NEWUSER, 0, 0, 0, SIGCHLD }; /* struct clone_args */
    pid_t child = syscall(NR_CLONE3, how, sizeof how);
    if (child == 0) _exit(0);
    return ended(child);
}

static int try_setns_own(void) {
    int space = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
    return of(syscall(SYS_setns, space, space == -1 ? 0 : CLONE_NEWUTS));
}

struct handle {
    unsigned bytes;
    int kind;
    unsigned char data[128];
};

static int try_name_to_handle_at_root(void) {
    struct handle its = { .bytes = sizeof its.data };
    int mount;
    return of(syscall(SYS_name_to_handle_at, AT_FDCWD, "/", &its, &mount, 0));
}

static int try_open_by_handle_at_root(void) {
    struct handle its = { .bytes = 8, .kind = 1, .data = { 2 } }; /* inode 2, as a file system's root often is */
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return past(syscall(SYS_open_by_handle_at, root, &its, O_RDONLY), ESTALE, EINVAL);
}

/* A terminal of its own to push a character into; where there is none, stdin. */
static int terminal(void) {
    int unlock = 0, number, leader = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    char name[32];
    if (leader == -1 || ioctl(leader, TIOCSPTLCK, &unlock) || ioctl(leader, TIOCGPTN, &number)) return 0;
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    setsid();
    int follower = open(name, O_RDWR | O_CLOEXEC);
    if (follower == -1) return 0;
    ioctl(follower, TIOCSCTTY, 0);
    return follower;
}
static int push(unsigned long request) {
    char letter = 'x';
    return of(syscall(SYS_ioctl, terminal(), request, &letter));
}
static int tiocsti_now(void) { return push(TIOCSTI); }
static int tiocsti_high_now(void) { return push(TIOCSTI | 1ul << 32); }
static int try_tiocsti(void) { return apart(tiocsti_now); }
static int try_tiocsti_high(void) { return apart(tiocsti_high_now); }
static int try_tioclinux(void) { return past(syscall(SYS_ioctl, 0, 0x541Cul, "\x06"), EINVAL, EINVAL); }

static int try_personality_set(void) {
    int was = personality(0xffffffff);
    int error = of(personality(ADDR_NO_RANDOMIZE));
    if (error == 0) personality(was);
    return error;
}

static int try_kexec_load(void) { return of(syscall(SYS_kexec_load, 0, 0, NULL, 0)); } /* nothing to load */
static int try_init_module(void) { return past(syscall(SYS_init_module, NULL, 0, ""), ENOEXEC, EFAULT); }
static int try_finit_module(void) { return past(syscall(SYS_finit_module, -1, "", 0), EBADF, ENOEXEC); }
static int try_reboot(void) { return past(syscall(SYS_reboot, 0, 0, 0, 0), EINVAL, EINVAL); } /* no magic number */
static int try_swapon(void) { return past(syscall(SYS_swapon, "/nowhere", 0), ENOENT, EINVAL); }
static int try_syslog_size(void) { return of(syscall(SYS_syslog, 10 /* SYSLOG_ACTION_SIZE_BUFFER */, NULL, 0)); }
static int try_quotactl(void) {
    return past(syscall(SYS_quotactl, 0x80000100 /* Q_SYNC */, "/nowhere", 0, 0), ENOENT, ENOTBLK);
}

static int try_clock_settings(void) {
    static char settings[512]; /* of struct timex: 0 is to read them */
    return of(syscall(SYS_adjtimex, settings));
}

static int try_sethostname_same(void) {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return of(sethostname(name, strlen(name)));
}

static int try_set_mempolicy(void) { return of(syscall(SYS_set_mempolicy, 0 /* MPOL_DEFAULT */, NULL, 0)); }

static int try_mknod_device(void) {
    char place[64];
    snprintf(place, sizeof place, "/tmp/attempt-device-%d", (int)getpid());
    int error = of(mknod(place, S_IFCHR | 0600, makedev(1, 3)));
    if (error == 0) unlink(place);
    return error;
}

static int try_sysrq(void) { return of(open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC)); } /* nothing is written */
static int try_kernel_settings(void) { return of(open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC)); }
static int try_kernel_memory(void) { return of(open("/proc/kcore", O_RDONLY | O_CLOEXEC)); }

static int try_setuid_root(void) { return of(setuid(0)); }

static int try_setuid_program(void) {
    pid_t child = path ? fork() : (errno = EINVAL, -1);
    if (child == 0) {
        execl(path, path, "--am-i-root", NULL);
        _exit(errno);
    }
    return ended(child);
}

#if defined __x86_64__
static int old_call(void) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20 /* getpid of i386 */) : "memory", "r8", "r9", "r10", "r11");
    return result == getpid() ? 0 : result < 0 ? -result : EIO;
}
static int try_i386_call(void) { return apart(old_call); }
static int short_call(void) { return past(syscall(0x40000000 | SYS_getpid), ENOSYS, ENOSYS); } /* most have no x32 */
static int try_x32_call(void) { return apart(short_call); }
static int try_iopl(void) { return of(syscall(SYS_iopl, 3)); }
static int try_ioperm(void) { return of(syscall(SYS_ioperm, 0x80, 1, 1)); }
static int try_modify_ldt(void) {
    char table[64];
    return of(syscall(SYS_modify_ldt, 0, table, sizeof table));
}
#endif

static const struct {
    const char *name;
    int (*run)(void);
} attempts[] = {
#define TRY(name) { #name, try_##name }
    TRY(ptrace_init), TRY(ptrace_sibling), TRY(process_vm_readv_init), TRY(process_vm_writev_init),
    TRY(pidfd_getfd_init), TRY(process_madvise_self), TRY(kcmp_self), TRY(io_uring_setup), TRY(aio), TRY(userfaultfd),
    TRY(memfd_secret), TRY(socket_vsock), TRY(socket_vsock_high), TRY(socket_raw), TRY(socket_raw6),
    TRY(socket_packet), TRY(socket_packet_old), TRY(socket_alg), TRY(socket_uevent), TRY(socket_ping),
    TRY(socket_udplite), TRY(keyctl), TRY(add_key), TRY(request_key), TRY(bpf), TRY(perf_event_open), TRY(fanotify),
    TRY(mount_tmpfs), TRY(fsopen), TRY(open_tree), TRY(mount_setattr), TRY(chroot_here), TRY(pivot_root),
    TRY(unshare_user), TRY(unshare_net), TRY(clone_user), TRY(clone3_user), TRY(setns_own),
    TRY(name_to_handle_at_root), TRY(open_by_handle_at_root), TRY(tiocsti), TRY(tiocsti_high), TRY(tioclinux),
    TRY(personality_set), TRY(kexec_load), TRY(init_module), TRY(finit_module), TRY(reboot), TRY(swapon),
    TRY(syslog_size), TRY(quotactl), TRY(clock_settings), TRY(sethostname_same), TRY(set_mempolicy),
    TRY(mknod_device), TRY(sysrq), TRY(kernel_settings), TRY(kernel_memory), TRY(setuid_root), TRY(setuid_program),
#if defined __x86_64__
    TRY(i386_call), TRY(x32_call), TRY(iopl), TRY(ioperm), TRY(modify_ldt),
#endif
};

static void say(const char *name, int error) {
    static const struct {
        int number;
        const char *name;
    } errors[] = {
#define ERROR(name) { name, #name }
        ERROR(EPERM), ERROR(ENOSYS), ERROR(EACCES), ERROR(EINVAL), ERROR(ENOENT), ERROR(EFAULT), ERROR(EBADF),
        ERROR(ENOTTY), ERROR(EIO), ERROR(EROFS), ERROR(ESRCH), ERROR(ENODEV), ERROR(EBUSY), ERROR(EOPNOTSUPP),
        ERROR(EAFNOSUPPORT), ERROR(EPROTONOSUPPORT), ERROR(ESOCKTNOSUPPORT), ERROR(ENOSPC), ERROR(EUSERS),
        ERROR(ENOMEM), ERROR(EAGAIN), ERROR(EMFILE), ERROR(ECHILD), ERROR(ENOEXEC), { KILLED + SIGSYS, "SIGSYS" },
    };
    char number[16];
    const char *word = number;
    snprintf(number, sizeof number, "%d", error);
    for (size_t index = 0; index < sizeof errors / sizeof *errors; index++)
        if (errors[index].number == error) word = errors[index].name;
    if (error) printf("{\"attempt\": \"%s\", \"worked\": false, \"errno\": \"%s\"}\n", name, word);
    else printf("{\"attempt\": \"%s\", \"worked\": true, \"errno\": null}\n", name);
    fflush(stdout);
}

int main(int count, char **words) {
    const size_t known = sizeof attempts / sizeof *attempts;
    const char *name = count > 1 ? words[1] : "";
    path = count > 2 ? words[2] : NULL;
    alarm(LIMIT_S);
    if (strcmp(name, "--am-i-root") == 0) return geteuid() == 0 ? 0 : EPERM;
    if (strcmp(name, "--list") == 0) {
        for (size_t index = 0; index < known; index++) puts(attempts[index].name);
        return 0;
    }
    if (strcmp(name, "--calls") == 0) { /* with arguments that nothing can be done with */
        for (int index = 2; index < count; index++)
            say(words[index], of(syscall(strtol(words[index], NULL, 10), -1, -1, -1, -1, -1, -1)));
        return 0;
    }
    for (size_t index = 0; index < known; index++) {
        if (strcmp(attempts[index].name, name)) continue;
        say(name, attempts[index].run());
        return 0;
    }
    fprintf(stderr, "usage: attempt NAME [PATH] | --list | --calls NUMBER...\n");
    return 2;
}
