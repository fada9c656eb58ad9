"""The shim by itself: a real socket, real children, against PROTOCOL.md."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.launch.shim.build import BuildError, build
from runner.launch.shim.locate import shim_path
from tests.launch.shim_client import Pipe, Shim, child, encode_job, memfd, python, wait_readable, watching

BINARY = str(shim_path())
NOBODY = 65534
CAT = shutil.which("cat") or "/bin/cat"
SH = shutil.which("sh") or "/bin/sh"
ROOT = os.geteuid() == 0
HIDING = ["session", "double-fork", "deaf", "deep", "thread", "vfork", "stopped"]

needs_root = pytest.mark.skipif(not ROOT, reason="only root can change the user")


@pytest.fixture
def shim() -> Iterator[Shim]:
    with Shim(BINARY) as running:
        yield running


def in_pid_namespace(command: list[str]) -> list[str]:
    """Makes the shim PID 1."""
    user = [] if ROOT else ["--user", "--map-root-user"]
    return ["unshare", *user, "--fork", "--pid", *command]


@pytest.fixture(params=["children", "scan", "pid1"])
def any_shim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shim]:
    """The shim with each of its ways to find descendants."""
    binary = BINARY
    wrap: Callable[[list[str]], list[str]] = list
    if request.param == "scan":
        try:
            folder = tmp_path_factory.getbasetemp() / "scan"
            binary = str(build(platform.machine(), folder, defines=('-DCHILDREN_FILE="not-there"',)))
        except BuildError as error:
            pytest.skip(f"no compiler for the variant that scans /proc: {error}")
    if request.param == "pid1":
        wrap = in_pid_namespace
        if subprocess.run(wrap(["true"]), capture_output=True, check=False).returncode != 0:
            pytest.skip("this machine lets us make no PID namespace")
    with Shim(binary, wrap=wrap) as running:
        yield running


def open_descriptors(shim: Shim) -> int:
    """How many the shim itself has; only root may see that, as it is not dumpable."""
    return len(list(Path(f"/proc/{shim.process.pid}/fd").iterdir()))


def start_reader(shim: Shim, to: Pipe, **job: int) -> int:
    """A program that lives until `to` ends."""
    with Path(os.devnull).open("r+b") as null:
        return shim.start([CAT], {0: to.reading, 1: null.fileno(), 2: null.fileno()}, **job)


@contextmanager
def tree(shim: Shim, kind: str, out: Pipe) -> Iterator[list[int]]:
    """A program that hides descendants; gives all its pids, as seen in its own namespace."""
    with Path(os.devnull).open("r+b") as null:
        pid = shim.start(child("shim_tree.py", kind), {0: null.fileno(), 1: out.writing, 2: null.fileno()})
    out.close_writing()
    pids = [int(word) for word in out.read_line().split()]
    assert pids[0] == pid
    yield pids


# ---- start and end


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code(shim: Shim, code: int) -> None:
    shim.start([SH, "-c", f"exit {code}"])
    ended = shim.ended()
    assert (ended.code, ended.signal) == (code, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_end_by_signal(shim: Shim, number: int) -> None:
    shim.start([SH, "-c", f"kill -{number} $$"])
    ended = shim.ended()
    assert (ended.code, ended.signal) == (-1, number)


def test_usage(shim: Shim) -> None:
    busy = "import time\nkept = b'x' * (60 << 20)\nwhile time.process_time() < 0.3: pass\nprint(len(kept))"
    ended = shim.output(python(busy))[1]
    assert 250_000 <= ended.user_us + ended.system_us < 20_000_000
    assert 60 * 1024 <= ended.resident_kib < 1024 * 1024


def test_pid_is_the_programs_own(shim: Shim) -> None:
    with Pipe() as out:
        pid = shim.start([SH, "-c", "echo $$"], {1: out.writing})
        assert int(out.read_line()) == pid


def test_restart_in_place(shim: Shim) -> None:
    """100 runs, with and without a kill between, leave no descriptor behind."""
    for run in range(100):
        shim.start([SH, "-c", f"exit {run}"])
        assert shim.ended().code == run
        if run % 2:
            assert shim.kill() == 0
    shim.start([CAT, "/nowhere"])
    assert shim.ended().code == 1
    if ROOT:
        assert open_descriptors(shim) == 5  # 0, 1, 2, the socket, the signalfd


def test_second_start_while_running(shim: Shim) -> None:
    with Pipe() as to, Pipe() as out:
        shim.start([CAT], {0: to.reading, 1: out.writing})
        shim.send_start(["true"])
        assert shim.failed() == (errno.EBUSY, "b")
        os.write(to.writing, b"still there\n")
        assert out.read_line() == b"still there"
        to.close_writing()
        assert shim.ended().code == 0


# ---- what the program finds


def test_ports_at_their_numbers(shim: Shim) -> None:
    """0 to 9 in many orders: the shim receives them at low numbers, so most targets are another port's number."""
    shuffle = random.Random(1).shuffle
    orders = [list(range(9, -1, -1)), list(range(10))]
    for _ in range(20):
        orders.append(list(range(10)))
        shuffle(orders[-1])
    say = "import os\nfor n in range(10): os.write(n, b'%d\\n' % n)"
    for targets in orders:
        with ExitStack() as stack:
            pipes = {target: stack.enter_context(Pipe()) for target in targets}
            shim.start(python(say), {target: pipe.writing for target, pipe in pipes.items()})
            for target, pipe in pipes.items():
                pipe.close_writing()
                assert pipe.read_all() == b"%d\n" % target
        assert shim.ended().code == 0


def test_one_descriptor_at_several_ports(shim: Shim) -> None:
    with Pipe() as out:
        shim.start([SH, "-c", "echo one; echo two >&2; echo three >&7"], dict.fromkeys((1, 2, 7), out.writing))
        out.close_writing()
        assert out.read_all() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("targets", [(), (0,), (0, 1, 2), (0, 1, 2, 9), (1, 30, 700), (1023,)])
def test_nothing_else_is_open(targets: tuple[int, ...]) -> None:
    """Not even what the shim itself was given by mistake. The exit code counts what should not be."""
    count = f"""
import fcntl, os
found = set()
for number in range(4096):
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
        found.add(number)
    except OSError:
        pass
os._exit(len(found ^ set({list(targets)})))
"""
    with Pipe() as stray, Path(os.devnull).open("r+b") as null, Shim(BINARY, extra=[stray.writing]) as shim:
        stray.close_writing()
        shim.start(python(count), dict.fromkeys(targets, null.fileno()))
        assert shim.ended().code == 0
        assert stray.read_all() == b""  # the shim itself closed it


def test_descriptors_survive_exec_only_as_ports(shim: Shim) -> None:
    """The list that the kernel gives: `ls` adds the folder that it reads."""
    assert shim.output(["ls", "/proc/self/fd"])[0].split() == [b"0", b"1", b"2", b"3"]


def test_closed_standard_streams_of_the_shim() -> None:
    """Else what it receives would land there."""
    wrap = partial(list.__add__, [SH, "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"])
    with Shim(BINARY, wrap=wrap) as shim:
        assert shim.output(["echo", "fine"])[0] == b"fine\n"
        with contextlib.suppress(PermissionError):  # it is not dumpable: only root with all its rights may look
            assert {str(Path(f"/proc/{shim.process.pid}/fd/{n}").readlink()) for n in range(3)} == {os.devnull}


def deaf_first(command: list[str]) -> list[str]:
    """Makes the shim inherit every signal ignored and blocked."""
    source = (
        "import os, signal, sys\n"
        "for n in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return python(source, *command)


@pytest.mark.parametrize("wrap", [list[str], deaf_first])
def test_signals_are_default_and_unmasked(wrap: type[list[str]]) -> None:
    with Shim(BINARY, wrap=wrap) as shim:
        lines = shim.output([CAT, "/proc/self/status"])[0].decode().splitlines()
        shim.start([SH, "-c", "kill -PIPE $$; exit 3"])
        assert shim.ended().signal == signal.SIGPIPE
    masks = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
    assert {int(masks[name], 16) for name in ("SigPnd", "SigBlk", "SigIgn", "SigCgt")} == {0}


def test_session_of_its_own(shim: Shim) -> None:
    out = shim.output(python("import os\nprint(os.getpid(), os.getsid(0), os.getpgrp(), os.getppid())"))[0]
    pid, session, group, parent = map(int, out.split())
    assert pid == session == group
    assert parent == shim.process.pid
    assert os.getsid(shim.process.pid) == shim.process.pid  # the terminal's Ctrl-C does not reach it


def test_environment_is_exact(shim: Shim) -> None:
    for env in ({}, {"A": "1"}, {"PATH": "/usr/bin:/bin", "EMPTY": "", "LINES": "a\nb", "EQUALS": "a=b=c", "ü": "ß"}):
        out = shim.output([shutil.which("env") or "/usr/bin/env", "-0"], env=env)[0]
        assert sorted(out.split(b"\0")[:-1]) == sorted(os.fsencode(f"{name}={value}") for name, value in env.items())


def test_arguments_are_exact(shim: Shim) -> None:
    arguments: list[str | bytes] = ["", " ", "a b", "new\nline", "'\"$HOME`", "ü", b"\xff\xfe", "x" * 100_000]
    assert shim.output(["printf", "%s\\0", *arguments])[0].split(b"\0")[:-1] == [
        os.fsencode(argument) for argument in arguments
    ]


def test_folder(shim: Shim, tmp_path: Path) -> None:
    out = shim.output(python("import os\nprint(os.getcwd())"), folder=str(tmp_path))[0]
    assert out.decode().strip() == str(tmp_path.resolve())
    with Shim(BINARY, cwd=tmp_path) as elsewhere:
        assert elsewhere.output(python("import os\nprint(os.getcwd())"), folder="")[0] == out


def test_limits(shim: Shim) -> None:
    limits = {resource.RLIMIT_NOFILE: 77, resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 2**40}
    show = f"import resource\nfor n in {list(limits)}: print(*resource.getrlimit(n))"
    out = shim.output(python(show), limits=limits)[0]
    assert [tuple(map(int, line.split())) for line in out.splitlines()] == [(n, n) for n in limits.values()]
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard == resource.RLIM_INFINITY:
        show = "import resource\nprint(*resource.getrlimit(resource.RLIMIT_CPU))"
        out = shim.output(python(show), limits={resource.RLIMIT_CPU: 2**64 - 1})[0]
        assert out.split() == [b"-1", b"-1"]


@needs_root
def test_user(shim: Shim) -> None:
    for uid, gid in ((NOBODY, NOBODY - 1), (NOBODY, -1), (-1, NOBODY)):
        text = shim.output([CAT, "/proc/self/status"], uid=uid, gid=gid)[0].decode()
        status = dict(line.split(":", 1) for line in text.splitlines())
        assert status["Uid"].split() == [str(max(uid, 0))] * 4
        assert status["Gid"].split() == [str(max(gid, 0))] * 4
        assert status["Groups"].split() == []
        if uid == NOBODY:
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


@needs_root
def test_groups_of_the_shim_are_not_the_programs() -> None:
    """But they are when it keeps the shim's user."""
    join = "import os, sys\nos.setgroups([7, 8])\nos.execv(sys.argv[1], sys.argv[1:])"
    with Shim(BINARY, wrap=lambda command: python(join, *command)) as shim:
        for ids, groups in (({"uid": NOBODY}, b""), ({"gid": NOBODY}, b""), ({}, b"7 8")):
            status = shim.output([CAT, "/proc/self/status"], **ids)[0]
            assert b"\nGroups:\t" + groups + b" \n" in status


# ---- what cannot be started


def test_program_that_is_not_there(shim: Shim) -> None:
    shim.send_start(["no-such-program-anywhere"])
    assert shim.failed() == (errno.ENOENT, "x")
    shim.send_start(["/no/such/program"])
    assert shim.failed() == (errno.ENOENT, "x")
    shim.send_start([""])
    assert shim.failed() == (errno.ENOENT, "x")
    assert shim.kill() == 0
    shim.start(["true"])
    assert shim.ended().code == 0


def test_files_that_cannot_be_executed(shim: Shim, tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_text("no first line\n")
    file.chmod(0o644)
    shim.send_start([str(file)])
    assert shim.failed() == (errno.EACCES, "x")
    file.chmod(0o755)
    shim.send_start([str(file)])
    assert shim.failed() == (errno.ENOEXEC, "x")
    shim.send_start(["program"], env={"PATH": str(tmp_path)})  # execvp would hand it to a shell here
    assert shim.failed() == (errno.ENOEXEC, "x")
    file.write_text("#!/no/such/interpreter\n")
    shim.send_start([str(file)])
    assert shim.failed() == (errno.ENOENT, "x")
    shim.send_start([str(tmp_path)])
    assert shim.failed() == (errno.EACCES, "x")
    shim.send_start([str(file / "below")])
    assert shim.failed() == (errno.ENOTDIR, "x")
    shim.send_start(["true"], env={"PATH": "/usr/bin:/bin", "LONG": "x" * (1 << 18)})
    assert shim.failed() == (errno.E2BIG, "x")


def test_folder_that_cannot_be_entered(shim: Shim, tmp_path: Path) -> None:
    for folder, number in ((tmp_path / "gone", errno.ENOENT), (Path(os.devnull), errno.ENOTDIR)):
        shim.send_start(["true"], folder=str(folder))
        assert shim.failed() == (number, "c")


def test_limit_that_is_refused(shim: Shim) -> None:
    shim.send_start(["true"], limits={resource.RLIMIT_NOFILE: 1 << 40})  # above fs.nr_open, also for root
    assert shim.failed() == (errno.EPERM, "l")


def test_port_that_has_no_place() -> None:
    wrap = partial(list.__add__, [SH, "-c", 'ulimit -n 64; exec "$@"', "sh"])
    with Shim(BINARY, wrap=wrap) as shim, Path(os.devnull).open("r+b") as null:
        shim.send_start(["true"], {100: null.fileno()})
        assert shim.failed() == (errno.EINVAL, "p")


def as_nobody(command: list[str], before: str = "") -> list[str]:
    """Runs the shim as another user, by a descriptor, as its file may lie where that user cannot go."""
    source = (
        "import os, resource, sys\n"
        "binary = os.open(sys.argv[1], os.O_RDONLY | os.O_CLOEXEC)\n"
        f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
        f"{before}\n"
        "os.execve(binary, sys.argv[1:], {})"
    )
    return python(source, *command)


@needs_root
def test_user_that_is_refused() -> None:
    with Shim(BINARY, wrap=as_nobody) as shim:
        shim.send_start(["true"], uid=0)
        assert shim.failed() == (errno.EPERM, "u")
        shim.send_start(["true"], gid=0)
        assert shim.failed() == (errno.EPERM, "u")


@needs_root
def test_no_process_left() -> None:
    wrap = partial(as_nobody, before="resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))")
    with Shim(BINARY, wrap=wrap) as shim:
        shim.send_start(["true"])
        assert shim.failed() == (errno.EAGAIN, "f")
        assert shim.kill() == 0


@needs_root
def test_not_dumpable() -> None:
    """What is not dumpable belongs to root in /proc, so its own user cannot trace it or take its descriptors."""
    with Shim(BINARY, wrap=as_nobody) as shim:
        shim.start(["true"])
        assert shim.ended().code == 0
        assert Path(f"/proc/{shim.process.pid}/environ").stat().st_uid == 0
        assert f"Uid:\t{NOBODY}" in Path(f"/proc/{shim.process.pid}/status").read_text()


# ---- PATH


def tool(folder: Path, text: str, mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "connector-test-tool"
    path.write_text(f"#!/bin/sh\necho {text}\n")
    path.chmod(mode)
    return folder


def test_path_of_the_job(tmp_path: Path) -> None:
    ours = tool(tmp_path / "ours", "ours")
    theirs, denied = tool(tmp_path / "theirs", "theirs"), tool(tmp_path / "denied", "denied", 0o644)
    name = "connector-test-tool"
    with Shim(BINARY, env={"PATH": str(theirs)}) as shim:
        for path in (f"{ours}:{theirs}", f"/nowhere:{ours}", f"{os.devnull}:{ours}", f"{denied}:{ours}"):
            assert shim.output([name], env={"PATH": path})[0] == b"ours\n"
        for path in (f":{theirs}", f"{denied}::", "."):  # an empty part is the current folder
            assert shim.output([name], env={"PATH": path}, folder=str(ours))[0] == b"ours\n"
        for env, number in (
            ({}, errno.ENOENT),  # not in the shim's PATH either
            ({"PATH": f"{denied}:/nowhere"}, errno.EACCES),
            ({"PATH": "/nowhere:/bin"}, errno.ENOENT),
            ({"PATH": "/" + "x" * 5000}, errno.ENOENT),
        ):
            shim.send_start([name], env=env)
            assert shim.failed() == (number, "x")
        assert shim.output(["sh", "-c", "echo standard"], env={})[0] == b"standard\n"


# ---- signals


def test_signal_reaches_the_group_only(shim: Shim) -> None:
    with (
        Pipe() as out,
        tree(shim, "group", out) as pids,
        watching(pids[:2]) as members_left,
        watching(pids[2:]) as others_left,
    ):
        shim.signal(signal.SIGKILL)
        assert shim.ended().signal == signal.SIGKILL
        assert members_left(5) == []
        assert others_left(0) == pids[2:]
        assert shim.kill() in (1, 2)  # the member may be reaped late, and then counts as killed


def test_signal_after_the_end_is_harmless(shim: Shim) -> None:
    shim.signal(signal.SIGKILL)
    with Pipe() as out, tree(shim, "group", out) as pids, watching(pids[1:]) as left:
        os.kill(pids[0], signal.SIGKILL)  # the program alone: its group lives on
        assert shim.ended().signal == signal.SIGKILL
        shim.signal(signal.SIGKILL)
        assert shim.kill() == 2
        assert left(5) == []
    for number in (0, 65, 2**31 - 1, 2**31, 2**32 - 1):
        shim.signal(number)
    shim.start([SH, "-c", "exit 4"])
    assert shim.ended().code == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_stop(shim: Shim, number: int) -> None:
    with Pipe() as to, Pipe() as out:
        shim.start([CAT], {0: to.reading, 1: out.writing})
        os.kill(shim.process.pid, number)
        assert shim.asked() == number
        os.write(to.writing, b"alive\n")
        assert out.read_line() == b"alive"
        to.close_writing()
        assert shim.ended().code == 0


def test_flood_of_stop_requests_hides_nothing(shim: Shim) -> None:
    """Unread, they would fill the socket, and the end of the program would find no room."""
    with Pipe() as to:
        start_reader(shim, to)
        for _ in range(20_000):  # many are merged into one
            os.kill(shim.process.pid, signal.SIGTERM)
            os.kill(shim.process.pid, signal.SIGINT)
        to.close_writing()
        while (packet := shim.receive())[:1] == b"R":
            pass
        assert packet[:1] == b"X"


def test_other_signals_do_not_end_the_shim(shim: Shim) -> None:
    assert shim.kill() == 0  # its answer says that it has set itself up
    for number in set(range(1, 65)) - {9, 19, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
        os.kill(shim.process.pid, number)
    shim.start([SH, "-c", "exit 6"])
    assert shim.ended().code == 6


# ---- killing


def right_count(count: int, kind: str, pids: int) -> bool:
    """The kernel reaps for a parent that ignores SIGCHLD, and tells nobody: then the count may be low."""
    return count == pids or (kind in ("deaf", "deep") and 0 < count <= pids)


@pytest.mark.parametrize("kind", HIDING)
def test_kill_reaches(any_shim: Shim, kind: str) -> None:
    with Pipe() as out, tree(any_shim, kind, out) as pids:
        any_shim.send(b"K")
        assert any_shim.ended().signal == signal.SIGKILL
        assert right_count(any_shim.gone(), kind, len(pids))
        assert out.read_all() == b""  # every one of them had it
        assert any_shim.output(["echo", "again"])[0] == b"again\n"


@pytest.mark.parametrize("kind", HIDING)
def test_descendants_of_an_ended_program(any_shim: Shim, kind: str) -> None:
    with Pipe() as out, tree(any_shim, kind, out) as pids:
        any_shim.signal(signal.SIGKILL)
        assert any_shim.ended().signal == signal.SIGKILL
        assert right_count(any_shim.kill(), kind, len(pids) - 1)
        assert out.read_all() == b""


@pytest.mark.parametrize("kind", HIDING)
def test_closed_socket_leaves_no_survivor(any_shim: Shim, kind: str) -> None:
    with Pipe() as out, tree(any_shim, kind, out):
        any_shim.socket.close()
        assert out.read_all(within_s=1) == b""
        assert any_shim.process.wait(1) == 0


@pytest.mark.parametrize("kind", ["tree", "chain"])
def test_kill_outruns_forks(any_shim: Shim, kind: str) -> None:
    """Bounded by what is in the pipe; everything that was ever forked holds `out`."""
    with Pipe() as tokens, Pipe() as out, ExitStack() as stack:
        null = stack.enter_context(Path(os.devnull).open("r+b"))
        os.set_blocking(tokens.writing, False)
        os.write(tokens.writing, b"." * 50 + b"!" + b"." * 1000)
        tokens.close_writing()
        any_shim.start(child("shim_forks.py", kind), {0: tokens.reading, 1: out.writing, 2: null.fileno()})
        out.close_writing()
        assert out.read_line() == b"forking"
        any_shim.send(b"K")
        any_shim.ended()
        any_shim.gone()
        assert out.read_all(within_s=1) == b""


def test_killed_program_is_told_before_the_rest(shim: Shim) -> None:
    for _ in range(50):
        shim.start(["true"])  # ends by itself, or is killed first
        shim.send(b"K")
        shim.ended()
        assert shim.gone() in (0, 1)


def test_each_kill_has_its_answer(shim: Shim) -> None:
    with Pipe() as out, tree(shim, "session", out) as pids:
        for _ in range(3):
            shim.send(b"K")
        shim.ended()
        assert shim.gone() == len(pids)
        assert {shim.gone(), shim.gone()} <= {0, len(pids)}  # 0 when the kill before was over already
    assert shim.kill() == 0


def test_start_while_killing_is_refused(shim: Shim) -> None:
    """Or the kill is over before the request is read; then the program runs."""
    with Pipe() as out, tree(shim, "deep", out):
        shim.send(b"K")
        shim.send_start(["true"])
        kinds = [shim.receive()[:1] for _ in range(3)]
    assert kinds in ([b"X", b"G", b"B"], [b"F", b"X", b"G"], [b"X", b"F", b"G"])
    if kinds[2] == b"B":
        shim.ended()


def test_program_dies_with_the_shim() -> None:
    with Shim(BINARY) as shim, Pipe() as to:
        pid = start_reader(shim, to)
        with watching([pid]) as left:
            shim.process.kill()
            assert left(5) == []


@needs_root
def test_program_of_another_user_dies_with_the_shim() -> None:
    """A change of user clears the parent-death signal."""
    with Shim(BINARY) as shim, Pipe() as to:
        pid = start_reader(shim, to, uid=NOBODY, gid=NOBODY)
        with watching([pid]) as left:
            shim.process.kill()
            assert left(5) == []


def test_shim_ends_when_idle_and_the_socket_closes(shim: Shim) -> None:
    shim.socket.close()
    assert shim.process.wait(1) == 0


def test_half_closed_socket_counts_as_closed(shim: Shim) -> None:
    shim.start(["sleep", "1000"])
    shim.socket.shutdown(socket.SHUT_WR)
    assert shim.process.wait(1) == 0


def test_shim_whose_descriptors_are_taken_away_ends(shim: Shim) -> None:
    """Any process of its user can do that (prlimit(2)); it must neither hang nor spin, and is as good as killed."""
    with Pipe() as to:
        pid = start_reader(shim, to)
        with watching([pid]) as left:
            resource.prlimit(shim.process.pid, resource.RLIMIT_NOFILE, (0, 0))
            shim.send(b"k")  # wakes it
            assert shim.process.wait(5) == 3
            assert left(5) == []


def test_runner_that_never_reads_is_taken_for_gone() -> None:
    """The alternative would be to lose messages, or to wait for ever."""
    with Shim(BINARY) as shim, Pipe() as to:
        start_reader(shim, to)
        shim.socket.setblocking(False)  # noqa: FBT003
        while shim.process.poll() is None:
            try:
                shim.send(b"S")
            except BlockingIOError:
                wait_readable(to.reading, 0.001)
            except OSError:
                break
        assert shim.process.wait(5) == 0


# ---- malformed requests and jobs

GOOD = encode_job(["true"], targets=[0, 1], env={"A": "b", "PATH": "/usr/bin:/bin"}, limits={resource.RLIMIT_CORE: 0})


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Shim]:
    """One shim for all malformed jobs: it must start a good one afterwards."""
    with Shim(BINARY) as running:
        yield running
        assert running.output(["echo", "well"])[0] == b"well\n"
        if ROOT:
            assert open_descriptors(running) == 5


def refused(shim: Shim, data: bytes, ports: int) -> tuple[int, str]:
    with Path(os.devnull).open("r+b") as null:
        shim.send_job(data, [null.fileno()] * ports)
    return shim.failed()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), ports=st.integers(0, 5))
def test_random_bytes_are_no_job(fuzzed: Shim, data: bytes, ports: int) -> None:
    assert refused(fuzzed, data, ports) == (errno.EINVAL, "j")
    assert refused(fuzzed, GOOD[:4] + data, ports)[1] == "j"


def test_truncated_and_lengthened_jobs(fuzzed: Shim) -> None:
    for size in range(len(GOOD)):
        assert refused(fuzzed, GOOD[:size], 2) == (errno.EINVAL, "j")
    for more in (b"\0", b"x", b"x\0", bytes(1000)):
        assert refused(fuzzed, GOOD + more, 2) == (errno.EINVAL, "j")


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_changed_bytes(fuzzed: Shim, place: int, value: int) -> None:
    """Some changes make another good job; all are answered, and nothing is left."""
    data = GOOD[:place] + bytes([value]) + GOOD[place + 1 :]
    with Path(os.devnull).open("r+b") as null:
        fuzzed.send_job(data, [null.fileno()] * 2)
    kind = fuzzed.receive()[:1]
    assert kind in (b"F", b"B")
    if kind == b"B":
        fuzzed.ended()


def header(**changed: int) -> bytes:
    fields = {"magic": 0x314A4E43, "flags": 0, "uid": -1, "gid": -1, "ports": 2, "limits": 1, "arguments": 1}
    fields |= {"variables": 2} | changed
    return struct.pack("<IIiiIIII", *fields.values()) + GOOD[32:]


@pytest.mark.parametrize(
    "changed",
    [
        {"magic": 0},
        {"flags": 2},
        {"flags": 3},
        {"flags": 2**32 - 1},
        {"uid": -2},
        {"gid": -(2**31)},
        *({name: n} for name in ("ports", "limits", "arguments", "variables") for n in (0, 3, 254, 2**31, 2**32 - 1)),
    ],
)
def test_headers_that_lie(fuzzed: Shim, changed: dict[str, int]) -> None:
    assert refused(fuzzed, header(**changed), 2) == (errno.EINVAL, "j")


@pytest.mark.parametrize("arguments", [0, 2, 3])
def test_missing_strings(fuzzed: Shim, arguments: int) -> None:
    """One more is asked for than there are, with bytes enough for it."""
    data = bytearray(encode_job(["true", "with", "more"], env={}))
    struct.pack_into("<I", data, 24, arguments + 2 if arguments > 1 else arguments)
    assert refused(fuzzed, bytes(data), 0) == (errno.EINVAL, "j")


@pytest.mark.parametrize("targets", [[0, 0], [1, 1024], [2**31, 1], [2**32 - 1, 0]])
def test_bad_targets(fuzzed: Shim, targets: list[int]) -> None:
    assert refused(fuzzed, encode_job(["true"], targets=targets), 2) == (errno.EINVAL, "j")


@pytest.mark.parametrize("limits", [{16: 1}, {2**32 - 1: 1}, dict.fromkeys(range(65), 1)])
def test_bad_limits(fuzzed: Shim, limits: dict[int, int]) -> None:
    assert refused(fuzzed, encode_job(["true"], limits=limits), 0) == (errno.EINVAL, "j")


@pytest.mark.parametrize("name", ["", "="])
def test_variables_without_a_name(fuzzed: Shim, name: str) -> None:
    assert refused(fuzzed, encode_job(["true"], env={name: ""}), 0) == (errno.EINVAL, "j")
    bare = encode_job(["true"], env={"A": "b"}).replace(b"A=b\0", b"A-b\0")
    assert refused(fuzzed, bare, 0) == (errno.EINVAL, "j")


def test_wrong_number_of_descriptors(fuzzed: Shim) -> None:
    for ports in (0, 1, 3, 252):
        assert refused(fuzzed, GOOD, ports) == (errno.EINVAL, "j")


def test_jobs_that_are_no_file(fuzzed: Shim) -> None:
    fuzzed.send(b"S")
    assert fuzzed.failed() == (errno.EINVAL, "j")
    with Pipe() as pipe:
        os.write(pipe.writing, GOOD)
        fuzzed.send(b"S", [pipe.reading, pipe.reading, pipe.reading])
        assert fuzzed.failed() == (errno.EINVAL, "j")
    folder = os.open("/", os.O_RDONLY)
    fuzzed.send(b"S", [folder, folder, folder])
    os.close(folder)
    assert fuzzed.failed() == (errno.EINVAL, "j")


def test_job_that_is_too_large(fuzzed: Shim) -> None:
    job = memfd(GOOD)
    os.ftruncate(job, 1 << 40)  # sparse
    fuzzed.send(b"S", [job, job, job])
    os.close(job)
    assert fuzzed.failed() == (errno.EINVAL, "j")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packet=st.binary(max_size=40).filter(lambda packet: packet[:1] not in {b"S", b"P"} and packet != b"K"))
def test_unknown_packets_are_passed_over(fuzzed: Shim, packet: bytes) -> None:
    """Also with descriptors, which must not stay open; an empty packet is not the end of the stream."""
    fuzzed.send(packet, [0, 0] if packet else [])
    assert fuzzed.kill() == 0


def test_request_with_a_body_that_it_has_not(fuzzed: Shim) -> None:
    job = memfd(encode_job(["true"]))
    for packet in (b"S\0", b"SS", b"S" * 1000):
        fuzzed.send(packet, [job])
        assert fuzzed.failed() == (errno.EINVAL, "j")
    os.close(job)


@pytest.mark.parametrize("arguments", [[], ["x"], ["-1"], ["3x"], ["99999999999"], ["1000"], ["0", "1"]])
def test_usage_error(arguments: list[str]) -> None:
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: connector-shim WHERE")


def test_stream_socket_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [BINARY, str(theirs.fileno())]
        assert subprocess.run(command, capture_output=True, check=False, pass_fds=[theirs.fileno()]).returncode == 2
