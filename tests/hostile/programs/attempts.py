"""Tries what nobody untrusted may do, one attempt after the other, and tells what came of each as a line of JSON.

usage: attempts.py MARK [SKIPPED,…]; one line of JSON on stdin gives the facts (see tests/hostile/test_attempts.py).
A line is {"attempt": NAME, "through": BOOL, "detail": TEXT}; the last one has the name "end". Then the end of stdin is
waited for.

Only the standard library; every attempt is bounded in count and bytes, runs in a process of its own with a time
limit, touches nothing but what the facts name, and undoes what it did. Where it is enough to see that a call would be
allowed, nothing is written, sent or changed.
"""

# These speak to the system itself, by its own words.
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH115, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

LIMIT_S = 10
DESCRIPTORS = 1000
FILL_BYTES = 24 << 20
CANARY = "connector-hostile-canary"
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
IPC_RDONLY = 0o10000

Facts = dict[str, Any]
Answer = tuple[bool, str]
ATTEMPTS: dict[str, Callable[[Facts], Answer]] = {}
libc = ctypes.CDLL(None, use_errno=True)


def attempt(function: Callable[[Facts], Answer]) -> Callable[[Facts], Answer]:
    ATTEMPTS[function.__name__.replace("_", "-")] = function
    return function


def any_of(tries: Iterator[tuple[str, Callable[[], object]]]) -> Answer:
    """Make every try; through where one of them gave something true."""
    said, through = [], False
    for name, call in tries:
        try:
            got = call()
        except OSError as error:
            said.append(f"{name}: {error.strerror or error}")
            continue
        through = through or bool(got)
        said.append(f"{name}: {got}")
    return through, "; ".join(said)[:2000]


def content(path: str, *, most: int = 1 << 20) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def checked(result: int) -> int:
    """The result of a call into libc; raises OSError as Python's own would."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# -- what is not its own to read


@attempt
def host_shadow(facts: Facts) -> Answer:
    paths = ["/etc/shadow", "/etc/gshadow", "/proc/1/root/etc/shadow", "/proc/self/root/etc/shadow"]
    paths += ["../" * 20 + "etc/shadow", f"/proc/{facts['runner']}/root/etc/shadow"]
    return any_of((path, lambda path=path: digest(path) in facts["shadow"]) for path in paths)  # type: ignore[misc]


def digest(path: str) -> str:
    return hashlib.sha256(content(path)).hexdigest()


@attempt
def host_file(facts: Facts) -> Answer:
    file = facts["host_file"]
    roots = ["", "/proc/1/root", "/proc/self/root", "/proc/1/cwd/" + "../" * 20, "../" * 20]
    roots += [f"/proc/{pid}/root" for pid in (facts["runner"], facts["victim"], *facts["neighbours"])]
    return any_of(holds_token(facts, root + file) for root in roots)


def holds_token(facts: Facts, path: str) -> tuple[str, Callable[[], object]]:
    return path, lambda: facts["token"].encode() in content(path)


@attempt
def host_file_by_handle(facts: Facts) -> Answer:
    """The file's handle is known; any descriptor of its file system opens it, where the capability is there."""
    handle = bytes.fromhex(facts["handle"])

    def opened(at: str) -> bool:
        folder = os.open(at, os.O_RDONLY)
        descriptor = checked(libc.open_by_handle_at(folder, handle, os.O_RDONLY))
        return facts["token"].encode() in os.read(descriptor, 4096)

    return any_of((at, lambda at=at: opened(at)) for at in (facts["programs"], facts["shared"]))  # type: ignore[misc]


@attempt
def host_shared_memory_file(facts: Facts) -> Answer:
    return any_of(iter([holds_token(facts, facts["shm_file"])]))


@attempt
def host_shared_memory_segment(facts: Facts) -> Answer:
    def attached() -> bool:
        libc.shmat.restype = ctypes.c_void_p
        address = libc.shmat(facts["shm_segment"], None, IPC_RDONLY)
        if address == ctypes.c_void_p(-1).value:
            checked(-1)
        return facts["token"].encode() in ctypes.string_at(address, 64)

    return any_of(iter([("shmat", attached)]))


@attempt
def environment_of_others(facts: Facts) -> Answer:
    return any_of(holds_token(facts, f"/proc/{pid}/environ") for pid in [*facts["neighbours"], facts["runner"]])


@attempt
def environment_of_the_other_untrusted(facts: Facts) -> Answer:
    return any_of(holds_token(facts, f"/proc/{pid}/environ") for pid in facts["bystanders"])


@attempt
def environment_of_the_runner(facts: Facts) -> Answer:
    """Whether it was given what the runner's own environment holds."""
    return facts["token"] in os.environ.values(), " ".join(sorted(os.environ))


@attempt
def list_of_processes(facts: Facts) -> Answer:
    seen = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                seen.append(content(f"/proc/{name}/cmdline").replace(b"\0", b" ").decode(errors="replace"))
    return any(facts["victim_mark"] in line for line in seen), f"{len(seen)} processes: " + " | ".join(seen)[:1000]


@attempt
def descriptors_of_others(facts: Facts) -> Answer:
    pids = [facts["victim"], *facts["neighbours"]]
    return any_of((str(pid), lambda pid=pid: os.listdir(f"/proc/{pid}/fd")) for pid in pids)  # type: ignore[misc]


@attempt
def memory_of_others(facts: Facts) -> Answer:
    def by_proc() -> bool:
        with open(f"/proc/{facts['victim']}/mem", "rb", buffering=0) as memory:
            memory.seek(facts["victim_address"])
            return facts["token"].encode() in memory.read(64)

    def by_call() -> bool:
        into = ctypes.create_string_buffer(64)
        local = (ctypes.c_size_t * 2)(ctypes.addressof(into), 64)
        remote = (ctypes.c_size_t * 2)(facts["victim_address"], 64)
        checked(libc.process_vm_readv(facts["victim"], local, 1, remote, 1, 0))
        return facts["token"].encode() in into.raw

    return any_of(iter([("/proc/PID/mem", by_proc), ("process_vm_readv", by_call)]))


# -- its own shim, the first process that it sees


@attempt
def shim_descriptors(facts: Facts) -> Answer:
    return any_of(iter([("fd", lambda: os.listdir(f"/proc/{shim(facts)}/fd"))]))


@attempt
def shim_memory(facts: Facts) -> Answer:
    def opened() -> bool:
        os.close(os.open(f"/proc/{shim(facts)}/mem", os.O_RDWR))
        return True

    return any_of(iter([("mem", opened), ("environ", lambda: bool(content(f"/proc/{shim(facts)}/environ")))]))


@attempt
def shim_socket(facts: Facts) -> Answer:
    """Its descriptors taken out of it by pidfd_getfd(2)."""

    def taken(number: int) -> bool:
        pidfd = os.pidfd_open(shim(facts))
        return checked(libc.syscall(438, pidfd, number, 0)) >= 0

    return any_of((str(number), lambda number=number: taken(number)) for number in range(10))  # type: ignore[misc]


@attempt
def shim_ptrace(facts: Facts) -> Answer:
    return any_of(iter([("attach", lambda: traced(shim(facts)))]))


def shim(facts: Facts) -> int:
    """Where it has PID 1 of a namespace of its own that is it; else the parent of the program."""
    return int(facts["own_shim"]) or 1


@attempt
def shim_file(facts: Facts) -> Answer:
    """Its file written, replaced, removed: found by path and by what runs it."""

    def opened(path: str) -> bool:
        os.close(os.open(path, os.O_WRONLY))
        return True

    def renamed(path: str) -> bool:
        os.rename(path, path + CANARY)
        os.rename(path + CANARY, path)
        return True

    def made_writable(path: str) -> bool:
        os.chmod(path, 0o777)
        return True

    def replaced(path: str) -> bool:
        os.symlink("/nowhere", os.path.dirname(path) + "/" + CANARY)
        os.unlink(os.path.dirname(path) + "/" + CANARY)
        return True

    paths = list(facts["shim_files"])
    with contextlib.suppress(OSError):
        paths.append(os.readlink("/proc/1/exe")) if not facts["own_shim"] else None
    ways = (opened, renamed, made_writable, replaced)
    return any_of(
        (f"{way.__name__} {path}", lambda way=way, path=path: way(path))  # type: ignore[misc]
        for path in paths
        for way in ways
    )


# -- sockets


@attempt
def engine_socket(facts: Facts) -> Answer:
    return any_of((path, lambda path=path: connected_unix(path)) for path in facts["engine"])  # type: ignore[misc]


@attempt
def runner_sockets(facts: Facts) -> Answer:
    """Those that were seen from outside, one of the test's own beside them, and those in its own folder."""
    paths = [*facts["sockets"], "/.connector/run/socket"]
    with contextlib.suppress(OSError):
        paths += [f"/.connector/run/{name}" for name in os.listdir("/.connector/run")]
    return any_of((path, lambda path=path: connected_unix(path)) for path in paths)  # type: ignore[misc]


@attempt
def abstract_socket(facts: Facts) -> Answer:
    return any_of(iter([("abstract", lambda: connected_unix("\0" + facts["abstract"]))]))


def connected_unix(path: str) -> bool:
    said = []
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as connection:
            connection.settimeout(2)
            try:
                connection.connect(path)
            except OSError as error:
                said.append(error)
            else:
                return True
    raise said[0]


def connected(address: list[Any]) -> bool:
    with socket.create_connection((address[0], address[1]), timeout=2):
        return True


@attempt
def loopback(facts: Facts) -> Answer:
    return any_of(iter([("127.0.0.1", lambda: connected(facts["loopback"]))]))


@attempt
def loopback_v6(facts: Facts) -> Answer:
    return any_of(iter([("::1", lambda: connected(facts["loopback_v6"]))]))


@attempt
def loopback_datagram(facts: Facts) -> Answer:
    """A listener of its own may be there under the same address, so an answer is waited for."""

    def answered() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(1)
            asking.sendto(b"ping", tuple(facts["datagram"]))
            return asking.recv(64) == b"pong"

    return any_of(iter([("udp", answered)]))


@attempt
def other_container(facts: Facts) -> Answer:
    return any_of(iter([("container", lambda: connected(facts["container"]))]))


@attempt
def raw_sockets(facts: Facts) -> Answer:
    kinds = {
        "raw icmp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "raw tcp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0x300),
    }
    return any_of((name, lambda kind=kind: made(*kind)) for name, kind in kinds.items())  # type: ignore[misc]


@attempt
def vsock(facts: Facts) -> Answer:
    return any_of(iter([("stream", lambda: made(socket.AF_VSOCK, socket.SOCK_STREAM, 0))]))


def made(*kind: int) -> bool:
    socket.socket(*kind).close()
    return True


# -- other processes


@attempt
def signal_others(facts: Facts) -> Answer:
    """SIGUSR1 to the victim, which counts them."""

    def sent(pid: int) -> bool:
        os.kill(pid, signal.SIGUSR1)
        return True

    def sent_by_descriptor(pid: int) -> bool:
        signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGUSR1)
        return True

    pid = facts["victim"]
    return any_of(iter([("kill", lambda: sent(pid)), ("pidfd", lambda: sent_by_descriptor(pid))]))


@attempt
def signal_runner(facts: Facts) -> Answer:
    """Whether a signal would be allowed to the runner, its shims, the neighbours, the other untrusted one."""

    def may(pid: int) -> bool:
        os.kill(pid, 0)
        return True

    pids = [facts["runner"], *facts["neighbours"], *facts["shims"], *facts["bystanders"]]
    return any_of((str(pid), lambda pid=pid: may(pid)) for pid in pids)  # type: ignore[misc]


@attempt
def signal_everybody(facts: Facts) -> Answer:
    """A signal that nobody minds, to all that may be reached; the victim counts it."""
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGURG)
    return False, "the victim tells"


@attempt
def ptrace_others(facts: Facts) -> Answer:
    return any_of(iter([("attach", lambda: traced(facts["victim"]))]))


def traced(pid: int) -> bool:
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    checked(libc.ptrace(PTRACE_ATTACH, pid, None, None))
    os.waitpid(pid, 0x40000000)  # __WALL
    checked(libc.ptrace(PTRACE_DETACH, pid, None, None))
    return True


@attempt
def ptrace_own_child(facts: Facts) -> Answer:
    """Harmless by itself, but a large part of the kernel that nothing here needs."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    try:
        return any_of(iter([("attach", lambda: traced(child))]))
    finally:
        os.kill(child, signal.SIGKILL)


@attempt
def limits_of_others(facts: Facts) -> Answer:
    return any_of(iter([("prlimit", lambda: resource.prlimit(facts["victim"], resource.RLIMIT_NOFILE))]))


# -- rights


@attempt
def become_root(facts: Facts) -> Answer:
    def became(how: Callable[[], None]) -> bool:
        how()
        return True

    ways = {
        "setuid": lambda: os.setresuid(0, 0, 0),
        "setgid": lambda: os.setresgid(0, 0, 0),
        "groups": lambda: os.setgroups([0]),
    }
    return any_of((name, lambda way=way: became(way)) for name, way in ways.items())  # type: ignore[misc]


@attempt
def users_of_others(facts: Facts) -> Answer:
    """Whether it is somebody already: root, the runner's user, the user or a group of the other untrusted one."""
    mine = {os.getuid(), os.geteuid()}
    others = {0, facts["runner_uid"]}
    return bool(mine & others or 0 in os.getgroups()), f"uid {mine}, groups {os.getgroups()}"


@attempt
def setuid_program(facts: Facts) -> Answer:
    """A program that root owns, with the bit set, tells its effective user."""

    def ran() -> str:
        done = subprocess.run([facts["setuid"], "--am-i-root"], check=False, timeout=5)
        return "root" if done.returncode == 0 else ""

    return any_of(iter([(facts["setuid"], ran)]))


@attempt
def setuid_programs_of_the_system(facts: Facts) -> Answer:
    """The bits are there on disk; what counts is that a start through them gains nothing."""
    found = []
    for folder in ("/usr/bin", "/usr/sbin", "/usr/lib/openssh"):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found += [entry.path for entry in entries if entry.is_file() and entry.stat().st_mode & 0o6000]
    status = content("/proc/self/status").decode()
    locked = "NoNewPrivs:\t1" in status
    return bool(found) and not locked, f"no new privileges: {locked}; {found}"


@attempt
def capabilities(facts: Facts) -> Answer:
    status = dict(line.split(":\t", 1) for line in content("/proc/self/status").decode().splitlines() if ":\t" in line)
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    left = {name: status[name] for name in names if int(status[name], 16)}
    shown = {name: status.get(name) for name in ("NoNewPrivs", "Seccomp", "Seccomp_filters")}
    loose = shown["NoNewPrivs"] != "1" or shown["Seccomp"] != "2"
    return bool(left) or loose, f"{left} {shown}"


@attempt
def larger_limits(facts: Facts) -> Answer:
    def raised(which: int) -> bool:
        hard = resource.getrlimit(which)[1]
        try:
            resource.setrlimit(which, (hard, hard + 1 if hard != resource.RLIM_INFINITY else hard))
        except ValueError as error:  # which is what Python makes of EPERM here
            raise PermissionError(str(error)) from error
        return hard != resource.RLIM_INFINITY

    kinds = {"files": resource.RLIMIT_NOFILE, "core": resource.RLIMIT_CORE, "memlock": resource.RLIMIT_MEMLOCK}
    return any_of((name, lambda kind=kind: raised(kind)) for name, kind in kinds.items())  # type: ignore[misc]


@attempt
def higher_priority(facts: Facts) -> Answer:
    def nicer() -> bool:
        os.setpriority(os.PRIO_PROCESS, 0, -5)
        return True

    def realtime() -> bool:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return True

    def spared_by_the_oom_killer() -> bool:
        with open("/proc/self/oom_score_adj", "w") as out:
            out.write("-1000")
        return True

    return any_of(iter([("nice", nicer), ("fifo", realtime), ("oom", spared_by_the_oom_killer)]))


@attempt
def core_dumps(facts: Facts) -> Answer:
    return resource.getrlimit(resource.RLIMIT_CORE)[1] != 0, str(resource.getrlimit(resource.RLIMIT_CORE))


@attempt
def inherited_descriptors(facts: Facts) -> Answer:
    """Whatever is open beside the three."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > 2 and int(name) not in OURS:
                found[name] = os.readlink(f"/proc/self/fd/{name}")
    found = {name: where for name, where in found.items() if not where.startswith("/proc/")}
    return bool(found), str(found)


# -- the kernel's switches


@attempt
def kernel_settings(facts: Facts) -> Answer:
    """Opened for writing, never written."""

    def opened(path: str) -> bool:
        os.close(os.open(path, os.O_WRONLY))
        return True

    paths = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/sys/power/state"]
    paths += ["/proc/sys/vm/overcommit_memory", "/proc/1/oom_score_adj", "/sys/kernel/mm/ksm/run"]
    return any_of((path, lambda path=path: opened(path)) for path in paths)  # type: ignore[misc]


@attempt
def devices(facts: Facts) -> Answer:
    def opened(path: str) -> bool:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return True

    paths = ["/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/loop-control", "/dev/vsock", "/dev/mapper/control"]
    paths += ["/dev/vda", "/dev/sda", "/dev/nvme0n1"]
    return any_of((path, lambda path=path: opened(path)) for path in paths)  # type: ignore[misc]


@attempt
def make_device(facts: Facts) -> Answer:
    def made_node(folder: str) -> bool:
        path = f"{folder}/{CANARY}"
        os.mknod(path, 0o20666, os.makedev(1, 3))
        os.unlink(path)
        return True

    folders = (facts["tmp"], facts["shared"])
    return any_of((folder, lambda folder=folder: made_node(folder)) for folder in folders)  # type: ignore[misc]


@attempt
def other_control_group(facts: Facts) -> Answer:
    """The list of a group's processes opened for writing, which is how one leaves one's own."""

    def opened(path: str) -> bool:
        os.close(os.open(path, os.O_WRONLY))
        return True

    found = []
    for folder, names, files in os.walk("/sys/fs/cgroup"):
        found += [f"{folder}/{name}" for name in files if name in ("cgroup.procs", "release_agent", "memory.max")]
        names[:] = names[:20] if folder.count("/") < 5 else []
        if len(found) > 40:
            break
    return any_of((path, lambda path=path: opened(path)) for path in found)  # type: ignore[misc]


@attempt
def host_name(facts: Facts) -> Answer:
    return os.uname().nodename == facts["host_name"], os.uname().nodename


# -- what it may not write


@attempt
def write_system(facts: Facts) -> Answer:
    """A file in each folder of the root (taken away again)."""

    def written(folder: str) -> bool:
        path = f"{folder}/{CANARY}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.unlink(path)
        return True

    return any_of((path, lambda path=path: written(path)) for path in facts["system_folders"])  # type: ignore[misc]


@attempt
def overwrite_programs(facts: Facts) -> Answer:
    def opened(path: str) -> bool:
        os.close(os.open(path, os.O_WRONLY))
        return True

    return any_of((path, lambda path=path: opened(path)) for path in facts["system_files"])  # type: ignore[misc]


@attempt
def write_readonly_mount(facts: Facts) -> Answer:
    """Everybody may write the file and its folder; only the mount holds it."""
    folder = facts["readonly"]

    def done(call: Callable[[], object]) -> bool:
        call()
        return True

    ways: dict[str, Callable[[], object]] = {
        "open": lambda: os.close(os.open(f"{folder}/file", os.O_WRONLY)),
        "create": lambda: os.close(os.open(f"{folder}/{CANARY}", os.O_WRONLY | os.O_CREAT)),
        "remove": lambda: os.unlink(f"{folder}/file"),
        "link": lambda: os.symlink("/nowhere", f"{folder}/{CANARY}-link"),
        "folder": lambda: os.mkdir(f"{folder}/{CANARY}-folder"),
        "through a descriptor": lambda: os.close(os.open(f"/proc/self/fd/{os.open(f'{folder}/file', 0)}", os.O_WRONLY)),
    }
    return any_of((name, lambda way=way: done(way)) for name, way in ways.items())  # type: ignore[misc]


@attempt
def write_shared_mount(facts: Facts) -> Answer:
    """What it may: the folder that was mounted for writing."""

    def written() -> bool:
        with open(f"{facts['shared']}/allowed", "w") as out:
            return out.write("written") > 0

    return any_of(iter([("write", written)]))


# -- out of the shared folder


@attempt
def escape_by_symlink(facts: Facts) -> Answer:
    def through(target: str) -> bool:
        path = f"{facts['shared']}/link"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.symlink(target, path)
        return facts["token"].encode() in content(path)

    file = facts["host_file"]
    targets = [file, "../canary/secret", "../" * 20 + file[1:], f"/proc/1/root{file}", f"/proc/self/fd/0/../{file}"]
    return any_of((target, lambda target=target: through(target)) for target in targets)  # type: ignore[misc]


@attempt
def escape_by_dots(facts: Facts) -> Answer:
    folder = os.open(facts["shared"], os.O_RDONLY)

    def relative(path: str) -> bool:
        descriptor = os.open(path, os.O_RDONLY, dir_fd=folder)
        return facts["token"].encode() in os.read(descriptor, 4096)

    def climbed() -> bool:
        os.fchdir(folder)
        for _ in range(30):
            os.chdir("..")
            with contextlib.suppress(OSError):
                if facts["token"].encode() in content("canary/secret"):
                    return True
        return facts["token"].encode() in content(facts["host_file"][1:])

    paths = ("../canary/secret", "../" * 20 + facts["host_file"][1:])
    tries: list[tuple[str, Callable[[], object]]] = [(path, lambda path=path: relative(path)) for path in paths]  # type: ignore[misc]
    return any_of(iter([("climb", climbed), *tries]))


@attempt
def escape_by_hard_link(facts: Facts) -> Answer:
    def linked(path: str) -> bool:
        os.link(path, f"{facts['shared']}/hard")
        return facts["token"].encode() in content(f"{facts['shared']}/hard")

    paths = (facts["host_file"], f"{facts['shared']}/../canary/secret")
    return any_of((path, lambda path=path: linked(path)) for path in paths)  # type: ignore[misc]


@attempt
def escape_by_chroot(facts: Facts) -> Answer:
    """The old way: a root below, with a descriptor kept outside of it."""

    def left() -> bool:
        outside = os.open("/", os.O_RDONLY)
        os.mkdir(f"{facts['shared']}/root")
        os.chroot(f"{facts['shared']}/root")
        os.fchdir(outside)
        for _ in range(30):
            os.chdir("..")
        return facts["token"].encode() in content(facts["host_file"][1:])

    return any_of(iter([("chroot", left)]))


# -- more than its share


@attempt
def open_all_descriptors(facts: Facts) -> Answer:
    opened: list[int] = []
    try:
        while len(opened) < DESCRIPTORS:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return False, f"{len(opened)} opened, then {error.strerror}"
    return True, f"{len(opened)} opened"


def fill(path: str) -> Answer:
    block, written = b"x" * (1 << 20), 0
    try:
        with open(path, "wb", buffering=0) as out:
            while written < FILL_BYTES:
                written += out.write(block)
    except OSError as error:
        return False, f"{written} bytes written, then {error.strerror}"
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return True, f"{written} bytes written"


@attempt
def fill_tmp(facts: Facts) -> Answer:
    return fill(f"{facts['tmp']}/{CANARY}")


@attempt
def fill_shared_memory(facts: Facts) -> Answer:
    return fill(f"{facts['shm']}/{CANARY}")


# -- single calls, by a program in C


def calls(facts: Facts, skipped: set[str]) -> Iterator[dict[str, object]]:
    """Those of syscalls.c, each in a process of its own; one that says nothing was ended for it."""
    names = [name for name in facts["call_names"] if f"call-{name}" not in skipped]
    loop = 'for each in "$@"; do "$PROGRAM" "$each" "$COPY" || echo "exit $?"; done'
    environment = os.environ | {"PROGRAM": facts["calls"], "COPY": facts["setuid"]}
    command = ["sh", "-c", loop, "calls", *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    for name, line in itertools.zip_longest(names, done.stdout.splitlines(), fillvalue=""):
        said = json.loads(line) if line.startswith("{") else {"worked": False, "errno": f"ended: {line} {done.stderr}"}
        yield {"attempt": f"call-{name}", "through": said["worked"], "detail": str(said["errno"])}


# -- one after the other

OURS: set[int] = set()


def made_alone(name: str, call: Callable[[Facts], Answer], facts: Facts) -> dict[str, object]:
    """One attempt in a process of its own, which nothing that happens to it outlives."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        OURS.update({reading, writing})
        os.setpgid(0, 0)
        signal.alarm(LIMIT_S)
        try:
            through, detail = call(facts)
        except BaseException:  # noqa: BLE001 - whatever it is, it is the answer
            through, detail = False, traceback.format_exc()[-1500:]
        os.write(writing, json.dumps([bool(through), detail]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        said = answer.read(1 << 16)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    if not said:
        return {"attempt": name, "through": False, "detail": f"ended by {os.waitstatus_to_exitcode(status)}"}
    through, detail = json.loads(said)
    return {"attempt": name, "through": through, "detail": detail}


def main() -> None:
    skipped = set(sys.argv[2].split(",")) if len(sys.argv) > 2 else set()
    facts: Facts = json.loads(sys.stdin.buffer.readline())
    for name, call in ATTEMPTS.items():
        if name not in skipped:
            print(json.dumps(made_alone(name, call, facts)), flush=True)
    for told in calls(facts, skipped):
        print(json.dumps(told), flush=True)
    print(json.dumps({"attempt": "end", "through": False, "detail": ""}), flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
