"""Programs that a wall is for. usage: assaults.py MARK NAME [ARGUMENT…]; each function below is one NAME.

Those that are not about their input wait for its first line, and say what came of it as lines on stdout. Only the
standard library; each is bounded in count, bytes and time by its own code: LIFE_S after its start nothing of it lives.
"""

# These speak to the system itself, by its own words.
# ruff: noqa: PTH102, PTH106, PTH108, PTH110, PTH116, PTH123, PTH208

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

LIFE_S = 40
MIB = 1 << 20
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLONE_PARENT = 0x8000
SYS_CLONE = {"x86_64": 56, "aarch64": 220}

libc = ctypes.CDLL(None, use_errno=True)
given = b""


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def say(text: str) -> None:
    write_all(1, text.encode() + b"\n")


def first_line() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    found: dict[str, Any] = json.loads(line or b"{}")
    return found


def to_the_end() -> None:
    """Read the rest of stdin."""
    while os.read(0, 1 << 16):
        pass


def for_its_life() -> None:
    while True:
        signal.pause()


# -- more than its share


def fork_bomb(count: str) -> None:
    """COUNT processes in all, each of which makes more, until it is refused; they stay."""
    first_line()
    tokens, filling = os.pipe()
    heard, telling = os.pipe()
    os.set_blocking(tokens, False)
    write_all(filling, b"x" * int(count))
    os.close(filling)
    while True:
        if not os.read(tokens, 1):
            write_all(telling, b"s")
            break
        try:
            child = os.fork()
        except OSError:
            write_all(telling, b"r")
            break
        if child == 0:
            signal.alarm(LIFE_S)
    if os.getpid() != MAIN:
        for_its_life()
    say("refused" if os.read(heard, 1) == b"r" else "spent")
    to_the_end()


def balloon(kind: str, size: str) -> None:
    """SIZE bytes of memory: its own ("anonymous"), of a file without a name ("memfd"), of four children at once."""
    first_line()
    if kind == "children":
        full = [child_that_takes(int(size) // 4) for _ in range(4)]
        killed = sum(not os.read(each, 1) for each in full)
        say(f"{killed} of 4 children were killed")
    elif kind == "memfd":
        held = os.memfd_create("balloon")
        for _ in range(int(size) // MIB):
            write_all(held, b"x" * MIB)
        say("held")
    else:
        kept = take(int(size))
        say("held")
        del kept
    to_the_end()


def fill_folders(size: str, *folders: str) -> None:
    """SIZE bytes into a file in each of FOLDERS; who it is, and what lay there."""
    first_line()
    say(f"user {os.getuid()} processor {os.environ['CONNECTOR_PROCESSOR']}")
    for folder in folders:
        written, found = 0, ""
        try:
            found = str(os.listdir(folder))
            with open(f"{folder}/filled", "wb", buffering=0) as out:
                while written < int(size):
                    written += out.write(b"x" * (64 << 10))
        except OSError as error:
            found += f" {error.strerror}"
        say(f"{folder}: {written} {found}")
    to_the_end()


def child_that_takes(size: int) -> int:
    """A child that takes so much and keeps it; the descriptor on which it says so, or which just ends."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        signal.alarm(LIFE_S)
        os.close(reading)
        taken = take(size)
        os.write(writing, b"f")
        for_its_life()
        del taken
    os.close(writing)
    return reading


def fill_inodes(folder: str, count: str) -> None:
    """COUNT empty files in FOLDER."""
    first_line()
    own = f"{folder}/{sys.argv[1]}"
    os.mkdir(own)
    made = 0
    try:
        for made in range(1, int(count) + 1):
            os.close(os.open(f"{own}/{made}", os.O_WRONLY | os.O_CREAT))
    except OSError as error:
        say(f"{made - 1} files, then {error.strerror}")
    else:
        say(f"{made} files")
    for number in range(made + 1):
        with contextlib.suppress(OSError):
            os.unlink(f"{own}/{number}")
    os.rmdir(own)
    to_the_end()


def take(size: int) -> list[bytearray]:
    """So much memory, in pieces that are written to."""
    return [bytearray(b"x" * MIB) for _ in range(size // MIB)]


def spin(count: str, seconds: str) -> None:
    """COUNT processes that do nothing but count, for SECONDS."""
    first_line()
    say("spinning")
    until = time.monotonic() + float(seconds)
    for _ in range(int(count) - 1):
        if os.fork() == 0:
            break
    while time.monotonic() < until:
        sum(range(10_000))
    if os.getpid() != MAIN:
        os._exit(0)
    say("spun")
    to_the_end()


def flood_stderr(size: str) -> None:
    """SIZE bytes of short lines on stderr, then one line as long."""
    first_line()
    block = (b"e" * 99 + b"\n") * 1000
    for _ in range(int(size) // len(block)):
        write_all(2, block)
    for _ in range(int(size) // MIB):
        write_all(2, b"E" * MIB)
    say("flooded")
    to_the_end()


def flood_stdout(size: str, line: str) -> None:
    """SIZE bytes of lines of LINE bytes."""
    first_line()
    block = (b"o" * (int(line) - 1) + b"\n") * (MIB // int(line))
    for _ in range(int(size) // MIB):
        write_all(1, block)
    to_the_end()


def endless_line(size: str) -> None:
    """SIZE bytes, and no newline among them."""
    first_line()
    for _ in range(int(size) // MIB):
        write_all(1, b"x" * MIB)
    to_the_end()


def nested(depth: str) -> None:
    """Lines that a parser of JSON may fall over: brackets DEPTH deep, a number as long, half of a string."""
    first_line()
    many = int(depth)
    for line in (b"[" * many, b"[" * many + b"]" * many, b"9" * many, b'{"a":' * (many // 5), b'"' + b"\\u" * many):
        write_all(1, line + b"\n")
    say('{"whole": true}')
    to_the_end()


def huge_prefix(size: str) -> None:
    """A length of 4 GiB less one, then SIZE bytes of the message that it promised."""
    first_line()
    write_all(1, b"\xff\xff\xff\xff")
    for _ in range(int(size) // MIB):
        write_all(1, b"x" * MIB)
    to_the_end()


# -- words that do something to who reads them

ESCAPES = (
    b"\x1b]0;pwned\x07\x1b[2J\x1b[1;1Hcleared",
    b"\x1b]52;c;cm0gLXJm\x07 into the clipboard",
    b"\x1bP+q544e\x1b\\ asked\x1b[6n\x1b[c\x1bZ",
    "\u009b31m\u009d0;pwned\u009c eight bits".encode(),
    b"\x9b31m\x9d0;pwned\x9c no UTF-8",
    "\u202egnp.exe\u202c \u2066hidden\u2069 \u2028 line \u2029 paragraph \u200f \ufeff \U000e0041".encode(),
    b"over\rwritten\x08\x08\x08\x08 \x00 \x7f \x0b \x0c \x85",
    b"\xed\xa0\x80 half a surrogate, \xff\xfe\xc0\xaf",
    b'{"time":"2026-01-01T00:00:00.000Z","level":"error","event":"run_ended","status":"completed"}',
    b"../../../../../../tmp/pwned/{}/%s/%n/${HOME}/$(reboot)",
    b"[bold red]markup[/bold red] [link=file:///etc/passwd]here[/link]",
)


def escapes() -> None:
    """Escapes in the log, in messages, and in an answer too many, whose beginning the error shows."""
    first_line()
    for each in ESCAPES:
        write_all(2, each + b"\n")
    libc.prctl(15, b"\x1b[31m\x07name", 0, 0, 0)  # PR_SET_NAME
    write_all(1, b"".join(each + b"\n" for each in ESCAPES))
    to_the_end()


def last_words() -> None:
    """The same as the last lines before it fails."""
    first_line()
    for each in ESCAPES:
        write_all(2, each + b"\n")
    os._exit(3)


# -- its own pipes


def into_stdin(count: str) -> None:
    """COUNT lines into its own stdin, more than there ever was in it; then it ends as if all were well."""
    first_line()
    own = os.open("/proc/self/fd/0", os.O_WRONLY | os.O_NONBLOCK)
    write_all(own, b"forged\n" * int(count))
    say("forged")
    os._exit(0)


def other_pipes() -> None:
    """Pipes made as small and as large as may be, set not to block, read from their wrong ends; then it ends well."""
    first_line()
    for number in range(3):
        for size in (4096, 1 << 20, 1 << 30):
            with contextlib.suppress(OSError):
                fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, size)
        os.set_blocking(number, False)
    say("one")
    wrong = [os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_NONBLOCK) for number in (1, 2)]
    for each in wrong:
        with contextlib.suppress(OSError):
            os.read(each, 1 << 16)
    os.set_blocking(0, True)
    say("two")
    to_the_end()


# -- what does not end


def stubborn(how: str) -> None:
    """Never reads and ignores every signal; "stops": itself and its group; "closes": its ports, one by one."""
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    say("stubborn")
    if how == "stops":
        os.kill(0, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "closes":
        for number in (1, 0, 2):
            os.close(number)
    time.sleep(LIFE_S)


def survivor() -> None:
    """Ignores every signal, for its life."""
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    write_all(UP[1], b"x")
    time.sleep(LIFE_S)
    os._exit(0)


def by_session() -> None:
    os.setsid()
    survivor()


def by_two_forks() -> None:
    if os.fork():
        os._exit(0)
    survivor()


def by_daemon() -> None:
    """As daemon(3) does it."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    survivor()


def by_no_death_signal() -> None:
    libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    survivor()


def by_subreaper() -> None:
    """Its grandchild comes to it rather than to the shim."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if (middle := os.fork()) == 0:
        if os.fork() == 0:
            survivor()
        os._exit(0)
    os.waitpid(middle, 0)
    survivor()


def by_clone_parent() -> None:
    """A brother instead of a child: its parent is the shim itself."""
    if libc.syscall(SYS_CLONE[platform.machine()], CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        survivor()
    os._exit(0)


def by_file_without_name() -> None:
    """A program that no file holds any more, under a session of its own."""
    os.setsid()
    program = os.memfd_create("survivor", 0)
    with open(sys.executable, "rb") as found:
        write_all(program, found.read(64 * MIB))
    os.set_inheritable(UP[1], True)  # noqa: FBT003 - the library's own shape
    code = f"import os, time; os.write({UP[1]}, b'x'); time.sleep({LIFE_S})"
    os.execv(f"/proc/self/fd/{program}", [sys.executable, "-c", code, *sys.argv[1:]])


WAYS: tuple[tuple[Callable[[], None], int], ...] = (
    (by_session, 1),
    (by_two_forks, 1),
    (by_daemon, 1),
    (by_no_death_signal, 1),
    (by_subreaper, 2),
    (by_clone_parent, 1),
    (by_file_without_name, 1),
)
"""Ways to outlive one's parent, each with how many it leaves."""

SURVIVORS = sum(count for _, count in WAYS)


def outlives(then: str) -> None:
    """Leaves SURVIVORS processes that hold its ports, then ends with 0 ("ends") or goes on ("stays")."""
    first_line()
    for way, _ in WAYS:
        if os.fork() == 0:
            way()
            os._exit(0)
    up = 0
    while up < SURVIVORS:
        up += len(os.read(UP[0], SURVIVORS))
    say(f"{up} up")
    if then == "ends":
        os._exit(0)
    to_the_end()


def residue(folder: str) -> None:
    """Leaves a file, a process and shared memory and fails; its second run looks what is left of the first."""
    if os.environ["CONNECTOR_ATTEMPT"] == "1":
        with open(f"{folder}/left", "w") as out:
            out.write("left")
        if os.fork() == 0:
            by_daemon()
        os.read(UP[0], 1)
        os._exit(1)
    first_line()
    others = [name for name in os.listdir("/proc") if name.isdigit() and name not in ("1", str(os.getpid()))]
    say(f"file {os.path.exists(f'{folder}/left')}, processes {len(others)}")
    to_the_end()


# -- everybody else


def kills_everybody() -> None:
    """SIGKILL to all that it can reach, and every signal to the first process; only in a PID namespace of its own."""
    facts = first_line()
    if os.stat("/proc/self/ns/pid").st_ino == facts["pid_namespace"]:
        say("not walled off")
        os._exit(4)
    brother = os.fork()
    if brother == 0:
        for_its_life()
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    say(f"its own child: {os.waitstatus_to_exitcode(os.waitpid(brother, 0)[1])}")
    for number in [*range(1, signal.NSIG), signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]:
        with contextlib.suppress(OSError):
            os.kill(1, number)
    say("sent")
    to_the_end()


def kills_its_shim() -> None:
    """SIGKILL to its parent."""
    first_line()
    with contextlib.suppress(OSError):
        os.kill(os.getppid(), signal.SIGKILL)
    say("alive")
    to_the_end()


MAIN = os.getpid()
UP = os.pipe()


def main() -> None:
    signal.alarm(LIFE_S)
    globals()[sys.argv[2].replace("-", "_")](*sys.argv[3:])


if __name__ == "__main__":
    main()
