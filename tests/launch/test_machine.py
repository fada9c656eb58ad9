"""The facts of this machine against what it says otherwise, and of machines that lack something, made for real."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pwd
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec import convert, to_builtins
from msgspec.structs import replace

from runner.launch.machine import engine as engines
from runner.launch.machine import gather, gather_for, kernel, tries
from runner.launch.sockets import SocketFolder
from runner.plan.facts import Engine, Facts
from runner.plan.tiers import Tier, judge, requirement
from runner.spec.model import Home, Processor, Trust
from tests.nobody import as_nobody
from tests.plan.machines import SYSTEM

PROJECT = Path(__file__).resolve().parents[2]
SOCKET = "/var/run/docker.sock"
HERE = replace(SYSTEM, kernel=os.uname().release)
GATHER = """
import json, msgspec
from runner.launch.machine import gather
print(json.dumps(msgspec.to_builtins(gather(surroundings=True))))
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def gathered(*before: str, code: str = GATHER, **environment: str) -> dict[str, Any]:
    """What another process finds, started by the words `before`."""
    done = subprocess.run(
        [*before, sys.executable, "-B", "-c", code],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def descriptors() -> list[int]:
    """The open ones of this process."""
    found = []
    for number in map(int, (each.name for each in Path("/proc/self/fd").iterdir())):
        with contextlib.suppress(OSError):  # the one by which this was read
            os.fstat(number)
            found.append(number)
    return sorted(found)


# -- this machine


def test_the_system() -> None:
    found = kernel.system()
    assert found.arch == platform.machine()
    assert found.kernel == platform.release()
    assert found.uid == os.geteuid()
    assert found.user == pwd.getpwuid(os.geteuid()).pw_name
    release = platform.freedesktop_os_release()
    assert found.distribution == (release["ID"], *release.get("ID_LIKE", "").split())


def test_what_bounds_a_run() -> None:
    found = kernel.surroundings()
    assert found.cpus == len(os.sched_getaffinity(0))
    assert found.memory_bytes == psutil.virtual_memory().total
    assert 0 < found.memory_free_bytes < found.memory_bytes
    assert (found.files_soft, found.files_hard) == tuple(
        None if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    assert found.pid_max == int(Path("/proc/sys/kernel/pid_max").read_text())
    assert found.pipe_most_bytes == int(Path("/proc/sys/fs/pipe-max-size").read_text())
    assert 4096 <= found.pipe_got_bytes <= 1 << 20
    assert found.pidfd
    assert found.children_listed
    assert found.core_pattern == Path("/proc/sys/kernel/core_pattern").read_text().strip()


def test_close_range_was_really_tried() -> None:
    """A filter that refuses the call would be noticed: so would a call that closes something."""
    before = descriptors()
    assert kernel.surroundings().close_range
    assert descriptors() == before


def test_the_shim() -> None:
    found = tries.shim()
    assert found.problem is None
    assert (found.static, found.open_to_all) == (True, True)
    assert found.path is not None
    assert Path(found.path).is_file()


def test_bubblewrap(bubblewrap: str) -> None:
    found = tries.bubblewrap(tries.shim())
    said = subprocess.run([bubblewrap, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    assert found.problem is None
    assert found.path == bubblewrap
    assert found.version is not None
    assert said.split()[-1] == found.version
    assert found.setuid == bool(Path(bubblewrap).stat().st_mode & stat.S_ISUID)
    numbers = tuple(map(int, found.version.split(".")[:2]))
    assert found.disable_userns == (numbers >= (0, 8) and not found.setuid)


@pytest.mark.engine
def test_the_engine(engine: str) -> None:
    found = look()
    asked = subprocess.run(
        ["docker", "info", "--format", "{{json .}}"], capture_output=True, text=True, check=True, timeout=20
    )
    info = json.loads(asked.stdout)
    assert (found.trouble, found.version) == (None, engine)
    assert (found.arch, found.storage, found.cgroup_driver) == (
        info["Architecture"],
        info["Driver"],
        info["CgroupDriver"],
    )
    assert found.hierarchy == f"v{info['CgroupVersion']}"
    assert (found.memory, found.swap, found.cpus, found.pids) == (
        info["MemoryLimit"],
        info["SwapLimit"],
        info["CpuCfsQuota"],
        info["PidsLimit"],
    )
    assert found.seccomp == any("name=seccomp" in option for option in info["SecurityOptions"])
    assert found.live_restore == info["LiveRestoreEnabled"]
    versions = subprocess.run(
        ["docker", "version", "--format", "{{.Server.APIVersion}}"], capture_output=True, text=True, check=True
    )
    assert found.api == versions.stdout.strip()


def test_the_cgroups_that_are_said_to_hold_really_can() -> None:
    from runner.launch.cgroup import CgroupHome
    from runner.spec.model import Resources

    found = kernel.cgroups()
    assert set(found.held) | set(found.missing) == {"memory", "cpus", "pids"}
    assert not set(found.held) & set(found.missing)
    if not found.held:
        pytest.skip(f"no cgroup can be made: {found.missing}")
    home = CgroupHome.find()
    group = home.make("doctor", Resources(memory_bytes=1 << 26, cpus=0.5, pids=10), spare_pids=0)
    try:
        assert group is not None
        assert group.held == set(found.held)
    finally:
        if group is not None:
            for each in list(group._folders):
                each.rmdir()
        home.close()


def test_only_what_is_needed_is_looked_at() -> None:
    bare = gather_for([Processor("a", ("x",), None)])
    assert (bare.engine, bare.bubblewrap, bare.surroundings) == (None, None, None)
    boxed = gather({Home.SANDBOX})
    assert boxed.engine is None
    assert boxed.bubblewrap is not None
    contained = gather_for([Processor("a", (), None, home=Home.CONTAINER, image="x")])
    assert contained.engine is not None
    assert contained.bubblewrap is None


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gather(surroundings=True)  # what is imported on the way is there now
    before = (descriptors(), threading.active_count(), psutil.Process().children(recursive=True))
    gather(surroundings=True)
    assert list(tmp_path.iterdir()) == []
    after = (descriptors(), threading.active_count(), psutil.Process().children(recursive=True))
    assert after == before


# -- engines


def look(address: str = f"unix://{SOCKET}", *, within_s: float = 3.0) -> Engine:
    return engines.look(HERE, {"DOCKER_HOST": address}, within_s=within_s)


@contextlib.contextmanager
def listener(path: Path, serve: Callable[[socket.socket], None] | None = None, backlog: int = 8) -> Iterator[str]:
    """A unix socket that listens and, with `serve`, answers one connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(backlog)
        server.settimeout(10)
        thread = threading.Thread(target=_serve, args=(server, serve)) if serve is not None else None
        if thread is not None:
            thread.start()
        yield f"unix://{path}"
        if thread is not None:
            thread.join(20)
            assert not thread.is_alive()


def _serve(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with server.accept()[0] as connection, contextlib.suppress(OSError):
        connection.settimeout(10)
        connection.recv(4096)
        serve(connection)


def answering(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.0 {status}\r\nApi-Version: 1.45\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


def info(**given: Any) -> bytes:
    return json.dumps({"ServerVersion": "26.1", "KernelVersion": HERE.kernel, "Architecture": "amd64"} | given).encode()


def test_an_engine_that_never_answers_is_left_in_time(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as address:
        began = time.monotonic()
        found = look(address, within_s=0.3)
        took_s = time.monotonic() - began
    assert found.trouble == "silent"
    assert found.problem is not None
    assert "does not answer within 0.3 s" in found.problem
    assert 0.3 <= took_s < 30


def test_an_engine_that_never_ends_its_answer_is_left_in_time(tmp_path: Path) -> None:
    """A limit for each read would never be reached."""

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        gone = threading.Event()
        while not gone.wait(0.02):
            connection.sendall(b" ")

    with listener(tmp_path / "s", trickle) as address:
        began = time.monotonic()
        assert look(address, within_s=0.4).trouble == "silent"
        assert time.monotonic() - began < 30


def test_a_full_queue_of_connections_is_no_hang(tmp_path: Path) -> None:
    with listener(tmp_path / "s", backlog=0) as address, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            filler.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                filler.connect(str(tmp_path / "s"))
        assert look(address, within_s=0.3).trouble == "silent"


def test_an_answer_without_end_is_bounded_in_bytes(tmp_path: Path) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while sent < 64 << 20:
            connection.sendall(b" " * (1 << 20))
            sent += 1 << 20

    with listener(tmp_path / "s", flood) as address:
        assert look(address, within_s=3).trouble == "strange"
    assert sent < 16 << 20


@pytest.mark.parametrize(
    "serve",
    [
        answering(b"hello"),
        answering(b"[]"),
        answering(b"{}"),
        answering(b'{"ServerVersion": 7}'),
        answering(b"[" * 200_000),
        answering(b'{"ServerVersion": "\xff"}'),
        answering(info(), status="500 Internal Server Error"),
        answering(info(), status="404"),
        lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
        lambda connection: connection.sendall(b"\r\n\r\n"),
        lambda connection: connection.close(),
    ],
)
def test_what_is_no_engine_is_strange(serve: Callable[[socket.socket], None], tmp_path: Path) -> None:
    with listener(tmp_path / "s", serve) as address:
        found = look(address)
    assert found.trouble == "strange"
    assert found.problem is not None
    assert "does not answer as an engine does" in found.problem


def test_what_an_engine_says(tmp_path: Path) -> None:
    options = ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]
    said = info(SecurityOptions=options, CgroupVersion="2", MemoryLimit=True, Driver="btrfs")
    with listener(tmp_path / "s", answering(said)) as address:
        found = look(address)
    assert found.trouble is None
    assert (found.version, found.api, found.arch, found.storage) == ("26.1", "1.45", "x86_64", "btrfs")
    assert (found.seccomp, found.rootless, found.remapped) == (True, True, False)
    assert (found.hierarchy, found.memory, found.pids) == ("v2", True, False)


def test_an_engine_on_another_kernel_is_elsewhere(tmp_path: Path) -> None:
    with listener(tmp_path / "s", answering(info(KernelVersion="5.15.49-linuxkit"))) as address:
        found = look(address)
    assert found.trouble == "elsewhere"
    assert "5.15.49-linuxkit" in str(found.problem)


def test_an_engine_outside_of_our_container_is_elsewhere(bubblewrap: str, tmp_path: Path) -> None:
    """Whoever listens is in another PID namespace: files that we name are not there for it."""
    code = GATHER.replace("gather(surroundings=True)", "gather()")
    words = (bubblewrap, "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc")
    with listener(tmp_path / "s", answering(info())) as address:
        inside = gathered(*words, code=code, DOCKER_HOST=address, container="test")
    assert inside["engine"]["trouble"] == "elsewhere"
    assert "is in a container" in inside["engine"]["problem"]


@pytest.mark.parametrize(
    ("address", "trouble", "words"),
    [
        ("unix:///nowhere/at/all.sock", "absent", "there is no socket /nowhere/at/all.sock"),
        ("tcp://127.0.0.1:2375", "remote", "not known to be on this one"),
        ("ssh://somebody@example.org", "remote", "ssh://somebody@example.org"),
        ("http://127.0.0.1:2375", "remote", "pipes do not reach"),
        ("nonsense", "address", "names no address"),
        ("unix://relative.sock", "address", "no absolute path"),
        ("unix:///" + "x" * 200, "address", "too long"),
        ("unix:///etc/passwd", "refused", "nobody listens"),
        ("unix:///etc/passwd/docker.sock", "address", "Not a directory"),
    ],
)
def test_addresses_that_lead_to_no_engine(address: str, trouble: str, words: str) -> None:
    found = look(address)
    assert (found.trouble, found.chosen_by) == (trouble, "DOCKER_HOST")
    assert words in str(found.problem)
    assert found.version == ""


def test_a_socket_that_nobody_listens_at_any_more(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as address:
        pass
    found = look(address)
    assert found.trouble == "refused"
    assert "not running" in str(found.problem)


def test_the_address_is_found_as_the_docker_command_finds_it(tmp_path: Path) -> None:
    contexts = tmp_path / "docker" / "contexts" / "meta"
    digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # sha256 of "foo"
    (contexts / digest).mkdir(parents=True)
    meta = {"Name": "foo", "Endpoints": {"docker": {"Host": "unix:///foo.sock"}}}
    (contexts / digest / "meta.json").write_text(json.dumps(meta))
    environ = {"DOCKER_CONFIG": str(tmp_path / "docker"), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert engines.engine_address({**environ, "DOCKER_CONTEXT": "foo"}) == (
        "unix:///foo.sock",
        "the docker context foo",
    )
    assert engines.engine_address({**environ, "DOCKER_CONTEXT": "foo", "DOCKER_HOST": "unix:///x"})[0] == "unix:///x"
    gone = engines.look(HERE, {**environ, "DOCKER_CONTEXT": "gone"})
    assert (gone.trouble, gone.chosen_by) == ("address", "the docker context gone")
    (tmp_path / "docker" / "config.json").write_text('{"currentContext": "foo"}')
    assert engines.engine_address(environ)[0] == "unix:///foo.sock"
    for text in ('{"currentContext": "default"}', "no json", "[]", '{"currentContext": 5}'):
        (tmp_path / "docker" / "config.json").write_text(text)
        assert engines.engine_address(environ)[0] in {f"unix://{SOCKET}", f"unix://{tmp_path}/docker.sock"}


# -- programs that are not there, fail, hang or lie


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def program(folder: Path, text: str, name: str = "bwrap") -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def test_without_bubblewrap(bubblewrap: str) -> None:
    """What lies in its place cannot be executed."""
    if Path(bubblewrap).resolve().parent != Path("/usr/bin"):
        pytest.skip(f"{bubblewrap} is not where it usually is")
    words = (bubblewrap, "--dev-bind", "/", "/", "--ro-bind", "/dev/null", bubblewrap)
    facts = convert(gathered(*words, PATH="/usr/bin"), Facts)
    assert facts.bubblewrap is not None
    assert facts.bubblewrap.path is None
    error = requirement(Processor("a", ("x",), None, home=Home.SANDBOX, trust=Trust.UNTRUSTED), facts)
    assert error is not None
    assert error.exit_code == 3
    assert "bubblewrap" in str(error.remedy)


def test_bubblewrap_is_found_without_a_path(bubblewrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    found = tries.bubblewrap(tries.shim()).path
    assert found is not None
    assert Path(found).samefile(bubblewrap)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("echo first >&2; echo 'bwrap: it is broken' >&2; exit 1", "it is broken"),
        ("exit 5", "exit 5"),
        ("kill -KILL $$", "killed by signal 9"),
        ("exit 2", "exit 2"),
        ("exit 0", "exit 0"),
        ("echo 'bwrap: Unknown option --perms' >&2; exit 1", "Unknown option --perms"),
    ],
)
def test_bubblewraps_that_make_no_sandbox(
    text: str, problem: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(open_folder, text)
    monkeypatch.setenv("PATH", f"{open_folder}:/usr/bin:/bin")
    found = tries.bubblewrap(tries.shim())
    assert found.path == str(open_folder / "bwrap")
    assert (found.problem, found.disable_userns) == (problem, False)


@needs_root
def test_bubblewrap_is_tried_as_somebody_else(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel.own_ids() is None:
        pytest.skip("this root may become nobody else")
    program(open_folder, "echo $(id -u) $(id -g) $(id -G) >&2; exit 1")
    monkeypatch.setenv("PATH", f"{open_folder}:/usr/bin:/bin")
    uid, gid = kernel.own_ids() or (0, 0)
    assert uid > 65535
    assert tries.bubblewrap(tries.shim()).problem == f"{uid} {gid} {gid}"


def test_an_old_bubblewrap_works_and_cannot_forbid_more(
    bubblewrap: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = 'case " $* " in *" --disable-userns "*) echo "bwrap: Unknown option --disable-userns" >&2; exit 1;; esac'
    program(open_folder, f'{old}\nexec {bubblewrap} "$@"')
    monkeypatch.setenv("PATH", f"{open_folder}:/usr/bin:/bin")
    found = tries.bubblewrap(tries.shim())
    assert (found.path, found.problem, found.disable_userns) == (str(open_folder / "bwrap"), None, False)


def test_a_bubblewrap_that_hangs_is_ended(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(open_folder, "exec sleep 60")
    monkeypatch.setenv("PATH", f"{open_folder}:/usr/bin:/bin")
    its = tries.shim()
    before = set(psutil.Process().children(recursive=True))  # tests before may have made this process a subreaper
    monkeypatch.setattr(tries, "LIMIT_S", 0.2)
    assert tries.bubblewrap(its).problem == "it did not end within 0.2 s"
    assert not set(psutil.Process().children(recursive=True)) - before


def test_shims_that_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTOR_SHIM", str(tmp_path / "gone"))
    gone = tries.shim()
    assert gone.problem is not None
    assert "is not there" in gone.problem
    assert gone.remedy is not None
    foreign = tmp_path / "foreign"
    header = bytearray(Path(sys.executable).resolve().read_bytes()[:64])
    header[18:20] = (8).to_bytes(2, "little")  # EM_MIPS
    foreign.write_bytes(header)
    foreign.chmod(0o755)
    monkeypatch.setenv("CONNECTOR_SHIM", str(foreign))
    facts = gather()
    assert "Exec format error" in str(facts.shim.problem)
    assert facts.bubblewrap is not None
    for home in Home:
        found = judge(facts, home)
        assert (found.works, found.tier) == (False, Tier.D)
        assert "shim" in found.cause
    monkeypatch.setenv("CONNECTOR_SHIM", sys.executable)
    assert "does not run here" in str(tries.shim().problem)  # it runs, but is no shim


def test_a_shim_for_its_owner_alone_makes_sandboxes_too(
    bubblewrap: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del bubblewrap
    path = tries.shim().path
    assert path is not None
    shutil.copy(path, open_folder / "shim")
    (open_folder / "shim").chmod(0o700)
    monkeypatch.setenv("CONNECTOR_SHIM", str(open_folder / "shim"))
    found = tries.shim()
    assert (found.problem, found.open_to_all) == (None, False)
    assert tries.bubblewrap(found).problem is None


def test_a_dynamic_shim_is_seen(tmp_path: Path) -> None:
    python = Path(sys.executable).resolve()
    assert not tries._is_static(python)
    (tmp_path / "short").write_bytes(b"\x7fELF\x02")
    assert not tries._is_static(tmp_path / "short")
    assert not tries._is_static(tmp_path / "gone")


# -- machines that lack something, made for real


@needs_root
def test_a_user_without_rights(bubblewrap: str) -> None:
    found = gathered(*as_nobody("runner.launch.machine"))
    assert found["system"]["own_uids"] is False
    assert found["system"]["user"] == "nobody"
    assert found["bubblewrap"]["path"] == bubblewrap
    assert set(found["cgroups"]["missing"]) | set(found["cgroups"]["held"]) == {"memory", "cpus", "pids"}
    assert found["cgroups"]["held"] == []


@needs_root
@pytest.mark.engine
def test_an_engine_that_this_user_may_not_speak_to(engine: str) -> None:
    del engine
    if Path(SOCKET).stat().st_mode & stat.S_IWOTH:
        pytest.skip(f"everybody may speak to {SOCKET}")
    found = gathered(*as_nobody("runner.launch.machine"), DOCKER_HOST=f"unix://{SOCKET}")
    assert found["engine"]["trouble"] == "permission"
    assert "may not speak to the engine" in found["engine"]["problem"]


@needs_root
def test_a_closed_socket_of_somebody_else(open_folder: Path) -> None:
    with listener(open_folder / "s") as address:
        (open_folder / "s").chmod(0o600)
        found = gathered(*as_nobody("runner.launch.machine"), DOCKER_HOST=address)
    assert found["engine"]["trouble"] == "permission"


def test_where_no_further_user_namespace_can_be_made(bubblewrap: str) -> None:
    """In a sandbox that forbids them another one cannot be made: the doctor's own try fails as the runner's would."""
    words = (bubblewrap, "--dev-bind", "/", "/", "--unshare-user", "--disable-userns", "--cap-drop", "ALL")
    found = gathered(*words)
    assert found["bubblewrap"]["problem"]
    assert found["system"]["own_uids"] is False


def test_root_in_a_namespace_of_one_user_has_no_others(bubblewrap: str) -> None:
    words = (bubblewrap, "--dev-bind", "/", "/", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL")
    found = gathered(*words)
    assert (found["system"]["uid"], found["system"]["own_uids"]) == (0, False)


def test_few_descriptors() -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))\n" + GATHER
    found = gathered(code=code)["surroundings"]
    assert (found["files_soft"], found["files_hard"]) == (100, 200)


def test_the_folder_of_sockets_is_the_one_that_is_made(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    made = SocketFolder.make(environ)
    try:
        assert kernel.socket_folder(environ) == (made.path.parent, len(os.fsencode(made.path / "1234567" / "socket")))
    finally:
        made.remove()


def test_folders_too_deep_for_sockets_are_left_out(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    found = kernel.socket_folder({"XDG_RUNTIME_DIR": str(deep)})
    assert found is not None
    assert not found[0].is_relative_to(deep)
    assert found[1] <= 107


@needs_root
def test_folders_of_others_are_left_out_for_sockets(open_folder: Path) -> None:
    runtime = open_folder / "runtime"
    (runtime / "connector").mkdir(parents=True)
    found = gathered(*as_nobody("runner.launch.machine"), XDG_RUNTIME_DIR=str(runtime))["surroundings"]["socket_folder"]
    assert found is not None
    assert not found.startswith(str(runtime))


def test_where_nothing_can_be_written(bubblewrap: str) -> None:
    found = gathered(bubblewrap, "--ro-bind", "/", "/", "--unshare-user", "--uid", "1000", TMPDIR="/nowhere")
    assert (found["surroundings"]["socket_folder"], found["surroundings"]["socket_path_bytes"]) == (None, None)
    assert found["cgroups"]["held"] == []


@needs_root
def test_pipes_become_small_when_a_user_has_many() -> None:
    soft = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    if not 0 < soft <= 16384:
        pytest.skip(f"pipe-user-pages-soft is {soft}: no limit that a test can reach cheaply")
    code = """
import contextlib, fcntl, json, os
from runner.launch.machine import kernel
pipes = [os.pipe() for _ in range(80)]
for _, writer in pipes:
    with contextlib.suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
print(json.dumps({"got": kernel.surroundings().pipe_got_bytes}))
"""
    assert gathered(*as_nobody("runner.launch.machine"), code=code)["got"] < 1 << 20


# -- texts of the kernel


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("ann:100000:65536\n", 65536),
        ("1000:100000:10\nann:300000:20\nbob:1:5\n", 30),
        ("", 0),
        ("ann\nann:1\nann:x:y\n:::\n", 0),
    ],
)
def test_subordinate_users(text: str, count: int) -> None:
    assert kernel.subordinates(text, 1000, "ann") == count


@pytest.mark.parametrize(
    ("mounts", "hidden"),
    [
        ("proc /proc proc rw,relatime 0 0\n", None),
        ("proc /proc proc rw,hidepid=0 0 0\n", None),
        ("proc /proc proc rw,hidepid=invisible 0 0\n", "invisible"),
        ("proc /proc proc rw 0 0\nproc /proc proc rw,hidepid=2,gid=4 0 0\n", "2"),
        ("proc /proc proc rw,hidepid=2 0 0\nproc /proc proc rw 0 0\n", None),
        ("proc /srv/proc proc rw,hidepid=2 0 0\n", None),
        ("", None),
    ],
)
def test_hidden_processes(mounts: str, hidden: str | None) -> None:
    assert kernel._hidepid(mounts) == hidden


def test_facts_are_json() -> None:
    facts: Facts = gather(surroundings=True)
    assert json.loads(json.dumps(to_builtins(facts))).keys() == set(Facts.__struct_fields__)
