"""The filter of what is not trusted: followed by hand, and put beside libseccomp's."""

from __future__ import annotations

import errno
import itertools
import json
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator

import pytest

from runner.errors import MachineError
from runner.launch.seccomp import bpf_program, docker_profile
from runner.launch.syscalls import NUMBERS
from tests.launch.cbpf import ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, follow, parse
from tests.launch.libseccomp import Libseccomp

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
AUDIT_I386, AUDIT_ARM = 0x40000003, 0x40000028
PROGRAMS = {machine: parse(bpf_program(machine)) for machine in NUMBERS}
REFUSED, UNHEARD = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
HIGH = 1 << 32
LIMIT_S = 60

FORBIDDEN = """
acct add_key adjtimex bpf chroot clock_adjtime clock_settime create_module delete_module fanotify_init fanotify_mark
finit_module fsconfig fsmount fsopen fspick get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup
ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind memfd_secret migrate_pages modify_ldt mount
mount_setattr move_mount move_pages name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open
pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot
request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon syslog
umount2 unshare userfaultfd vhangup
io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit remap_file_pages sysfs uselib ustat vmsplice
"""
"""None of these, whatever the arguments."""

SHIM = """
accept4 close close_range connect dup3 execve exit_group fchdir chdir fstat getpid getppid getdents64 kill lseek
memfd_create mmap munmap openat pipe2 ppoll prctl read recvmsg rt_sigaction rt_sigprocmask sendmsg setgid
setgroups setpgid setresgid setresuid setsid setuid signalfd4 wait4 write
"""
"""What the inner shim needs under the filter."""

AS_IF_OLDER = ("cachestat", "clone3", "listmount", "listns", "lsm_list_modules", "open_tree_attr", "statmount")

NEW_USER, NEW_NET, THREAD = 0x10000000, 0x40000000, 0x3D0F00
NONBLOCK_CLOEXEC = 0o2004000
ARGUMENTS: list[tuple[str, tuple[int, ...], int]] = [
    ("clone", (THREAD,), ALLOW),
    ("clone", (17,), ALLOW),  # fork
    ("prlimit64", (0, 7), ALLOW),  # its own; the shim's and glibc's setrlimit
    ("prlimit64", (1, 7), REFUSED),  # those of PID 1, the shim
    ("prlimit64", (1 << 32, 7), ALLOW),  # the kernel takes it for 0
    ("clone", (17 | HIGH,), ALLOW),
    *(("clone", (17 | flag,), REFUSED) for flag in (1 << 17, 1 << 25, 1 << 26, 1 << 27, NEW_USER, 1 << 29, NEW_NET)),
    ("clone", (17 | NEW_USER | HIGH,), REFUSED),
    ("ioctl", (0, 0x5401), ALLOW),  # TCGETS
    ("ioctl", (0, 0x541B), ALLOW),  # FIONREAD
    ("ioctl", (0, 0x5413), ALLOW),  # TIOCGWINSZ
    ("ioctl", (0, 0x5421), ALLOW),  # FIONBIO
    ("ioctl", (0, 0), ALLOW),
    ("ioctl", (0, 0xFFFFFFFF), ALLOW),
    ("ioctl", (0, 0x5412), REFUSED),  # TIOCSTI
    ("ioctl", (0, 0x5412 | HIGH), REFUSED),
    ("ioctl", (0, 0x5412 | 0xFFFFFFFF << 32), REFUSED),
    ("ioctl", (0, 0x541C), REFUSED),  # TIOCLINUX
    ("ioctl", (0, 0x541C | HIGH), REFUSED),
    *(("ioctl", (0, 0x5412 ^ 1 << bit), ALLOW) for bit in range(32)),
    *(("ioctl", (0, 0x541C ^ 1 << bit), ALLOW) for bit in range(32)),
    *(
        ("socket", (family, kind | flags, 0), ALLOW)
        for family in (1, 2, 10)
        for kind in (1, 2)
        for flags in (0, 0x80800)
    ),
    ("socket", (1, 5, 0), ALLOW),
    ("socket", (2, 1, 6), ALLOW),
    ("socket", (10, 2, 17), ALLOW),
    ("socket", (2, 2, 6), REFUSED),
    ("socket", (2, 1, 17), REFUSED),
    ("socket", (2, 3, 0), REFUSED),  # SOCK_RAW
    ("socket", (2, 3 | NONBLOCK_CLOEXEC, 1), REFUSED),
    ("socket", (2, 3 | HIGH, 255), REFUSED),
    ("socket", (10, 3, 58), REFUSED),
    ("socket", (1, 3, 0), REFUSED),
    ("socket", (2, 10, 0), REFUSED),  # SOCK_PACKET
    ("socket", (2, 2, 1), REFUSED),  # ping
    ("socket", (2, 1, 132), REFUSED),  # SCTP
    ("socket", (2, 1, 262), REFUSED),  # MPTCP
    ("socket", (2, 5, 0), REFUSED),
    ("socket", (16, 3, 0), ALLOW),  # getifaddrs
    ("socket", (16, 3 | 0x80000, 0), ALLOW),
    ("socket", (16, 3, 9), REFUSED),  # audit
    ("socket", (16, 3, 12), REFUSED),  # netfilter
    ("socket", (16, 3, 15), REFUSED),  # uevents
    *(("socket", (family, 1, 0), REFUSED) for family in range(64) if family not in {1, 2, 10, 16}),
    ("socket", (17, 3, 0x300), REFUSED),  # AF_PACKET
    ("socket", (40 | HIGH, 1 | HIGH, HIGH), REFUSED),  # AF_VSOCK
    ("socketpair", (1, 1, 0), ALLOW),
    ("socketpair", (2, 1, 0), REFUSED),
    ("socketpair", (40, 1, 0), REFUSED),
    *(("personality", (value,), ALLOW) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0xFFFFFFFF_FFFFFFFF)),
    ("personality", (0x40000,), REFUSED),  # ADDR_NO_RANDOMIZE
    ("personality", (0x400000,), REFUSED),  # READ_IMPLIES_EXEC
    ("personality", (0x40000 | HIGH,), REFUSED),
    ("mknodat", (0, 0, 0o010644), ALLOW),  # a FIFO
    ("mknodat", (0, 0, 0o140644), ALLOW),
    ("mknodat", (0, 0, 0o644), ALLOW),
    ("mknodat", (0, 0, 0o020644), REFUSED),
    ("mknodat", (0, 0, 0o060644), REFUSED),
    ("mknodat", (0, 0, 0o020644 | HIGH), REFUSED),
]


def answer(machine: str, number: int, arguments: Iterable[int] = ()) -> int:
    return follow(PROGRAMS[machine], AUDIT[machine], number, tuple(arguments))[0]


def header(source: str) -> dict[str, int]:
    """The numbers in a header of the kernel."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    done = subprocess.run(
        [compiler, "-E", "-dM", "-x", "c", "-"], input=source, text=True, capture_output=True, check=False, timeout=30
    )
    if done.returncode != 0:
        pytest.skip(f"there are no kernel headers: {done.stderr.strip()}")
    defined = dict(re.findall(r"^#define (__NR\w*) (\w+)$", done.stdout, re.MULTILINE))
    numbers: dict[str, int] = {}
    for name in defined:
        meaning = name
        while meaning in defined:
            meaning = defined[meaning]
        if name.startswith("__NR_") and meaning.isdecimal():
            numbers[name.removeprefix("__NR_")] = int(meaning)
    return numbers


# -- the tables


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are the headers of x86_64")
def test_the_table_of_x86_64_is_the_kernels() -> None:
    theirs = header("#include <asm/unistd_64.h>\n")
    assert len(theirs) > 300
    assert {name: NUMBERS["x86_64"].get(name) for name in theirs if name in NUMBERS["x86_64"]} == {
        name: number for name, number in theirs.items() if name in NUMBERS["x86_64"]
    }
    assert {number for name, number in theirs.items() if name not in NUMBERS["x86_64"]} <= set(range(472, 1000))


def test_the_table_of_aarch64_is_the_kernels() -> None:
    wants = ("RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3", "MEMFD_SECRET")
    theirs = header("".join(f"#define __ARCH_WANT_{want}\n" for want in wants) + "#include <asm-generic/unistd.h>\n")
    theirs = {name: number for name, number in theirs.items() if name not in {"arch_specific_syscall", "syscalls"}}
    assert len(theirs) > 280
    ours = NUMBERS["aarch64"]
    assert {name: number for name, number in theirs.items() if number < 472} == {
        name: ours.get(name) for name, number in theirs.items() if number < 472
    }


@pytest.mark.parametrize("machine", NUMBERS)
def test_each_number_has_one_name(machine: str) -> None:
    assert len(set(NUMBERS[machine].values())) == len(NUMBERS[machine])
    assert NUMBERS[machine]["clone3"] == 435
    assert NUMBERS[machine]["mseal"] == 462


# -- what the filter answers, followed by hand


@pytest.mark.parametrize("machine", NUMBERS)
def test_forbidden_calls_are_refused_whatever_their_arguments(machine: str) -> None:
    numbers = NUMBERS[machine]
    patterns = [(value,) * 6 for value in (0, 1, 2, 16, 0x5401, 0xFFFFFFFF, 0xFFFFFFFF_FFFFFFFF)]
    answers = {
        name: {answer(machine, numbers[name], pattern) for pattern in patterns}
        for name in FORBIDDEN.split()
        if name in numbers
    }
    assert {name for name, found in answers.items() if found != {REFUSED}} == set()
    assert len(answers) >= 60


@pytest.mark.parametrize("machine", NUMBERS)
def test_what_the_shim_needs_is_allowed(machine: str) -> None:
    numbers = NUMBERS[machine]
    assert [name for name in SHIM.split() if answer(machine, numbers[name], [0xFFFF] * 6) != ALLOW] == []


@pytest.mark.parametrize("machine", NUMBERS)
def test_what_libraries_can_do_without_is_as_in_an_older_kernel(machine: str) -> None:
    numbers = NUMBERS[machine]
    assert {answer(machine, numbers[name]) for name in AS_IF_OLDER} == {UNHEARD}


@pytest.mark.parametrize("machine", NUMBERS)
def test_numbers_that_nobody_has_heard_of_are_not_there(machine: str) -> None:
    unheard = set(range(1200)) - set(NUMBERS[machine].values())
    assert {answer(machine, number) for number in unheard | {(1 << 30) - 1}} == {UNHEARD}


@pytest.mark.parametrize("machine", NUMBERS)
@pytest.mark.parametrize(("name", "arguments", "expected"), ARGUMENTS)
def test_arguments(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert answer(machine, NUMBERS[machine][name], arguments) == expected


def test_old_mknod_makes_no_devices_either() -> None:
    mknod = NUMBERS["x86_64"]["mknod"]
    assert answer("x86_64", mknod, (0, 0o010600)) == ALLOW
    assert answer("x86_64", mknod, (0, 0o020600)) == REFUSED


@pytest.mark.parametrize("machine", NUMBERS)
def test_calls_of_another_architecture_kill(machine: str) -> None:
    others = {*AUDIT.values(), AUDIT_I386, AUDIT_ARM} - {AUDIT[machine]}
    assert {follow(PROGRAMS[machine], other, number)[0] for other in others for number in range(500)} == {KILL_PROCESS}


def test_calls_of_x32_kill() -> None:
    numbers = [*range(0x40000000, 0x40000300), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    assert {answer("x86_64", number) for number in numbers} == {KILL_PROCESS}


@pytest.mark.parametrize("machine", NUMBERS)
def test_it_is_short_and_quick(machine: str) -> None:
    program = PROGRAMS[machine]
    unconditional = ("read", "write", "futex", "epoll_pwait", "exit_group", "openat2", "mseal")
    steps = {name: follow(program, AUDIT[machine], NUMBERS[machine][name])[1] for name in unconditional}
    assert len(program) < 600
    assert max(steps.values()) <= 14, steps


def test_a_machine_without_a_table_is_told_so() -> None:
    with pytest.raises(MachineError, match="no seccomp filter for riscv64") as raised:
        bpf_program("riscv64")
    assert raised.value.remedy


# -- the engine's form says the same


@pytest.fixture(scope="session")
def libseccomp() -> Libseccomp:
    try:
        return Libseccomp()
    except OSError as error:
        pytest.skip(f"libseccomp is not installed: {error}")


def edges(name: str) -> Iterator[tuple[int, ...]]:
    """Arguments at which a mistake in either form would show."""
    yield from ((value,) * 6 for value in (0, 1, 0xFFFFFFFF, HIGH, 0xFFFFFFFF_FFFFFFFF))
    yield from (arguments for each, arguments, _ in ARGUMENTS if each == name)
    if name in {"socket", "socketpair"}:
        yield from itertools.product((1, 2, 10, 16, 17, 40, 1 | HIGH), range(12), (0, 1, 6, 17, 58, 132, 262, HIGH))
    if name in {"clone", "personality"}:
        yield from ((1 << bit,) for bit in range(64))
        yield from ((17 | 1 << bit | 1 << other,) for bit in range(32) for other in range(0, 32, 3))
    if name == "ioctl":
        yield from ((0, 0x5400 + low) for low in range(256))
    if name.startswith("mknod"):
        yield from ((kind << 12,) * 3 for kind in range(32))


@pytest.mark.skipif(platform.machine() not in NUMBERS, reason="the library resolves names for this machine")
@pytest.mark.parametrize("machine", NUMBERS)
def test_engines_make_the_same_of_it(machine: str, libseccomp: Libseccomp) -> None:
    """As far as the library knows the names."""
    theirs = parse(libseccomp.program(docker_profile(), machine, AUDIT[machine]))
    compared = 0
    for name, number in NUMBERS[machine].items():
        if libseccomp.number(name) is None:
            continue
        for arguments in edges(name):
            expected = follow(theirs, AUDIT[machine], number, arguments)[0]
            assert answer(machine, number, arguments) == expected, (name, arguments)
            compared += 1
    assert compared > 2500
    killed = {follow(theirs, AUDIT_I386, 20)[0], follow(theirs, AUDIT_ARM, 20)[0]}
    if machine == "x86_64":
        killed |= {follow(theirs, AUDIT[machine], number)[0] for number in (0x40000000, 0x40000027)}
    assert killed == {KILL_THREAD}


def test_the_profile_is_one_that_old_engines_understand() -> None:
    profile = json.loads(docker_profile())
    assert set(profile) == {"defaultAction", "archMap", "syscalls"}
    assert all(set(rule) <= {"names", "action", "args", "errnoRet"} for rule in profile["syscalls"])
    indices = [[argument["index"] for argument in rule.get("args", [])] for rule in profile["syscalls"]]
    assert all(len(set(each)) == len(each) for each in indices), "runc would take these as alternatives"
    unconditional = [name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]]
    conditional = {name for rule in profile["syscalls"] if "args" in rule for name in rule["names"]}
    assert len(set(unconditional)) == len(unconditional)
    assert conditional.isdisjoint(unconditional), "libseccomp lets a rule without conditions win"
    assert len(docker_profile()) < 32 << 10
