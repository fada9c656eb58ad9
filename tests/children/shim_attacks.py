"""Tries to look into, stop and end process argv[1], or "own": a child of its own, to show that the attempts work.

Writes the names of the attempts that succeeded, on one line.
"""

import ctypes
import errno
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
PIDFD_GETFD = 438
PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    if function(*map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "")


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def steal_descriptor(pid):
    call(libc.syscall, PIDFD_GETFD, os.pidfd_open(pid), 3, 0)


def list_descriptors(pid):
    [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]


def read_memory(pid):
    Path(f"/proc/{pid}/mem").open("rb").close()


def write_memory(pid):
    Path(f"/proc/{pid}/mem").open("r+b").close()


def copy_memory(pid):
    one_byte = (ctypes.c_ulong * 2)(ctypes.addressof(ctypes.create_string_buffer(1)), 1)
    try:
        call(libc.syscall, PROCESS_VM_READV, pid, ctypes.addressof(one_byte), 1, ctypes.addressof(one_byte), 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:  # it may look there, and there is nothing
            raise


def read_environment(pid):
    Path(f"/proc/{pid}/environ").open("rb").close()


def read_maps(pid):
    Path(f"/proc/{pid}/maps").open("rb").close()


def trace(pid):
    call(libc.ptrace, PTRACE_SEIZE, pid, 0, 0)


def attach(pid):
    call(libc.ptrace, PTRACE_ATTACH, pid, 0, 0)


def stop(pid):
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP, signal.SIGSTOP):
        os.kill(pid, number)
    for _ in range(1000):  # it takes a moment on another processor
        if state(pid) in "Tt":
            return
        os.sched_yield()
    raise OSError


def end(pid):
    for number in set(range(1, 65)) - {signal.SIGCONT, signal.SIGCHLD}:
        os.kill(pid, number)
    for _ in range(1000):
        if state(pid) == "Z":
            return
        os.sched_yield()
    raise OSError


ATTEMPTS = [
    steal_descriptor,
    list_descriptors,
    read_memory,
    write_memory,
    copy_memory,
    read_environment,
    read_maps,
    trace,
    attach,
    stop,
    end,
]


def succeeds(attempt):
    """In a process of its own, as a traced one is traced until its tracer ends."""
    pid = os.fork()
    if pid == 0:
        victim = int(sys.argv[1]) if sys.argv[1] != "own" else sleeper()
        refused = 0
        try:
            attempt(victim)
        except OSError:
            refused = 1
        if sys.argv[1] == "own":
            os.kill(victim, signal.SIGKILL)
        os._exit(refused)
    return os.waitpid(pid, 0)[1] == 0


def sleeper():
    """It has a descriptor 3, and is ready: it has executed its program."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 3)
    os.set_inheritable(3, True)  # noqa: FBT003
    return subprocess.Popen(["/bin/sleep", "3600"], close_fds=False).pid


if __name__ == "__main__":
    print(*(attempt.__name__ for attempt in ATTEMPTS if succeeds(attempt)), flush=True)
