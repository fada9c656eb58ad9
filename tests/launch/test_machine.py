"""The facts of this machine against what it says otherwise, and of machines that lack something, made for real."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pwd
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from msgspec import convert, to_builtins

from runner.launch.machine import gather, gather_for, kernel, tries
from runner.launch.sockets import SocketFolder
from runner.plan.facts import Facts
from runner.plan.tiers import Tier, judge, requirement
from runner.spec.model import Home, Processor, Trust
from tests.launch.machines import GATHER, SOCKET, gathered, listener, look
from tests.nobody import as_nobody

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


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
