"""Sandboxes: limits, what programs need, and machines that cannot make one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.errors import LaunchError, MachineError
from runner.launch import bubblewrap as profile
from runner.launch.base import Launcher
from runner.launch.cgroup import CgroupHome
from runner.launch.sandbox import SandboxLauncher
from runner.spec.model import MIB, Mount, Processor, Resources
from tests.contracts.homes import HOMES, Program, context_of, run
from tests.launch.test_sandbox import BOTH, TRUSTED, UNTRUSTED, answered, as_root, changed, folder, program

__all__ = ["folder"]  # the fixture
pytestmark = pytest.mark.usefixtures("bubblewrap")


# -- limits


@BOTH
def test_processes_are_held(spec: Processor) -> None:
    """By a control group, or by an rlimit in the user namespace: what is not trusted has one of its own."""
    spec = changed(spec, resources=Resources(pids=5))
    if not spec.untrusted and "pids" not in CgroupHome.find().enforced:
        pytest.skip("no control group can be made for processes here")
    script = "for i in 1 2 3 4 5 6 7; do sleep 1000 & done; echo never"

    async def test() -> None:
        async with program(spec) as it:
            await it.script(script)
            assert await it.end() == (2, None)  # dash ends when it cannot fork

    run(test)


@as_root
def test_without_control_groups_rlimits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CgroupHome, "find", classmethod(lambda cls: cls((), {"memory": "", "cpus": "", "pids": ""})))
    spec = changed(UNTRUSTED, resources=Resources(memory_bytes=64 * MIB, pids=5, disk_bytes=MIB))

    async def test() -> None:
        async with program(spec) as it:
            await it.script("echo up; while :; do :; done")
            assert await it.line() == "up"
            limits = Path(f"/proc/{it.pid}/limits").read_text()  # noqa: ASYNC240 - does not block
            for name, value in (("data size", 64 * MIB), ("core file size", 0), ("processes", 5)):
                assert re.search(rf"^Max {name} +{value} +{value} ", limits, re.MULTILINE), name
            await it.handle.kill_tree()
            await it.script("for i in 1 2 3 4 5 6 7; do sleep 1000 & done; echo never")
            assert await it.end() == (2, None)

    run(test)


# -- what programs need


@pytest.mark.parametrize(
    ("program_path", "words"),
    [
        ("/usr/bin/python3", "-c 'import ssl, json; ssl.create_default_context(); print(40 + 2)'"),
        ("/usr/bin/node", "-e 'console.log(40 + 2)'"),
        ("/usr/bin/java", "-version 2> /dev/null && echo 42"),
    ],
)
def test_the_usual_languages_run_without_trust(program_path: str, words: str) -> None:
    if not Path(program_path).exists():
        pytest.skip(f"there is no {program_path}")
    assert answered(UNTRUSTED, f"{program_path} {words}") == ["42", "0"]


# -- machines that cannot


def test_without_bubblewrap_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(profile, "DEFAULT_PATH", "/nowhere")

    async def test() -> None:
        with pytest.raises(MachineError, match="bubblewrap is not there") as caught:
            await SandboxLauncher(context_of()).prepare([TRUSTED])
        assert caught.value.exit_code == 3
        for words in ("apt install bubblewrap", "dnf install bubblewrap", "apk add bubblewrap"):
            assert words in (caught.value.remedy or "")

    run(test)


IN_A_NAMESPACE = """
import asyncio, concurrent.futures.thread, ctypes, os, sys
from pathlib import Path
from runner.errors import RunnerError
from runner.launch import seccomp
from runner.launch.sandbox import SandboxLauncher
from tests.contracts.homes import HOMES, Program, context_of

assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
print("made", flush=True)
sys.stdin.readline()
if sys.argv[1] == "the-last-one":
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
if len(sys.argv) > 2:
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
spec = next(kind.spec for kind in HOMES if kind.name == "sandbox-untrusted")

async def main():
    launcher = SandboxLauncher(context_of())
    try:
        await launcher.prepare([spec])
        it = Program(await launcher.open(spec, 1))
        await it.script("id -u")
        print(await it.line(), await it.end())
        await it.close()
    except RunnerError as error:
        print(type(error).__name__, error)
    await launcher.close()

asyncio.run(main())
"""


def in_a_namespace(users: str, *, last: bool = False, uid: int | None = None) -> str:
    """What an untrusted sandbox comes to in a user namespace with that map, of a runner that is root or `uid` in it.

    `last`: no further user namespace may be made there.
    """
    words = ["the-last-one" if last else "", *([] if uid is None else [str(uid)])]
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_NAMESPACE, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as runner:
        assert runner.stdout is not None
        if runner.stdout.readline() == "made\n":
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{runner.pid}/{name}").write_text(users)
        said, problem = runner.communicate("\n", timeout=50)
    assert not problem, problem
    return said.strip()


@as_root
def test_a_root_with_nobody_else_to_give_is_refused() -> None:
    assert "has no other users to give" in in_a_namespace("0 0 1")


@as_root
def test_a_root_with_few_users_gives_one_of_those() -> None:
    uid = in_a_namespace("0 0 65536").split()[0]
    assert 32767 <= int(uid) < 65534


@as_root
def test_where_nobody_may_make_user_namespaces_it_is_named() -> None:
    said = in_a_namespace("0 0 65536", last=True)
    assert said.startswith("MachineError ")
    assert "Creating new namespace failed" in said
    assert "user.max_user_namespaces" in said


@as_root
def test_a_runner_that_is_not_root_builds_sandboxes_as_itself() -> None:
    assert in_a_namespace("0 0 65536", uid=4242) == "4242 (0, None)"


def test_a_sandbox_that_cannot_be_built_leaves_nothing_open(folder: Path) -> None:
    async def test() -> None:
        launcher = SandboxLauncher(context_of())
        await launcher.prepare([UNTRUSTED])
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - does not block
        it = Program(await launcher.open(changed(UNTRUSTED, mounts=(Mount(folder / "gone", "/in"),)), 1))
        for _ in range(3):
            with pytest.raises(LaunchError):
                await it.script("exit 0")
        await it.close()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - the same
        await launcher.close()

    run(test)


@pytest.mark.alone  # it measures
@BOTH
def test_starts_are_close_to_those_of_a_bare_process(spec: Processor) -> None:
    """At most 30 ms more, in the best of several: the machine may be busy with something else."""
    bare = next(kind for kind in HOMES if kind.name == "process")

    async def start_s(launcher: Launcher, of: Processor) -> float:
        it = Program(await launcher.open(of, 1))
        before_s = time.perf_counter()
        await it.start("/bin/true")
        assert await it.end() == (0, None)
        took_s = time.perf_counter() - before_s
        await it.close()
        return took_s

    async def test() -> None:
        process, sandbox = bare.launcher(context_of()), SandboxLauncher(context_of())
        more_s = min([await start_s(sandbox, spec) - await start_s(process, bare.spec) for _ in range(20)])
        await process.close()
        await sandbox.close()
        assert more_s < 0.030

    run(test)


def test_mounts_that_come_and_go_do_not_stop_a_start(bubblewrap: str, tmp_path: Path) -> None:
    """bwrap binds the machine's mounts one by one; one that is gone when it is its turn would end it."""
    del bubblewrap
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    base = tmp_path / "shared"
    base.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(base)], check=True)
    subprocess.run(["mount", "--make-shared", str(base)], check=True)  # as systemd has it for all of them
    places = [base / str(number) for number in range(30)]
    for place in places:
        place.mkdir()
    churn = [sys.executable, str(Path(__file__).with_name("mounts_churn.py")), *map(str, places)]
    with subprocess.Popen(churn) as churning:
        try:
            command = [sys.executable, str(Path(__file__).with_name("start_often.py"))]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
        finally:
            churning.kill()
            churning.wait()
            subprocess.run(["umount", "--recursive", "--lazy", str(base)], check=True)
    assert (done.returncode, done.stdout) == (0, "40 started\n"), done.stderr
