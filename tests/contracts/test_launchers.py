"""The launcher contract (`runner/launch/base.py`) against every home. Its programs are shell scripts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import LaunchError
from runner.launch.base import PROBE
from runner.launch.cgroup import CgroupHome
from runner.spec.model import MIB, Home, Resources
from tests.conftest import without
from tests.contracts.homes import ANOTHER_RUN, HOMES, HomeKind, program, run, started
from tests.launch.shims import PLACE

HIDES = {
    "a child": "sleep 1000 & ",
    "a session of its own": "setsid sleep 1000 & ",
    "a double fork": "(setsid sh -c 'sleep 1000 & exit' &) ; ",
    "one that ignores signals": "sh -c 'trap \"\" TERM INT HUP; sleep 1000; sleep 1000' & ",
}
ON_USR1 = "trap 'exit {}' USR1; echo up; while :; do sleep 0.01; done"


@pytest.fixture(params=[pytest.param(kind, id=kind.name, marks=kind.marks) for kind in HOMES])
def kind(request: pytest.FixtureRequest) -> HomeKind:
    found: HomeKind = request.param
    if found.fixture is not None:
        request.getfixturevalue(found.fixture)
    return found


def test_a_program_starts_and_ends_and_may_be_asked_twice(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.script("echo hello; exit 7")
            assert await it.line() == "hello"
            assert await it.end() == await it.end() == (7, None)
            assert (await it.handle.exited()).note is None

    run(test)


def test_its_process_id_is_the_one_out_here(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.start("sh", "-c", "echo up; while :; do sleep 1; done", "the-name-of-this-one")
            assert await it.line() == "up"
            if it.pid:
                command = Path(f"/proc/{it.pid}/cmdline").read_bytes().split(b"\0")  # noqa: ASYNC240 - does not block
                assert command[-2] == b"the-name-of-this-one"

    run(test)


def test_it_can_be_started_again(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            for code in (1, 2, 3):
                await it.script(ON_USR1.format(code))
                assert await it.line() == "up"
                it.handle.signal(signal.SIGUSR1)
                assert await it.end() == (code, None)
                await it.handle.kill_tree()

    run(test)


def test_signals_reach_the_program_and_then_nobody(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.script(ON_USR1.format(3))
            assert await it.line() == "up"
            it.handle.signal(signal.SIGUSR1)
            assert await it.end() == (3, None)
            it.handle.signal(signal.SIGUSR1)

    run(test)


def test_an_end_by_a_signal_is_told_as_one(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.script("kill -SEGV $$")
            assert await it.end() == (None, signal.SIGSEGV)

    run(test)


@pytest.mark.parametrize("hides", HIDES)
def test_kill_tree_leaves_nobody(kind: HomeKind, hides: str) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.script(HIDES[hides] + "echo up; exec sleep 1000")
            assert await it.line() == "up"
            await it.handle.kill_tree()
            assert it.nobody_writes()
            assert await it.end() == (None, signal.SIGKILL)

    run(test)


@pytest.mark.parametrize("hides", HIDES)
def test_what_outlives_the_program_ends_with_the_tree(kind: HomeKind, hides: str) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.script(HIDES[hides] + "echo up; exit 5")
            assert await it.end() == (5, None)
            assert not it.nobody_writes()
            await it.handle.kill_tree()
            assert await it.rest() == "up\n"
            assert await it.end() == (5, None)

    run(test)


def test_closing_ends_everything_and_may_be_done_twice(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.script(HIDES["a double fork"] + "echo up; exec sleep 1000")
            assert await it.line() == "up"
            await it.handle.close()
            await it.handle.close()
            assert await it.rest() == ""

    run(test)


def test_a_handle_that_started_nothing_closes(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.handle.kill_tree()
            it.handle.signal(signal.SIGTERM)

    run(test)


def test_nothing_stays_open(kind: HomeKind) -> None:
    async def test() -> None:
        async with started(kind) as launcher:
            before = None
            for _ in range(4):
                async with program(kind, launcher) as it:
                    await it.script("exit 0")
                    assert await it.end() == (0, None)
                after = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - does not block
                assert before in {None, after}  # the first one may open what the launcher keeps
                before = after

    run(test)


@pytest.mark.parametrize(
    ("command", "directory", "said"),
    [
        (("/nowhere/at-all",), "/", "No such file"),
        (("/etc/passwd",), "/", "Permission denied"),
        (("true",), "/nowhere/at-all", "No such file"),
    ],
)
def test_what_cannot_be_started_says_why_and_leaves_the_handle_usable(
    kind: HomeKind, command: tuple[str, ...], directory: str, said: str
) -> None:
    async def test() -> None:
        async with program(kind) as it:
            if directory != "/" and kind.own_files:
                await it.start(*command, directory=directory)
                assert await it.end() == (0, None)
            else:
                with pytest.raises(LaunchError, match=said):
                    await it.start(*command, directory=directory)
            await it.handle.kill_tree()
            await it.script("exit 5")
            assert await it.end() == (5, None)

    run(test)


def test_variables_are_added_to_what_the_home_has(kind: HomeKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_RUNNER", "seen")

    async def test() -> None:
        async with program(kind) as it:
            await it.start("sh", "-c", "echo $ADDED,${OF_THE_RUNNER-unset},${PATH:+path}", env={"ADDED": "a b"})
            assert await it.line() == f"a b,{'unset' if kind.own_environment else 'seen'},path"

    run(test)


def test_it_has_its_ports_and_nothing_else(kind: HomeKind) -> None:
    async def test() -> None:
        read_end, write_end = os.pipe()
        try:
            async with program(kind) as it:
                await it.start("sh", "-c", "echo hello >&7; cd /proc/self/fd; echo *", ports={7: write_end})
                assert await it.line() in {"0 1 2 7", "0 1 2 3 7"}  # 3: the folder that the shell is reading
                assert os.read(read_end, 100) == b"hello\n"
        finally:
            os.close(read_end)
            os.close(write_end)

    run(test)


def test_its_ports_can_be_opened_by_their_paths(kind: HomeKind) -> None:
    async def test() -> None:
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        try:
            async with program(kind) as it:
                await it.start("sh", "-c", "cat /dev/fd/5 > /dev/fd/7", ports={5: in_read, 7: out_write})
                os.close(in_read)
                in_read = -1
                os.write(in_write, b"through\n")
                os.close(in_write)
                in_write = -1
                assert await it.end() == (0, None)
                assert os.read(out_read, 100) == b"through\n"
        finally:
            for descriptor in (in_read, in_write, out_read, out_write):
                if descriptor >= 0:
                    os.close(descriptor)

    run(test)


def test_no_signal_is_ignored_or_blocked(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.start("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
            assert [await it.line(), await it.line()] == [f"{name}:\t{0:016x}" for name in ("SigBlk", "SigIgn")]

    run(test)


def test_probes_run_beside_the_program(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.start("sh", "-c", "echo up; exec sleep 1000", env={"MARK": "17"}, directory="/usr")
            assert await it.line() == "up"
            assert (await it.handle.probe(("sh", "-c", "test $PWD = /usr && exit $MARK"))).code == 17
            assert (await it.handle.probe((PROBE, "file", "bin"))).ok
            assert (await it.handle.probe((PROBE, "file", "/nowhere"))).code == 1
            with pytest.raises(LaunchError, match="No such file"):
                await it.handle.probe(("/nowhere/at-all",))
            await it.handle.kill_tree()
            assert await it.end() == (None, signal.SIGKILL)

    run(test)


def test_a_cancelled_probe_is_killed(kind: HomeKind) -> None:
    """It holds no descriptor of ours, so its end is seen by that of a second one, which waits for the first."""

    async def test() -> None:
        async with program(kind) as it:
            await it.script("echo up; exec sleep 1000")
            assert await it.line() == "up"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await it.handle.probe(("sleep", "1000"))
            assert (await it.handle.probe(("true",))).ok

    run(test)


def test_a_probe_dies_with_the_tree(kind: HomeKind) -> None:
    async def test() -> None:
        async with program(kind) as it:
            await it.script("echo up; exec sleep 1000")
            assert await it.line() == "up"
            probe = asyncio.ensure_future(it.handle.probe(("sleep", "1000")))
            await asyncio.sleep(0)
            await it.handle.kill_tree()
            with contextlib.suppress(LaunchError):  # it may not have got as far as its beginning
                assert not (await probe).ok

    run(test)


def test_files_are_limited(kind: HomeKind) -> None:
    if not kind.limits:
        pytest.skip("its container is limited by who starts it")

    async def test() -> None:
        async with program(kind, resources=Resources(files=77)) as it:
            await it.script("ulimit -n; ulimit -Hn")
            assert [await it.line(), await it.line()] == ["77", "77"]

    run(test)


def test_out_of_memory_is_named_with_the_limit(kind: HomeKind) -> None:
    """The death of the program, and the next start has nothing to do with it."""
    if not kind.limits:
        pytest.skip("its container is limited by who starts it")
    if kind.spec.home is not Home.CONTAINER and "memory" not in CgroupHome.find().enforced:
        without("no control group can be made for memory here")
    balloon = "x=$(head -c 200000000 /dev/zero | tr '\\0' x)"  # in the shell itself

    async def test() -> None:
        async with program(kind, resources=Resources(memory_bytes=32 * MIB)) as it:
            await it.script(balloon)
            exited = await it.handle.exited()
            assert (exited.code, exited.signal) == (None, signal.SIGKILL)
            assert exited.note == "out of memory: its limit is 32 MiB"
            await it.handle.kill_tree()
            await it.script("exit 3")
            exited = await it.handle.exited()
            assert (exited.code, exited.note) == (3, None)

    run(test)


def test_a_killed_runner_leaves_nobody(kind: HomeKind) -> None:
    """In a process of its own, which is killed: the pipe that its program holds comes to its end."""
    script = f"""
import asyncio, os
from tests.contracts.homes import HOMES, started
from runner.launch.base import LaunchRequest

async def main():
    kind = next(kind for kind in HOMES if kind.name == "{kind.name}")
    async with started(kind, "{ANOTHER_RUN}", exclusive=True) as launcher:
        handle = await launcher.open(kind.spec, 1)
        null = os.open(os.devnull, os.O_RDWR)
        command = ("sh", "-c", {HIDES["a double fork"]!r} + "trap '' TERM; echo up; while :; do sleep 1; done")
        await handle.start(LaunchRequest(command, "/", {{}}, {{0: null, 1: 1, 2: null}}))
        await handle.exited()

asyncio.run(main())
"""
    with (
        tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as place,
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, PLACE: place}
        ) as runner,
    ):
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"up\n"
        runner.kill()
        within(10, lambda: runner.stdout is not None and runner.stdout.read() == b"")
    CgroupHome.find().sweep()


def within(limit_s: float, condition: Callable[[], bool]) -> None:
    """`condition` waits by itself and then holds; it takes no longer than that."""

    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            assert await asyncio.to_thread(condition)

    asyncio.run(bounded())
