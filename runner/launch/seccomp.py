"""What an untrusted program may ask of the kernel: one list of system calls by name, in the form that each home takes.

`docker_profile` is the JSON that a container engine takes, `bpf_program` the filter that bubblewrap takes. What is not
on the list answers EPERM. A call that the tables do not know, and those in `_AS_IF_OLDER`, answer ENOSYS as an older
kernel would, so that libraries fall back. Calls of another architecture, or of x32, kill the process.

All comparisons are of the lower 32 bits of an argument: the kernel cuts the arguments in question to that (`int`,
`unsigned int`; clone(2)'s flags), so bits above it must not make a difference here either. docs/decisions/0014 says
what is not on the list, and why, and what it costs.
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from runner.errors import MachineError
from runner.launch.syscalls import NUMBERS

_ALWAYS = """
accept accept4 access alarm arch_prctl bind brk capget capset chdir chmod chown clock_getres clock_gettime
clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr
fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat
get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid
getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt
gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioprio_get
ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen
listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create
mincore mkdir mkdirat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend
mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat
openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64
preadv preadv2 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
recvfrom recvmmsg recvmsg removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select
semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_tid_address setfsgid setfsuid
setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 splice stat statfs statx symlink
symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat
uretprobe utime utimensat utimes vfork wait4 waitid write writev
"""
"""uretprobe is put into programs by who traces the machine, before Linux 6.14 through the filter; made up, it kills."""

_AS_IF_OLDER = """
cachestat clone3 file_getattr file_setattr listmount listns lsm_get_self_attr lsm_list_modules lsm_set_self_attr
open_tree_attr rseq_slice_yield statmount
"""
"""clone3 has its flags in memory, where no filter sees them: without it, libraries use clone."""

_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Equal:
    """Holds where the bits of `mask` in the argument number `index` are `value`."""

    index: int
    value: int
    mask: int = _WORD


_Case = tuple[_Equal, ...]
"""Conditions that must hold together; a call is allowed where one of its cases holds."""

_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16  # socket(2)
_STREAM, _DATAGRAM, _SEQUENCED = 1, 2, 5
_TYPE = 0xF  # SOCK_TYPE_MASK of linux/net.h: what is above it are flags
_TCP, _UDP, _NETLINK_ROUTE = 6, 17, 0
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_FILE_TYPE, _FILES = 0o170000, (0, 0o100000, 0o010000, 0o140000)  # mknod(2): regular twice, FIFO, socket: no devices
_PERSONALITIES = (0, 0x8, 0x20000, 0x20008, _WORD)  # PER_LINUX, PER_LINUX32, both with UNAME26, and asking


def _any(index: int, values: Iterable[int], mask: int = _WORD) -> tuple[_Case, ...]:
    """The argument has one of the values."""
    return tuple((_Equal(index, value, mask),) for value in values)


def _none(index: int, values: frozenset[int], bit: int = 31, fixed: int = 0, mask: int = 0) -> Iterator[_Case]:
    """The argument has none of the values; as cases, since engines can ask for equal bits only (or for 64 at once).

    Where all values agree in a bit, whoever differs in it is none of them; where they do not, each half is a question.
    """
    if bit < 0:
        return
    here = 1 << bit
    ones = frozenset(value for value in values if value & here)
    if ones and ones != values:
        yield from _none(index, ones, bit - 1, fixed | here, mask | here)
        yield from _none(index, values - ones, bit - 1, fixed, mask | here)
        return
    yield (_Equal(index, fixed | (0 if ones else here), mask | here),)
    yield from _none(index, values, bit - 1, fixed, mask)


def _sockets() -> Iterator[_Case]:
    """Sockets of the machine; TCP and UDP; and what getifaddrs(3) asks. Nothing raw."""
    for kind in (_STREAM, _DATAGRAM, _SEQUENCED):
        yield _Equal(0, _UNIX), _Equal(1, kind, _TYPE)
    for family in (_INET, _INET6):
        for kind, protocol in ((_STREAM, _TCP), (_DATAGRAM, _UDP)):
            for named in (0, protocol):
                yield _Equal(0, family), _Equal(1, kind, _TYPE), _Equal(2, named)
    yield _Equal(0, _NETLINK), _Equal(2, _NETLINK_ROUTE)


_SOMETIMES: dict[str, tuple[_Case, ...]] = {
    "clone": _any(0, (0,), _NEW_NAMESPACES),
    "ioctl": tuple(_none(1, frozenset({_TIOCSTI, _TIOCLINUX}))),
    "mknod": _any(1, _FILES, _FILE_TYPE),
    "mknodat": _any(2, _FILES, _FILE_TYPE),
    "personality": _any(0, _PERSONALITIES),
    "prlimit64": _any(0, (0,)),  # its own: a limit set on PID 1, which has the same user, would end the shim
    "socket": tuple(_sockets()),
    "socketpair": _any(0, (_UNIX,)),
}


def docker_profile() -> str:
    """The list as JSON for the engine's `seccomp=…`, from 20.10.10 on (older ones cannot say ENOSYS).

    Engines pass over names that they do not know; what is newer than all that runc knows answers ENOSYS there as well.
    """
    rules: list[dict[str, Any]] = [
        {"names": _ALWAYS.split(), "action": "SCMP_ACT_ALLOW"},
        {"names": _AS_IF_OLDER.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
    ]
    for name, cases in _SOMETIMES.items():
        rules += [{"names": [name], "action": "SCMP_ACT_ALLOW", "args": [*map(_docker, case)]} for case in cases]
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",  # EPERM
            "archMap": [
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
            ],
            "syscalls": rules,
        },
        separators=(",", ":"),
    )


def _docker(equal: _Equal) -> dict[str, Any]:
    # of SCMP_CMP_MASKED_EQ, the first value is the mask (seccomp_rule_add(3))
    return {"index": equal.index, "value": equal.mask, "valueTwo": equal.value, "op": "SCMP_CMP_MASKED_EQ"}


# The instructions are those of linux/bpf_common.h, what they load lies in struct seccomp_data, and what they return is
# of seccomp(2). Only instructions that the kernel can follow ahead of time are used before a number is known, so that
# it remembers what is allowed whatever the arguments, and runs no filter for it (Linux 5.11).
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _IF_EQUAL, _IF_AT_LEAST = 0x05, 0x15, 0x35
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000
_LONGEST_JUMP = 255
_AUDIT_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_Instruction = tuple[int, int, int, int]
"""What to do, how far to jump when true and when false, a number."""


def bpf_program(machine: str) -> bytes:
    """The list as a program of the classic BPF for `machine` (as uname(2) says it): an array of struct sock_filter.

    Raises MachineError where there is no table for the machine.
    """
    if machine not in NUMBERS:
        raise MachineError(
            f"there is no seccomp filter for {machine}, only for {' and '.join(NUMBERS)}",
            remedy="run untrusted processors on one of these, or each in a container",
        )
    program = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_IF_EQUAL, 1, 0, _AUDIT_MACHINES[machine]),
        _return(_KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        program += [(_IF_AT_LEAST, 0, 1, _X32), _return(_KILL_PROCESS)]
    program += _choose(_ranges(NUMBERS[machine]))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _return(value: int) -> _Instruction:
    return _RETURN, 0, 0, value


_REFUSED = [_return(_ERRNO | errno.EPERM)]
_UNHEARD = [_return(_ERRNO | errno.ENOSYS)]


def _ranges(numbers: dict[str, int]) -> list[tuple[int, list[_Instruction]]]:
    """What to do from which number on, in their order, the same never twice in a row."""
    always, older = frozenset(_ALWAYS.split()), frozenset(_AS_IF_OLDER.split())
    known = {number: name for name, number in numbers.items()}
    ranges: list[tuple[int, list[_Instruction]]] = []
    for number in range(max(known) + 2):
        name = known.get(number)
        if name is None or name in older:
            code = _UNHEARD
        elif name in always:
            code = [_return(_ALLOW)]
        else:
            code = _cases(_SOMETIMES[name]) if name in _SOMETIMES else _REFUSED
        if not ranges or ranges[-1][1] != code:
            ranges.append((number, code))
    return ranges


def _choose(ranges: list[tuple[int, list[_Instruction]]]) -> list[_Instruction]:
    """A balanced tree of questions."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _choose(ranges[:middle]), _choose(ranges[middle:])
    first = ranges[middle][0]
    if len(below) <= _LONGEST_JUMP:
        return [(_IF_AT_LEAST, len(below), 0, first), *below, *above]
    return [(_IF_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(below)), *below, *above]


def _cases(cases: tuple[_Case, ...]) -> list[_Instruction]:
    """Allowed where one of the cases holds."""
    program: list[_Instruction] = []
    for case in cases:
        program += _case(case)
    return [*program, *_REFUSED]


def _case(case: _Case) -> list[_Instruction]:
    """Allowed where all of it holds; else on to what follows."""
    program = [_return(_ALLOW)]
    for equal in reversed(case):
        low = _ARGUMENTS_AT + 8 * equal.index  # the lower half comes first: both machines are little-endian
        masked = [] if equal.mask == _WORD else [(_AND, 0, 0, equal.mask)]
        program = [(_LOAD, 0, 0, low), *masked, (_IF_EQUAL, 0, len(program), equal.value), *program]
    return program
