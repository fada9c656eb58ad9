"""Programs that do what they should not. usage: misbehave.py WHAT [ARGUMENT…]; each function below is one WHAT.

Those that take part in a pipeline otherwise answer each line with itself, at once.
"""

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

BLOCK = b"x" * (1 << 16)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def lines():
    """The lines of stdin, as they come."""
    rest = b""
    while data := os.read(0, 1 << 16):
        *whole, rest = (rest + data).split(b"\n")
        yield from whole


def echo() -> None:
    for line in lines():
        write_all(1, line + b"\n")


def for_ever() -> None:
    while True:
        signal.pause()


def never_reads() -> None:
    """Lives, and never reads stdin."""
    for_ever()


def flood_stderr(size: str) -> None:
    """SIZE bytes on stderr in lines of 100 bytes, then echo."""
    block = (b"e" * 99 + b"\n") * 1000
    for _ in range(int(size) // len(block)):
        write_all(2, block)
    echo()


def long_log_line(size: str) -> None:
    """One log line of SIZE bytes, then echo."""
    for _ in range(int(size) // len(BLOCK)):
        write_all(2, BLOCK)
    write_all(2, b"\n")
    echo()


def escapes() -> None:
    """A log line with terminal escapes, then echo."""
    write_all(2, b"\x1b]0;title\x07\x1b[2Jcleared\r\n")
    echo()


def long_line(size: str) -> None:
    """A source: one good line, then one line of SIZE bytes."""
    write_all(1, b"good\n")
    for _ in range(int(size) // len(BLOCK)):
        write_all(1, BLOCK)
    write_all(1, b"\n")


def half_message(how: str) -> None:
    """A source: one whole line and half of one, then dies: HOW is a signal's name or an exit code."""
    write_all(1, b"whole\nha")
    die(how)


def die(how: str) -> None:
    if how.isdigit():
        os._exit(int(how))
    os.kill(os.getpid(), signal.Signals[f"SIG{how}"])


def exit_at_once(code: str) -> None:
    os._exit(int(code))


def says_and_exits(code: str, *words: str) -> None:
    """Logs a line and exits."""
    write_all(2, " ".join(words).encode() + b"\n")
    os._exit(int(code))


def closes_stdout() -> None:
    """Echoes one line, closes stdout, and reads on until the end of its input."""
    write_all(1, next(lines(), b"nothing") + b"\n")
    os.close(1)
    while os.read(0, 1 << 16):
        pass


def closes_stdout_and_stays() -> None:
    """A source: one line, closes stdout, lives on."""
    write_all(1, b"only\n")
    os.close(1)
    for_ever()


def ignores_term(pid_file: str) -> None:
    """Echoes; ignores TERM and INT, and the end of its input."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_pid(pid_file)
    echo()
    for_ever()


def leave_pid(folder_or_file: str) -> None:
    """Say that this process lives: appended whole, so several may share a file."""
    with Path(folder_or_file).open("ab", buffering=0) as out:
        out.write(b"%d\n" % os.getpid())


def hides(pid_file: str) -> None:
    """Echoes; leaves a daemon that called setsid, was forked twice, and ignores every signal it can."""
    hide(pid_file)
    echo()


def source_that_hides(pid_file: str) -> None:
    """A source that leaves such a daemon and writes for ever."""
    hide(pid_file)
    while True:
        write_all(1, b"line\n")
        time.sleep(0.001)


def hide(pid_file: str) -> None:
    if (middle := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, signal.NSIG):
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_IGN)
            leave_pid(pid_file)
            while True:
                time.sleep(3600)
        os._exit(0)
    os.waitpid(middle, 0)


def holds_stdout(pid_file: str) -> None:
    """Echoes and exits 0 at the end of its input, but a grandchild keeps its stdout open."""
    if os.fork() == 0:
        if os.fork() == 0:
            leave_pid(pid_file)
            for_ever()
        os._exit(0)
    os.wait()
    echo()


def grandchild_reads(pid_file: str) -> None:
    """Dies after its first line while a grandchild in a session of its own goes on reading stdin."""
    if (line := next(lines(), None)) is None:
        return
    write_all(1, line + b"\n")
    if os.fork() == 0:
        os.setsid()
        leave_pid(pid_file)
        while os.read(0, 1000):
            time.sleep(0.001)
        os._exit(0)
    while not Path(pid_file).exists():
        time.sleep(0.001)
    die("KILL")


def writes_own_stdin(size: str) -> None:
    """Reopens its stdin for writing, puts SIZE bytes of lines into it, and dies."""
    own = os.open("/proc/self/fd/0", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        os.write(own, b"intruder\n" * (int(size) // 9))
    die("KILL")


def noise() -> None:
    """A line of noise on stdout before each answer, as a library that prints would."""
    for line in lines():
        write_all(1, b"loading model...\n" + line + b"\n")


def answers_too_much(number: str) -> None:
    """Answers message NUMBER twice."""
    for count, line in enumerate(lines(), 1):
        write_all(1, line + b"\n")
        if count == int(number):
            write_all(1, line + b"\n")


def speaks_first() -> None:
    """Writes a line before it read anything."""
    write_all(1, b"hello\n")
    echo()


def answers_too_little(number: str) -> None:
    """Never answers message NUMBER; ends with 0."""
    for count, line in enumerate(lines(), 1):
        if count != int(number):
            write_all(1, line + b"\n")


def leaves_after(count: str) -> None:
    """Answers COUNT lines, then exits 0 with input left."""
    for done, line in enumerate(lines(), 1):
        write_all(1, line + b"\n")
        if done == int(count):
            os._exit(0)


def no_newline_at_end() -> None:
    """Answers with the newline in front of the next line, so the last one has none."""
    for count, line in enumerate(lines()):
        write_all(1, (b"\n" if count else b"") + line)


def buffers() -> None:
    """Answers everything at the end."""
    write_all(1, b"".join(line + b"\n" for line in lines()))


def uneven(speed: str) -> None:
    """Answers at a pace of its own: replicas that are given different numbers get out of step."""
    for count, line in enumerate(lines()):
        if count % 7 == int(speed) % 7:
            time.sleep(0.001 * (int(speed) + 1))
        write_all(1, line + b"\n")


def counts_in_flight(most: str) -> None:
    """Answers all it got at once, after a pause in which no more than MOST lines may come; exits 9 if more did."""
    while data := os.read(0, 1 << 20):
        while select.select([0], [], [], 0.01)[0] and (more := os.read(0, 1 << 20)):
            data += more
        if data.count(b"\n") > int(most):
            write_all(2, b"%d lines at once\n" % data.count(b"\n"))
            os._exit(9)
        write_all(1, data)


def stops_itself(count: str) -> None:
    """Answers COUNT lines, then stops with SIGSTOP; goes on after a CONT."""
    for done, line in enumerate(lines(), 1):
        write_all(1, line + b"\n")
        if done == int(count):
            os.kill(os.getpid(), signal.SIGSTOP)


def stalls_once(count: str) -> None:
    """Its first run stops answering after COUNT lines."""
    for done, line in enumerate(lines(), 1):
        if done > int(count) and os.environ["CONNECTOR_ATTEMPT"] == "1":
            for_ever()
        write_all(1, line + b"\n")


def later(times: str) -> None:
    """Exits 75 in its first TIMES runs, then echoes."""
    if int(os.environ["CONNECTOR_ATTEMPT"]) <= int(times):
        os._exit(75)
    echo()


def fails_first(times: str, code: str) -> None:
    """Exits CODE in its first TIMES runs, then echoes."""
    if int(os.environ["CONNECTOR_ATTEMPT"]) <= int(times):
        os._exit(int(code))
    echo()


def dies_every(count: str) -> None:
    """SIGKILLs itself after each COUNT answers of a run."""
    for done, line in enumerate(lines(), 1):
        write_all(1, line + b"\n")
        if done == int(count):
            die("KILL")


def dies_with_half_answer(count: str) -> None:
    """Each run of it but the third answers COUNT lines, begins the next answer, and dies."""
    for done, line in enumerate(lines(), 1):
        if done > int(count) and int(os.environ["CONNECTOR_ATTEMPT"]) < 3:
            write_all(1, line[: len(line) // 2])
            die("KILL")
        write_all(1, line + b"\n")


def reads_then_dies(messages: str, torn: str, size: str) -> None:
    """Its first run reads MESSAGES lines of SIZE bytes and TORN bytes of one more, exactly, and dies; then echoes."""
    if os.environ["CONNECTOR_ATTEMPT"] == "1":
        due = int(messages) * int(size) + int(torn)
        while due:
            due -= len(os.read(0, due))
        die("KILL")
    echo()


def environment(file: str, *more: str) -> None:
    """Writes what it finds of CONNECTOR_* and of the names after FILE as lines, then echoes."""
    names = [*(name for name in sorted(os.environ) if name.startswith("CONNECTOR_")), *more]
    Path(file).write_text("".join(f"{name}={os.environ.get(name, '')}\n" for name in names))
    echo()


def descriptors(file: str) -> None:
    """Writes its open descriptors, signal mask and ignored signals, session and group, then echoes."""
    opened = sorted(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    opened = [number for number in opened if os.path.exists(f"/proc/self/fd/{number}")]  # noqa: PTH110
    status = Path("/proc/self/status").read_text()
    masks = [line for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn"))]
    session = f"session {os.getsid(0) == os.getpid()}"
    Path(file).write_text("\n".join([" ".join(map(str, opened)), *masks, session]) + "\n")
    echo()


def shows_secret(name: str) -> None:
    """Puts its secret on stderr and on stdout's way to the log, then exits 1."""
    write_all(2, b"the key is " + os.environ[name].encode() + b"\n")
    die("1")


def ends_on_term(log: str, name: str) -> None:
    """Echoes; when its input has ended or TERM came, notes NAME and which in LOG."""

    def on_term(*_: object) -> None:
        note("TERM")
        os._exit(0)

    def note(what: str) -> None:
        with Path(log).open("ab", buffering=0) as out:
            out.write(f"{name} {what}\n".encode())

    signal.signal(signal.SIGTERM, on_term)
    echo()
    note("end")


def called(functions: dict[str, object]) -> None:
    """Call the function that the first argument names with all others."""
    functions[sys.argv[1].replace("-", "_")](*sys.argv[2:])


if __name__ == "__main__":
    called(globals())
