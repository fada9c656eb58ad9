"""A second program beside the first: `P`, `k` and `Q` of PROTOCOL.md, with real children."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.launch.shim.locate import shim_path
from tests.launch.shim_client import KILLED, Pipe, Probed, Shim, child, encode_job, memfd, python, watching

BINARY = str(shim_path())
CAT = shutil.which("cat") or "/bin/cat"
SH = shutil.which("sh") or "/bin/sh"
ROOT = os.geteuid() == 0
NOBODY = 65534
HIDING = ["session", "double-fork", "deaf", "deep", "thread", "vfork", "stopped"]

needs_root = pytest.mark.skipif(not ROOT, reason="only root can do this")


@pytest.fixture
def shim() -> Iterator[Shim]:
    with Shim(BINARY) as running:
        yield running


def unshare(*options: str) -> Callable[[list[str]], list[str]]:
    user = [] if ROOT else ["--user", "--map-root-user"]
    return lambda command: ["unshare", *user, *options, "--", *command]


def wrapped(wrap: Callable[[list[str]], list[str]]) -> Shim:
    if subprocess.run(wrap(["true"]), capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets us make no such namespace")
    return Shim(BINARY, wrap=wrap)


@pytest.fixture(params=["child", "pid1"])
def any_shim(request: pytest.FixtureRequest) -> Iterator[Shim]:
    with Shim(BINARY) if request.param == "child" else wrapped(unshare("--fork", "--pid", "--mount-proc")) as running:
        yield running


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def settled(shim: Shim) -> None:
    """What a probe left is reaped by the shim: a `K` without anything to kill waits for that."""
    shim.send(b"K")
    shim.gone()
    assert children_of(shim.process.pid) == []
    if ROOT:
        assert open_descriptors(shim.process.pid) == 5  # 0, 1, 2, the socket, the signalfd


@contextmanager
def program(shim: Shim) -> Iterator[None]:
    """`cat`, which must answer and end by itself afterwards."""
    with Pipe() as to, Pipe() as out:
        shim.start([CAT], {0: to.reading, 1: out.writing})
        yield
        os.write(to.writing, b"undisturbed\n")
        assert out.read_line() == b"undisturbed"
        to.close_writing()
        assert shim.ended().code == 0


def begin(shim: Shim, out: Pipe, command: list[str]) -> list[int]:
    """Start a probe; gives the numbers that it writes on its first line."""
    with Path(os.devnull).open("r+b") as null:
        shim.send_probe(command, {0: null.fileno(), 1: out.writing, 2: null.fileno()})
    out.close_writing()
    return [int(word) for word in out.read_line().split()]


HANGS = python("import os, signal\nprint(os.getpid(), os.getppid(), flush=True)\nwhile True: signal.pause()")


# ---- start and end


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code(any_shim: Shim, code: int) -> None:
    assert any_shim.probe([SH, "-c", f"exit {code}"]) == Probed(code, 0)
    with program(any_shim):
        assert any_shim.probe([SH, "-c", f"exit {code}"]) == Probed(code, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_end_by_signal(shim: Shim, number: int) -> None:
    with program(shim):
        assert shim.probe([SH, "-c", f"kill -{number} $$"]) == Probed(-1, number)


def test_a_job_of_its_own(shim: Shim) -> None:
    show = "import os, resource; print(os.environ['MARK'], os.getcwd(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    with program(shim), Pipe() as out:
        shim.send_probe(
            python(show), {1: out.writing}, env={"MARK": "m"}, folder="/usr", limits={resource.RLIMIT_NOFILE: 77}
        )
        out.close_writing()
        assert out.read_all() == b"m /usr 77 77\n"
        assert shim.probed() == Probed(0, 0)


@needs_root
def test_a_user_of_its_own(shim: Shim) -> None:
    with program(shim), Pipe() as out:
        shim.send_probe(["id", "-u"], {1: out.writing}, uid=NOBODY, gid=NOBODY)
        out.close_writing()
        assert out.read_all() == b"%d\n" % NOBODY
        assert shim.probed() == Probed(0, 0)


def test_nothing_else_is_open_and_signals_are_default(shim: Shim) -> None:
    with program(shim), Pipe() as out:
        shim.send_probe(["sh", "-c", "ls /proc/self/fd; cat /proc/self/status"], {1: out.writing})
        out.close_writing()
        lines = out.read_all().decode().split("\n")
        assert lines[:2] == ["0", "1"]  # the lower one is the folder that `ls` reads
        assert {int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))} == {0}
        assert shim.probed() == Probed(0, 0)


def test_session_of_its_own(shim: Shim) -> None:
    source = "import os\nprint(os.getpid(), os.getppid(), os.getsid(0), os.getpgrp())"
    with program(shim), Pipe() as out:
        _, parent, session, group = begin(shim, out, python(source))
        assert parent == session == group
        assert parent != shim.process.pid
        assert shim.probed() == Probed(0, 0)


def test_a_port_that_the_probe_closes_is_closed(shim: Shim) -> None:
    """Its parent, of the shim's own, holds none of its descriptors."""
    with Pipe() as out:
        _, parent = begin(shim, out, [*HANGS[:-1], HANGS[-1].replace("while", "os.close(1)\nwhile")])
        assert out.read_all() == b""
        if ROOT:
            assert open_descriptors(parent) == 1  # where it will tell how the probe ended
        shim.send(b"k")
        assert shim.probed() == KILLED


def test_program_that_ends_and_starts_again_beside_a_probe(shim: Shim) -> None:
    with Pipe() as out:
        pid, _ = begin(shim, out, HANGS)
        for code in range(3):
            shim.start([SH, "-c", f"exit {code}"])
            assert shim.ended().code == code
        shim.send_start(["/no/such/program"])
        assert shim.failed() == (errno.ENOENT, "x")
        os.kill(pid, signal.SIGTERM)
        assert shim.probed() == Probed(-1, signal.SIGTERM)


def test_signals_are_for_the_program(shim: Shim) -> None:
    with Pipe() as out:
        begin(shim, out, HANGS)
        shim.signal(signal.SIGKILL)
        shim.start(["sleep", "1000"])
        shim.signal(signal.SIGKILL)
        assert shim.ended().signal == signal.SIGKILL
        shim.send_probe(["true"])
        assert shim.probed().stage == "b"  # the first one is still there
        shim.send(b"k")
        assert shim.probed() == KILLED


def test_one_at_a_time(shim: Shim) -> None:
    with program(shim), Pipe() as to:
        with Path(os.devnull).open("r+b") as null:
            shim.send_probe([CAT], {0: to.reading, 1: null.fileno()})
        for _ in range(3):
            assert shim.probe(["true"]) == Probed(-1, 0, errno.EBUSY, "b")
        to.close_writing()
        assert shim.probed() == Probed(0, 0)
        assert shim.probe(["true"]) == Probed(0, 0)


# ---- what cannot be started


def test_what_cannot_be_started(shim: Shim) -> None:
    with program(shim):
        assert shim.probe(["no-such-program-anywhere"]) == Probed(-1, 0, errno.ENOENT, "x")
        assert shim.probe(["true"], folder="/no/such/folder") == Probed(-1, 0, errno.ENOENT, "c")
        assert shim.probe(["true"], limits={resource.RLIMIT_NOFILE: 1 << 40}) == Probed(-1, 0, errno.EPERM, "l")
        shim.send(b"P")
        assert shim.probed() == Probed(-1, 0, errno.EINVAL, "j")
        assert shim.probe(["true"]) == Probed(0, 0)


@needs_root
@pytest.mark.parametrize("processes", [0, 2])
def test_no_process_left(processes: int) -> None:
    """Of 2, which are the shim and the probe's parent, none is left for the probe itself."""
    source = (
        "import os, resource, sys\n"
        "binary = os.open(sys.argv[1], os.O_RDONLY | os.O_CLOEXEC)\n"
        f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[54321] * 3)\n"
        f"resource.setrlimit(resource.RLIMIT_NPROC, ({processes},) * 2)\n"
        "os.execve(binary, sys.argv[1:], {})"
    )
    with Shim(BINARY, wrap=lambda command: python(source, *command)) as shim:
        assert shim.probe(["true"]) == Probed(-1, 0, errno.EAGAIN, "f")
        assert shim.probe(["true"]) == Probed(-1, 0, errno.EAGAIN, "f")


# ---- killing


@pytest.mark.parametrize("kind", ["group", *HIDING])
def test_kill_reaches_the_probes_tree(any_shim: Shim, kind: str) -> None:
    with program(any_shim), Pipe() as out:
        begin(any_shim, out, child("shim_tree.py", kind))
        any_shim.send(b"k")
        assert any_shim.probed() == KILLED
        assert out.read_all(within_s=5) == b""  # every one of them had it


@pytest.mark.parametrize("kind", ["double-fork", "deep"])
def test_kill_leaves_the_programs_tree_alone(shim: Shim, kind: str) -> None:
    with Pipe() as out, Pipe() as probe_out, Path(os.devnull).open("r+b") as null:
        shim.start(child("shim_tree.py", kind), {0: null.fileno(), 1: out.writing, 2: null.fileno()})
        out.close_writing()
        pids = [int(word) for word in out.read_line().split()]
        with watching(pids) as left:
            begin(shim, probe_out, child("shim_tree.py", kind))
            shim.send(b"k")
            assert shim.probed() == KILLED
            assert probe_out.read_all(within_s=5) == b""
            assert left(0) == pids
        shim.send(b"K")
        assert shim.ended().signal == signal.SIGKILL
        shim.gone()


def test_what_a_probe_leaves_behind_is_killed(any_shim: Shim) -> None:
    with program(any_shim), Pipe() as out:
        begin(any_shim, out, child("shim_probe_hides.py"))
        assert any_shim.probed() == Probed(7, 0)
        assert out.read_all(within_s=5) == b""


def test_kill_outruns_a_probe_that_forks(any_shim: Shim) -> None:
    with program(any_shim), Pipe() as tokens, Pipe() as out, Path(os.devnull).open("r+b") as null:
        os.write(tokens.writing, b"." * 20 + b"!" + b"." * 150)
        tokens.close_writing()
        any_shim.send_probe(child("shim_forks.py", "tree"), {0: tokens.reading, 1: out.writing, 2: null.fileno()})
        out.close_writing()
        assert out.read_line() == b"forking"
        any_shim.send(b"k")
        assert any_shim.probed() == KILLED
        assert out.read_all(within_s=5) == b""


@needs_root
@pytest.mark.parametrize("namespace", ["own", "other"])
def test_without_proc_the_group_is_killed(namespace: str) -> None:
    hidden = ["sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    options = ("--mount",) if namespace == "own" else ("--mount", "--fork", "--pid")
    with wrapped(lambda command: unshare(*options)([*hidden, *command])) as shim, program(shim), Pipe() as out:
        source = "import os\nif os.fork() == 0: print(os.getpid(), flush=True)\nos.read(0, 1)"
        with Pipe() as to:
            shim.send_probe(python(source), {0: to.reading, 1: out.writing})
            out.close_writing()
            out.read_line()
            shim.send(b"k")
            assert shim.probed() == KILLED
            assert out.read_all(within_s=5) == b""


def test_kill_of_nothing_is_passed_over(shim: Shim) -> None:
    for packet in (b"k", b"k", b"k\0", b"kk"):
        shim.send(packet)
    with program(shim):
        shim.send(b"k")
        assert shim.probe(["true"]) == Probed(0, 0)
        shim.send(b"k")


def test_a_kill_races_with_the_end(shim: Shim) -> None:
    """Whoever is first: one answer, and it says what happened."""
    with program(shim):
        for _ in range(100):
            shim.send_probe([SH, "-c", "exit 3"])
            shim.send(b"k")
            shim.send(b"k")
            assert shim.probed() in (Probed(3, 0), KILLED)
    settled(shim)


def test_kill_of_all_takes_the_probe(any_shim: Shim) -> None:
    with Pipe() as out:
        any_shim.start(["sleep", "1000"])
        begin(any_shim, out, child("shim_tree.py", "double-fork"))
        any_shim.send(b"K")
        answers = [any_shim.receive() for _ in range(3)]
        assert {packet[:1] for packet in answers} == {b"X", b"Q", b"G"}
        assert answers[2][:1] == b"G"
        assert next(packet for packet in answers if packet[:1] == b"Q") == b"Q" + struct.pack("<iiIB", -1, 9, 0, 0)
        assert out.read_all(within_s=5) == b""
        assert any_shim.probe(["true"]) == Probed(0, 0)


def test_probe_while_killing_is_refused(shim: Shim) -> None:
    """Much memory takes a while to be given back, and so to die."""
    with Pipe() as out, Path(os.devnull).open("r+b") as null:
        big = python("import signal\nkept = b'x' * (150 << 20)\nprint(1, flush=True)\nsignal.pause()")
        shim.start(big, {0: null.fileno(), 1: out.writing})
        out.read_line()
    shim.send(b"K")
    shim.send_probe(["true"])
    assert shim.probed() == Probed(-1, 0, errno.EBUSY, "b")
    assert shim.ended().signal == signal.SIGKILL
    assert shim.gone() == 1
    assert shim.probe(["true"]) == Probed(0, 0)


@pytest.mark.parametrize("kind", HIDING)
def test_closed_socket_leaves_no_survivor(any_shim: Shim, kind: str) -> None:
    with Pipe() as out:
        any_shim.start(["sleep", "1000"])
        begin(any_shim, out, child("shim_tree.py", kind))
        any_shim.socket.close()
        assert out.read_all(within_s=2) == b""
        assert any_shim.process.wait(2) == 0


def test_probe_dies_with_the_shim(shim: Shim) -> None:
    with Pipe() as out:
        pids = begin(shim, out, HANGS)
        with watching(pids) as left:
            shim.process.kill()
            assert left(5) == []
    assert shim.receive() == b""


# ---- a probe's parent in the hands of a program of the same user


def test_parent_that_is_killed(shim: Shim) -> None:
    with program(shim), Pipe() as out:
        pid, parent = begin(shim, out, HANGS)
        with watching([pid]) as left:
            os.kill(parent, signal.SIGKILL)
            assert shim.probed() == KILLED
            assert left(5) == []
        assert shim.probe(["true"]) == Probed(0, 0)


def test_parent_that_is_stopped(shim: Shim) -> None:
    with program(shim), Pipe() as out:
        pid, parent = begin(shim, out, HANGS)
        os.kill(parent, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        shim.send(b"k")
        assert shim.probed() == KILLED


def test_parent_is_deaf(shim: Shim) -> None:
    """A probe that signals its whole group tells how it ended all the same."""
    with program(shim):
        assert shim.probe([SH, "-c", "kill -TERM 0"]) == Probed(-1, signal.SIGTERM)
        assert shim.probe([SH, "-c", "kill -KILL 0"]) == KILLED


# ---- many, and malformed ones


def test_thousand_probes_leave_nothing(shim: Shim) -> None:
    with program(shim):
        before = children_of(shim.process.pid)
        for number in range(1000):
            match number % 4:
                case 0:
                    assert shim.probe([SH, "-c", "exit 5"]) == Probed(5, 0)
                case 1:
                    assert shim.probe(["/no/such/program"]).stage == "x"
                case 2:
                    shim.send_probe(["sleep", "1000"])
                    shim.send(b"k")
                    assert shim.probed() == KILLED
                case 3:
                    assert shim.probe(["connector-probe", "file", "/"]) == Probed(0, 0)
        assert set(before) <= set(children_of(shim.process.pid))
    settled(shim)


GOOD = encode_job(["true"], targets=[0, 1], env={"A": "b", "PATH": "/usr/bin:/bin"}, limits={resource.RLIMIT_CORE: 0})


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Shim]:
    """One shim for all malformed jobs, with a program that must not notice."""
    with Shim(BINARY) as running:
        with program(running):
            yield running
            assert running.probe(["true"]) == Probed(0, 0)
        settled(running)


def probe_of(shim: Shim, data: bytes, ports: int) -> Probed:
    with Path(os.devnull).open("r+b") as null:
        shim.send_job(data, [null.fileno()] * ports, b"P")
    return shim.probed()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), ports=st.integers(0, 5))
def test_random_bytes_are_no_job(fuzzed: Shim, data: bytes, ports: int) -> None:
    assert probe_of(fuzzed, data, ports) == Probed(-1, 0, errno.EINVAL, "j")
    assert probe_of(fuzzed, GOOD[:4] + data, ports).stage == "j"


def test_truncated_and_lengthened_jobs(fuzzed: Shim) -> None:
    for data in (*(GOOD[:size] for size in range(len(GOOD))), GOOD + b"\0", GOOD + b"x\0"):
        assert probe_of(fuzzed, data, 2) == Probed(-1, 0, errno.EINVAL, "j")
    for ports in (0, 1, 3, 252):
        assert probe_of(fuzzed, GOOD, ports) == Probed(-1, 0, errno.EINVAL, "j")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_changed_bytes(fuzzed: Shim, place: int, value: int) -> None:
    """Some changes make another good job; all have one answer."""
    probed = probe_of(fuzzed, GOOD[:place] + bytes([value]) + GOOD[place + 1 :], 2)
    assert (probed.code == -1) == bool(probed.stage or probed.signal)


def test_requests_that_are_none(fuzzed: Shim) -> None:
    job = memfd(encode_job(["true"]))
    for packet in (b"P\0", b"PP", b"P" * 1000):
        fuzzed.send(packet, [job])
        assert fuzzed.probed() == Probed(-1, 0, errno.EINVAL, "j")
    os.close(job)
    with ExitStack() as stack:
        pipe = stack.enter_context(Pipe())
        os.write(pipe.writing, GOOD)
        fuzzed.send(b"P", [pipe.reading] * 3)
        assert fuzzed.probed() == Probed(-1, 0, errno.EINVAL, "j")
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        fuzzed.send(b"P", [theirs.fileno()] * 3)
        assert fuzzed.probed() == Probed(-1, 0, errno.EINVAL, "j")
