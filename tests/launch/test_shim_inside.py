"""The shim as the init of a sandbox and of a container: by path, with their environment, beside hostile programs."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.launch.shim.locate import shim_path
from tests.conftest import need_image
from tests.launch.shim_client import CHILDREN, KILLED, Pipe, Probed, Shim, python

BINARY = str(shim_path())
CAT = shutil.which("cat") or "/bin/cat"
SH = shutil.which("sh") or "/bin/sh"
ENV = shutil.which("env") or "/usr/bin/env"
ROOT = os.geteuid() == 0
STRANGER = 1 << 30
PYTHON_IMAGE = "python:3.13-slim-trixie"

needs_root = pytest.mark.skipif(not ROOT, reason="only root can change the user")


# ---- by path


def test_connects_to_a_path(tmp_path: Path) -> None:
    with Shim(BINARY, listen=tmp_path / "socket") as shim:
        (tmp_path / "socket").unlink()
        assert shim.output(["echo", "fine"])[0] == b"fine\n"
        if ROOT:
            assert len(list(Path(f"/proc/{shim.process.pid}/fd").iterdir())) == 5
        shim.socket.close()
        assert shim.process.wait(5) == 0


def test_connects_to_a_relative_path(tmp_path: Path) -> None:
    wrap = [SH, "-c", 'cd "${2%/*}" && exec "$1" ./socket', "sh"]
    with Shim(BINARY, wrap=lambda command: [*wrap, *command], listen=tmp_path / "socket") as shim:
        assert shim.output(["echo", "fine"])[0] == b"fine\n"


def test_path_with_closed_standard_streams(tmp_path: Path) -> None:
    wrap = [SH, "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"]
    with Shim(BINARY, wrap=lambda command: [*wrap, *command], listen=tmp_path / "socket") as shim:
        assert shim.output(["echo", "fine"])[0] == b"fine\n"
        assert shim.probe(["true"]) == Probed(0, 0)


def test_nobody_listens(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, number in (
        (tmp_path / "gone", errno.ENOENT),
        (tmp_path / "file", errno.ECONNREFUSED),
        (tmp_path / "file" / "below", errno.ENOTDIR),
        (tmp_path / ("x" * 120), errno.ENAMETOOLONG),
    ):
        done = subprocess.run([BINARY, str(path)], capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 1
        assert done.stderr == f"connector-shim: {path}: {os.strerror(number)}\n"


# ---- the environment it has


def environment(output: bytes) -> dict[str, str]:
    pairs = [os.fsdecode(pair).partition("=") for pair in output.split(b"\0")[:-1]]
    assert len({name for name, _, _ in pairs}) == len(pairs)  # none comes twice
    return {name: value for name, _, value in pairs}


def test_variables_over_its_own() -> None:
    own = {f"OWN_{number}": "x" * (number % 50) for number in range(1500)} | {"A": "1", "AB": "2", "EMPTY": "3"}
    with Shim(BINARY, env=own) as shim:
        for env in (
            {},
            {"A": "new", "EMPTY": "", "MORE": "a=b"},
            {f"OWN_{number}": "other" for number in range(0, 3000, 2)},
            {"OWN": "1", "OWN_": "2", "B": "3"},  # beginnings of names are other names
        ):
            assert environment(shim.output([ENV, "-0"], env=env, flags=1)[0]) == own | env
            assert environment(shim.output([ENV, "-0"], env=env)[0]) == env


def test_odd_environments_of_its_own() -> None:
    """The kernel takes any strings for an environment."""
    source = (
        "import ctypes, sys\n"
        "strings = lambda *of: (ctypes.c_char_p * (len(of) + 1))(*of, None)\n"
        "ctypes.CDLL(None).execve(sys.argv[1].encode(), strings(*(a.encode() for a in sys.argv[1:])),"
        " strings(b'NOTHING', b'A=1', b'', b'=x', b'A=2', b'B=3'))"
    )
    with Shim(BINARY, wrap=lambda command: python(source, *command)) as shim:
        copy = [CAT, "/proc/self/environ"]
        assert shim.output(copy, env={"B": "4"}, flags=1)[0] == b"B=4\0NOTHING\0A=1\0\0=x\0A=2\0"
        assert shim.output(copy, env={"A": "4", "NOTHING": ""}, flags=1)[0] == b"A=4\0NOTHING=\0NOTHING\0\0=x\0B=3\0"


def test_path_of_the_resulting_environment(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "connector-test-tool").write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name / "connector-test-tool").chmod(0o755)
    with Shim(BINARY, env={"PATH": str(tmp_path / "theirs")}) as shim:
        tool = ["connector-test-tool"]
        assert shim.output(tool, env={}, flags=1)[0] == b"theirs\n"
        assert shim.output(tool, env={"PATH": str(tmp_path / "ours")}, flags=1)[0] == b"ours\n"
        shim.send_probe(tool, env={"PATH": ""}, flags=1)
        assert shim.probed().stage == "x"
        shim.send_start(tool, env={})
        assert shim.failed() == (errno.ENOENT, "x")


def test_environment_that_is_too_long() -> None:
    with Shim(BINARY, env={"A": "1"}) as shim:
        for flags in (0, 1):
            shim.send_start(["true"], env={"LONG": "x" * (1 << 18)}, flags=flags)
            assert shim.failed() == (errno.E2BIG, "x")


# ---- as the init of a sandbox and of a container

ATTACKS = (CHILDREN / "shim_attacks.py").read_text()
NEEDS_NO_SECCOMP = {"steal_descriptor", "copy_memory", "trace", "attach"}  # an engine's own profile may refuse them
ATTEMPTS = NEEDS_NO_SECCOMP | {"list_descriptors", "read_memory", "write_memory", "read_environment", "read_maps"}
ATTEMPTS |= {"stop", "end"}


@dataclass(frozen=True, slots=True)
class Inside:
    """A shim that is PID 1 somewhere, and a Python that is there."""

    shim: Shim
    python: str
    home: str
    name: str = ""

    def attempts(self, of: str) -> set[str]:
        """Which attempts against process `of` succeed."""
        output, ended = self.shim.output([self.python, "-I", "-S", "-c", ATTACKS, of], flags=1, folder="")
        assert ended.code == 0
        return set(output.decode().split())

    def run(self, source: str) -> bytes:
        return self.shim.output([self.python, "-I", "-S", "-c", source], flags=1, folder="")[0]


def visible_python(uid: int) -> str:
    """A Python that user `uid` may execute."""
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run([path, "-c", ""], user=uid, extra_groups=[], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    pytest.skip("there is no Python that a stranger may execute")


def sandbox(bwrap: str, uid: int) -> Callable[[list[str]], list[str]]:
    """The shim as PID 1 of bubblewrap, handed in as a descriptor, as in the home `sandbox`."""
    options = "--unshare-all --die-with-parent --new-session --as-pid-1 --cap-drop ALL --ro-bind / / --proc /proc"
    source = (
        "import os, sys\n"
        "binary = os.open(sys.argv[1], os.O_RDONLY)\n"
        "os.set_inheritable(binary, True)\n"
        f"if {uid} != os.geteuid(): os.setgroups([]); os.setresgid(*[{uid}] * 3); os.setresuid(*[{uid}] * 3)\n"
        f"options = {options.split()} + ['--dev', '/dev', '--tmpfs', '/tmp', '--chdir', '/usr']\n"
        f"os.execv({bwrap!r}, ['bwrap', *options, '--', f'/proc/self/fd/{{binary}}', sys.argv[2]])"
    )
    return lambda command: python(source, *command)


@contextmanager
def container(folder: Path, image: str, *options: str) -> Iterator[tuple[Shim, str]]:
    """The shim as PID 1 of a container, by path, as in the home `container`; gives the container's name as well."""
    name = f"connector-test-{secrets.token_hex(6)}"
    run = folder / "run"
    run.mkdir(mode=0o755)
    start = ["docker", "run", "--rm", "--name", name, "--pull", "never", "--log-driver", "none", "--network", "none"]
    mounts = ["-v", f"{BINARY}:/.connector/shim:ro", "-v", f"{run}:/.connector/run:ro"]
    command = [*start, *mounts, *options, "--entrypoint", "/.connector/shim", image, "/.connector/run/socket"]
    try:
        with Shim(BINARY, wrap=lambda _: command, listen=run / "socket", stdin=subprocess.DEVNULL) as shim:
            (run / "socket").unlink()
            yield shim, name
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False, timeout=60)


HARDENED = "--user 12345:12345 --cap-drop ALL --security-opt no-new-privileges --read-only --ipc none --pids-limit 64"


@pytest.fixture(
    params=[
        "sandbox",
        pytest.param("sandbox of a stranger", marks=needs_root),
        pytest.param("container", marks=pytest.mark.engine),
        pytest.param("hardened container", marks=pytest.mark.engine),
    ]
)
def inside(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inside]:
    home = str(request.param)
    if "sandbox" in home:
        uid = STRANGER if "stranger" in home else os.geteuid()
        with Shim(BINARY, wrap=sandbox(request.getfixturevalue("bubblewrap"), uid), env={"OWN": "1"}) as shim:
            yield Inside(shim, visible_python(uid), home)
    else:
        request.getfixturevalue("engine")
        options = HARDENED.split() if "hardened" in home else []
        options += ["--env", "OWN=1", "--workdir", "/usr"]
        with container(tmp_path, need_image(PYTHON_IMAGE), *options) as (shim, name):
            yield Inside(shim, "python3", home, name)


def test_is_init_and_hands_on_what_it_has(inside: Inside) -> None:
    show = "import os; print(os.getppid(), os.getcwd(), os.environ['OWN'], os.getpid() == os.getsid(0))"
    assert inside.run(show) == b"1 /usr 1 True\n"
    for code in range(20):  # in place
        inside.shim.start(["sh", "-c", f"sleep 1000 & exit {code}"], flags=1, folder="")
        assert inside.shim.ended().code == code
        assert inside.shim.probe(["sh", "-c", "sleep 1000 & exit 3"], flags=1, folder="") == Probed(3, 0)
        assert inside.shim.kill() in (1, 2)  # the program's, and the probe's if it was not reaped yet


def test_attempts_work(inside: Inside) -> None:
    """Against a process that nothing protects; else the next test would show nothing."""
    assert inside.attempts("own") >= (ATTEMPTS - NEEDS_NO_SECCOMP if inside.name else ATTEMPTS)


def test_hostile_program_cannot_touch_the_shim(inside: Inside) -> None:
    assert inside.attempts("1") == set()
    assert inside.run("print('as before')") == b"as before\n"
    assert inside.shim.probe(["connector-probe", "file", "/"]) == Probed(0, 0)
    assert inside.shim.kill() == 0


def test_hostile_program_cannot_fake_a_stop(inside: Inside) -> None:
    """By kill, and by a signal with forged information; a stop that comes from outside is heard all the same."""
    forge = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
refused = 0
for number in (1, 2, 15):
    os.kill(1, number)
    for code in (-1, -2, -3, -4, -5, -60, 0, 1, 0x80):
        information = (ctypes.c_int * 32)(number, 0, code)  # si_pid is 0, as of a sender outside
        refused += libc.syscall({syscall}, 1, number, ctypes.byref(information)) != 0
print(refused)
""".replace("{syscall}", {"x86_64": "129", "aarch64": "138"}[os.uname().machine])
    assert int(inside.run(forge)) == 9  # the three codes that only a kernel may use
    if inside.name:
        subprocess.run(["docker", "kill", "--signal", "TERM", inside.name], check=True, capture_output=True)
    else:
        os.kill(init_of(inside.shim.process.pid), signal.SIGTERM)
    assert inside.shim.asked() == signal.SIGTERM


def init_of(bwrap: int) -> int:
    """The sandbox's PID 1 as it is seen from outside."""
    (child,) = Path(f"/proc/{bwrap}/task/{bwrap}/children").read_text().split()
    assert Path(f"/proc/{child}/status").read_text().count("\nNSpid:\t" + child + "\t1\n") == 1
    return int(child)


def test_everything_inside_dies_with_the_socket(inside: Inside) -> None:
    source = "import os, time\nif os.fork() == 0: os.setsid(); os.fork()\nprint(1, flush=True)\ntime.sleep(99)"
    with Pipe() as out:
        for request in (inside.shim.send_start, inside.shim.send_probe):
            request([inside.python, "-I", "-S", "-c", source], {1: out.writing}, flags=1, folder="")
        out.close_writing()
        assert [out.read_line() for _ in range(6)] == [b"1"] * 6  # three of the program and three of the probe
        inside.shim.socket.close()
        assert out.read_all(within_s=5) == b""
    assert inside.shim.process.wait(20) == 0


def test_checks_from_inside(inside: Inside) -> None:
    """Of a listener that can be reached from nowhere else."""
    serve = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 8080))
print("listens", flush=True)
while True:
    with listener.accept()[0] as connection:
        if connection.recv(1000).startswith(b"GET /well "):
            connection.send(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
"""
    check = inside.shim.probe
    assert check(["connector-probe", "tcp", "localhost:8080"]) == Probed(1, 0)
    with Pipe() as out:
        inside.shim.start([inside.python, "-I", "-c", serve], {1: out.writing}, flags=1, folder="")
        out.close_writing()
        assert out.read_line() == b"listens"
        assert check(["connector-probe", "tcp", "localhost:8080"]) == Probed(0, 0)
        assert check(["connector-probe", "http", "http://127.0.0.1:8080/well"]) == Probed(0, 0)
        assert check(["connector-probe", "http", "http://127.0.0.1:8080/ill"]) == Probed(1, 0)
        assert check(["connector-probe", "file", "/.connector/none"]) == Probed(1, 0)
        inside.shim.send(b"K")
        assert inside.shim.ended().signal == signal.SIGKILL
        assert inside.shim.gone() == 1


# ---- where there is next to nothing


@pytest.fixture(scope="module")
def empty_image(engine: str) -> Iterator[str]:
    """As FROM scratch, with nothing in it."""
    name = f"connector-test-empty:{secrets.token_hex(6)}"
    archive = io.BytesIO()
    tarfile.open(fileobj=archive, mode="w").close()
    subprocess.run(["docker", "import", "-", name], input=archive.getvalue(), check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rmi", name], check=True, capture_output=True)


@pytest.mark.engine
def test_image_with_nothing_in_it(empty_image: str, tmp_path: Path) -> None:
    with container(tmp_path, empty_image, *HARDENED.split()) as (shim, _), Pipe() as out:
        shim.start(["/.connector/shim"], {2: out.writing}, flags=1, folder="")  # the one program that there is
        out.close_writing()
        assert out.read_all().startswith(b"usage: ")
        assert shim.ended().code == 2
        shim.send_start(["sh"], flags=1, folder="")
        assert shim.failed() == (errno.ENOENT, "x")
        assert shim.probe(["connector-probe", "file", "/.connector/shim"]) == Probed(0, 0)
        assert shim.probe(["connector-probe", "file", "/bin"]) == Probed(1, 0)
        assert shim.probe(["connector-probe", "tcp", "localhost:80"]) == Probed(1, 0)
        assert shim.kill() == 0


def test_sandbox_without_proc_and_dev(bubblewrap: str) -> None:
    """The kernel still finds everything for PID 1, and a probe's group can be killed."""
    options = ["--unshare-all", "--as-pid-1", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--tmpfs", "/proc"]
    wrap = [SH, "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", bubblewrap, *options, "--tmpfs", "/dev"]
    with Shim(BINARY, wrap=lambda command: [*wrap, *command]) as shim, Pipe() as out, Pipe() as probe_out:
        shim.start([SH, "-c", "echo fine >&7"], {7: out.writing})
        assert shim.ended().code == 0
        assert out.read_line() == b"fine"
        fork = [SH, "-c", "echo began; sleep 99; true"]
        shim.send_start(fork, {1: out.writing})
        shim.began()
        shim.send_probe(fork, {1: probe_out.writing})
        for pipe in (out, probe_out):
            pipe.close_writing()
            assert pipe.read_line() == b"began"
        shim.send(b"k")
        assert shim.probed() == KILLED
        assert probe_out.read_all(within_s=5) == b""
        shim.send(b"K")
        assert shim.ended().signal == signal.SIGKILL
        assert shim.gone() >= 2  # and what is left of the probe's
        assert out.read_all(within_s=5) == b""


@pytest.mark.engine
def test_what_was_injected_dies_too(engine: str, tmp_path: Path) -> None:
    with container(tmp_path, need_image(PYTHON_IMAGE)) as (shim, name):
        command = ["docker", "exec", name, "sh", "-c", "echo there; sleep 1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as injected:
            assert injected.stdout is not None
            assert injected.stdout.readline() == b"there\n"
            shim.send(b"K")
            shim.gone()
            assert injected.wait(20) == 137
