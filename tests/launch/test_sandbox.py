"""The home `sandbox`: what is its own. What every home does is in tests/contracts/test_launchers.py."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from runner.errors import LaunchError, MachineError
from runner.launch import bubblewrap as profile
from runner.launch.base import PROBE
from runner.launch.reach import unreachable
from runner.launch.sandbox import SandboxLauncher
from runner.launch.tree import carries_mark, descendants_of
from runner.plan.identity import IDS, instance_gid, instance_uid
from runner.spec.model import MIB, Mount, Processor, Resources
from tests.contracts.homes import HOMES, RUN, Program, context_of, run

pytestmark = pytest.mark.usefixtures("bubblewrap")

TRUSTED = next(kind.spec for kind in HOMES if kind.name == "sandbox-trusted")
UNTRUSTED = next(kind.spec for kind in HOMES if kind.name == "sandbox-untrusted")
BOTH = pytest.mark.parametrize("spec", [TRUSTED, UNTRUSTED], ids=["trusted", "untrusted"])
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs as another user")


@contextlib.asynccontextmanager
async def program(spec: Processor) -> AsyncIterator[Program]:
    launcher = SandboxLauncher(context_of())
    try:
        await launcher.prepare([spec])
        made = Program(await launcher.open(spec, 1))
        try:
            yield made
        finally:
            await made.close()
    finally:
        await launcher.close()


async def answers(it: Program, script: str, *, directory: str = "/") -> list[str]:
    """The lines of the script's stdout and stderr; its exit code is the last one."""
    await it.start("sh", "-c", f"({script}) 2>&1; echo $?; echo over", directory=directory)
    lines = []
    while (line := await it.line()) != "over":
        lines.append(line)
    return lines


def answered(spec: Processor, script: str, *, directory: str = "/") -> list[str]:
    """Like `answers`, of a program of its own."""
    found: list[str] = []

    async def test() -> None:
        async with program(spec) as it:
            found.extend(await answers(it, script, directory=directory))

    run(test)
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach; those of pytest are closed."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


def changed(spec: Processor, **changes: object) -> Processor:
    return msgspec.structs.replace(spec, **changes)


# -- who it is


@as_root
def test_an_untrusted_program_has_a_user_of_its_own_outside_as_well() -> None:
    uid, gid = instance_uid("pipeline", "p", 1), instance_gid("pipeline", "p")
    assert uid in IDS

    async def test() -> None:
        async with program(UNTRUSTED) as it:
            await it.script("id -u; id -g; id -G; id -un; echo $HOME; while :; do sleep 1; done")
            assert [await it.line() for _ in range(5)] == [str(uid), str(gid), str(gid), "connector", "/tmp"]
            status = Path(f"/proc/{it.pid}/status").read_text()  # noqa: ASYNC240 - does not block
            assert "\t".join(["Uid:", *[str(uid)] * 4]) in status
            assert "\t".join(["Gid:", *[str(gid)] * 4]) in status
            assert "Groups:\t \n" in status

    run(test)


def test_an_untrusted_program_can_gain_nothing() -> None:
    lines = answered(UNTRUSTED, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    assert lines == [*(f"Cap{name}:\t{0:016x}" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")), *SECURED, "0"]


SECURED = ("NoNewPrivs:\t1", "Seccomp:\t2")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
def test_an_untrusted_program_makes_no_user_namespace() -> None:
    assert answered(UNTRUSTED, "unshare -U true > /dev/null")[-1] != "0"


def test_a_trusted_program_is_the_runners_user() -> None:
    assert answered(TRUSTED, "id -u") == [str(os.geteuid()), "0"]


# -- what it sees


def test_an_untrusted_program_sees_little_of_the_machine() -> None:
    lines = answered(UNTRUSTED, "ls -A /; ls -A /etc", directory="/")[:-1]
    system = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    assert set(lines) <= {*system, "dev", "etc", "proc", "tmp", *ETC}
    assert {"usr", "dev", "etc", "proc", "tmp", "passwd"} <= set(lines)


ETC = {
    *("passwd", "group", "nsswitch.conf", "hosts", "hostname", "localtime", "ssl", "pki"),
    *(name.split("/", maxsplit=1)[0] for name in profile.ETC),
    *(path.name for path in Path("/etc").glob("java*")),
} - {"resolv.conf"}


def test_an_untrusted_program_sees_no_other_process() -> None:
    """The inner shim, the shell, the one that it is, and the one that asks."""
    assert len(answered(UNTRUSTED, "ls -d /proc/[0-9]*")) <= 5


@BOTH
def test_the_inner_shim_cannot_be_looked_into_or_ended(spec: Processor) -> None:
    if spec is TRUSTED and os.geteuid() == 0:
        pytest.skip("a trusted program that is root may look at all there is")
    lines = answered(spec, "ls /proc/1/fd; cat /proc/1/environ; kill -9 1; kill -TERM 1; echo here")
    assert lines[-2:] == ["here", "0"]
    assert sum("Permission denied" in line for line in lines) == 2


def test_nothing_can_be_written_but_tmp_and_shm() -> None:
    tries = "for at in / /usr /etc /dev /made /dev/pts; do touch $at/x 2> /dev/null && echo $at; done"
    assert answered(UNTRUSTED, f"{tries}; touch /tmp/x /dev/shm/x; echo", directory="/made") == ["", "0"]


def test_what_can_be_written_has_a_size() -> None:
    """And none of it is left for the next run."""
    spec = changed(UNTRUSTED, resources=Resources(disk_bytes=8 * MIB))
    fill = "for at in /tmp /dev/shm; do head -c 30000000 /dev/zero > $at/x 2> /dev/null; wc -c < $at/x; done"

    async def test() -> None:
        async with program(spec) as it:
            assert await answers(it, fill) == [str(8 * MIB), str(16 * MIB), "0"]
            await it.handle.kill_tree()
            assert await answers(it, "ls /tmp /dev/shm | grep x") == ["1"]

    run(test)


def test_the_folder_of_an_untrusted_program_is_there_and_empty() -> None:
    here = str(Path(__file__).parent)
    assert answered(UNTRUSTED, "pwd; ls -A", directory=here) == [here, "0"]


def test_a_trusted_program_sees_the_machine_and_changes_nothing_of_it() -> None:
    here = Path(__file__)
    lines = answered(TRUSTED, f"ls {here.name}; touch {here.name}; touch /tmp/x; ls /tmp", directory=str(here.parent))
    assert lines[0] == here.name
    assert "Read-only file system" in lines[1]
    assert lines[2:] == ["x", "0"]


def test_a_trusted_program_is_started_again_in_its_sandbox() -> None:
    async def test() -> None:
        async with program(TRUSTED) as it:
            inner = set()
            for number in range(3):
                await it.script(f"n=$(ls /tmp | wc -l); touch /tmp/{number}; echo $n; while :; do sleep 1; done")
                assert await it.line() == str(number)
                inner.add(parent_of(it.pid))
                await it.handle.kill_tree()
            assert len(inner) == 1

    run(test)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_untrusted_program_gets_a_new_sandbox_each_time() -> None:
    async def test() -> None:
        async with program(UNTRUSTED) as it:
            inner = set()
            for _ in range(3):
                await it.script("n=$(ls /tmp | wc -l); touch /tmp/x; echo $n; while :; do sleep 1; done")
                assert await it.line() == "0"
                inner.add(parent_of(it.pid))
                await it.handle.kill_tree()
            assert len(inner) == 3

    run(test)


def test_an_untrusted_program_that_ended_by_itself_leaves_nothing_to_the_next() -> None:
    async def test() -> None:
        async with program(UNTRUSTED) as it:
            await it.script("touch /tmp/x /dev/shm/x")
            assert await it.end() == (0, None)
            await it.script("ls /tmp /dev/shm | grep x")
            assert await it.end() == (1, None)

    run(test)


def test_variables_of_an_untrusted_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/root/private/bin:/usr/bin:/bin")
    monkeypatch.setenv("LANG", "C.UTF-8")
    lines = answered(UNTRUSTED, "env | grep -vE '^(PWD|_|SHLVL|OLDPWD)='")
    assert sorted(lines[:-1]) == [f"CONNECTOR_RUN={RUN}", "HOME=/tmp", "LANG=C.UTF-8", "PATH=/usr/bin:/bin"]


def test_temporary_files_of_a_trusted_program_have_a_place(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    assert answered(TRUSTED, "touch $TMPDIR/x; echo $TMPDIR") == ["/tmp", "0"]


def test_the_machines_name_is_the_processors() -> None:
    assert answered(UNTRUSTED, "cat /proc/sys/kernel/hostname /etc/hostname") == ["p", "p", "0"]


# -- the network


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of a listener out here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@BOTH
@pytest.mark.parametrize(("network", "code"), [("none", 1), ("host", 0)])
def test_the_network_is_the_one_that_was_asked_for(spec: Processor, network: str, code: int, listener: int) -> None:
    async def test() -> None:
        async with program(changed(spec, network=network)) as it:
            await it.start("sleep", "1000")
            assert (await it.handle.probe((PROBE, "tcp", f"127.0.0.1:{listener}"))).code == code

    run(test)


def test_without_a_network_there_is_its_own_loopback_only() -> None:
    """Two of the four lines are the head of the table."""
    lines = answered(UNTRUSTED, "cat /proc/net/dev")
    assert [line.split(":")[0].strip() for line in lines[2:-1]] == ["lo"]
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(s.getsockname()).close(); print('met')"
    )
    if Path("/usr/bin/python3").exists():
        assert answered(UNTRUSTED, f'/usr/bin/python3 -c "{script}"') == ["met", "0"]


# -- mounts


def test_mounts_are_what_they_are_said_to_be(folder: Path) -> None:
    for name, mode in (("read", 0o755), ("write", 0o777)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
        (folder / name / "here").write_text(f"from {name}\n")
    mounts = (Mount(folder / "read", "/in"), Mount(folder / "write", "/out", writable=True))
    lines = answered(changed(UNTRUSTED, mounts=mounts), "cat /in/here /out/here; touch /in/x; echo new > /out/new")
    assert lines[:2] == ["from read", "from write"]
    assert "Read-only file system" in lines[2]
    assert lines[3:] == ["0"]
    assert (folder / "write" / "new").read_text() == "new\n"


def test_a_trusted_program_writes_where_a_mount_lets_it(folder: Path) -> None:
    mounts = (Mount(folder, str(folder), writable=True),)
    assert answered(changed(TRUSTED, mounts=mounts), f"echo new > {folder}/new") == ["0"]
    assert (folder / "new").read_text() == "new\n"


def test_the_template_of_an_untrusted_program_is_there_to_read(folder: Path) -> None:
    (folder / "program.sh").write_text("echo from the template")
    spec = changed(UNTRUSTED, template=folder)
    lines = answered(spec, f"sh {folder}/program.sh; touch {folder}/x")
    assert lines[0] == "from the template"
    assert "Read-only file system" in lines[1]


@as_root
def test_a_mount_that_its_user_cannot_reach_is_refused_before_the_start(folder: Path) -> None:
    inner = folder / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o750)
    spec = changed(UNTRUSTED, mounts=(Mount(inner, "/in"),))

    async def test() -> None:
        with pytest.raises(MachineError) as caught:
            await SandboxLauncher(context_of()).prepare([spec])
        assert f"{inner.parent} (drwxr-x---)" in caught.value.what
        assert caught.value.where == "p"
        assert "chmod" in (caught.value.remedy or "")

    run(test)


@as_root
def test_a_mount_that_its_user_could_not_write_to_is_refused(folder: Path) -> None:
    spec = changed(UNTRUSTED, mounts=(Mount(folder, "/out", writable=True),))

    async def test() -> None:
        with pytest.raises(MachineError, match=r"it cannot write to .* \(drwxr-xr-x\)"):
            await SandboxLauncher(context_of()).prepare([spec])

    run(test)


def test_reaching_goes_by_the_right_class_of_the_mode(folder: Path) -> None:
    file = folder / "file"
    file.write_text("")
    os.chown(file, 1000, 1001)
    for mode, uid, gid, can in (
        (0o400, 1000, 5, True),
        (0o040, 1000, 1001, False),
        (0o040, 5, 1001, True),
        (0o004, 5, 1001, False),
        (0o004, 5, 5, True),
    ):
        file.chmod(mode)
        assert (unreachable(file, uid, gid) is None) is can
    assert unreachable(folder / "missing", 5, 5) == f"{folder / 'missing'}: No such file or directory"


def test_what_cannot_be_mounted_after_all_says_so(folder: Path) -> None:
    """The source is gone at the start; the target lies in what is read-only."""
    gone, kept = folder / "gone", folder / "kept"
    kept.mkdir()
    for mount, said in ((Mount(gone, "/in"), f"cannot be reached.*{gone}"), (Mount(kept, "/usr/no/where"), "no place")):

        async def test(mount: Mount = mount, said: str = said) -> None:
            launcher = SandboxLauncher(context_of())
            it = Program(await launcher.open(changed(UNTRUSTED, mounts=(mount,)), 1))
            try:
                with pytest.raises(LaunchError, match=said):
                    await it.script("exit 0")
            finally:
                await it.close()
                await launcher.close()

        run(test)


# -- its end


def shims_and_bwrap(it: Program) -> tuple[int, int, int]:
    """The process ids of the outer shim, of bwrap and of the inner shim."""
    inner = parent_of(it.pid)
    bwrap = parent_of(inner)
    return parent_of(bwrap), bwrap, inner


@BOTH
@pytest.mark.parametrize("which", [0, 1, 2], ids=["outer shim", "bwrap", "inner shim"])
def test_the_end_of_each_part_is_the_end_of_all(spec: Processor, which: int) -> None:
    """Killed from out here. The inner shim's end looks like the program's own doing, and is held against it."""

    async def test() -> None:
        async with program(spec) as it:
            await it.script("setsid sleep 1000 & echo up; while :; do sleep 1; done")
            assert await it.line() == "up"
            parts = shims_and_bwrap(it)
            os.kill(parts[which], signal.SIGKILL)
            exited = await it.handle.exited()
            if which == 2:
                assert (exited.signal, exited.note) == (signal.SIGKILL, "its sandbox was ended from inside")
            else:
                assert (exited.code, exited.signal) == (None, None)
                assert exited.note == (None if which == 0 else "its sandbox was killed")
            await it.handle.kill_tree()
            assert not any(carries_mark(pid, f"CONNECTOR_RUN={RUN}".encode()) for pid in parts)
            await it.script("exit 4")
            assert await it.end() == (4, None)
            assert await it.rest() == ""

    run(test)


def test_nothing_of_it_is_left_below_us() -> None:
    async def test() -> None:
        before = descendants_of(os.getpid())
        async with program(UNTRUSTED) as it:
            await it.script("echo up; while :; do sleep 1; done")
            assert await it.line() == "up"
            assert len(descendants_of(os.getpid()) - before) >= 4
        assert descendants_of(os.getpid()) <= before

    run(test)
