"""The home `process`: started, ended and cleaned up by a shim, whatever the program does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from runner.errors import LaunchError
from runner.events import Exited
from runner.launch.base import LaunchContext, LaunchRequest
from runner.launch.process import ProcessHandle, ProcessLauncher
from runner.launch.tree import carries_mark, end_orphans
from runner.spec.model import Processor

RUN = "a-run-of-the-tests"
SPEC = Processor(name="p", command=("true",), directory=Path("/"))
HIDES = {
    "a child": "sleep 1000 & ",
    "a session of its own": "setsid sleep 1000 & ",
    "a double fork": "(setsid sh -c 'sleep 1000 & exit' &) ; ",
    "one that ignores signals": "sh -c 'trap \"\" TERM INT HUP; sleep 1000; sleep 1000' & ",
}


class Program:
    """A handle, and a pipe from the program's stdout."""

    def __init__(self, handle: ProcessHandle) -> None:
        self.handle = handle
        self.pid = 0
        self._null = os.open(os.devnull, os.O_RDWR)
        self._ours, self._theirs = os.pipe()

    async def start(self, *command: str, directory: str = "/") -> None:
        request = LaunchRequest(
            command=command,
            directory=directory,
            env={"PATH": os.environ["PATH"], "CONNECTOR_RUN": RUN},
            ports={0: self._null, 1: self._theirs, 2: self._null},
        )
        self.pid = await self.handle.start(request)

    async def line(self) -> str:
        return await asyncio.to_thread(self._line)

    def _line(self) -> str:
        data = b""
        while not data.endswith(b"\n"):
            data += os.read(self._ours, 1)
        return data.decode().strip()

    def nobody_writes(self) -> bool:
        """Whether every copy of the program's stdout is closed: nobody of its tree is left."""
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1
        os.set_blocking(self._ours, False)
        try:
            return os.read(self._ours, 1) == b""
        except BlockingIOError:
            return False

    async def close(self) -> None:
        await self.handle.close()
        for descriptor in (self._null, self._ours, self._theirs):
            if descriptor >= 0:
                os.close(descriptor)

    @property
    def shim_pid(self) -> int:
        return int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1])


def launcher_of(run: str) -> ProcessLauncher:
    return ProcessLauncher(LaunchContext(run, "pipeline", exclusive=False, notify=lambda _: None))


@contextlib.asynccontextmanager
async def program(launcher: ProcessLauncher | None = None, spec: Processor | None = None) -> AsyncIterator[Program]:
    launcher = launcher or launcher_of(RUN)
    made = Program(await launcher.open(SPEC if spec is None else spec, 1))
    try:
        yield made
    finally:
        await made.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(40):
            await test()

    asyncio.run(bounded())


def reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def as_ended(exited: Exited) -> tuple[int | None, int | None]:
    return exited.code, exited.signal


def test_a_program_starts_and_ends_and_may_be_asked_twice() -> None:
    async def test() -> None:
        async with program() as it:
            await it.start("sh", "-c", "echo $$; exit 7")
            assert await it.line() == str(it.pid)
            assert as_ended(await it.handle.exited()) == as_ended(await it.handle.exited()) == (7, None)

    run(test)


def test_it_can_be_started_again_in_the_same_shim() -> None:
    async def test() -> None:
        async with program() as it:
            shims = set()
            for code in (1, 2, 3):
                await it.start("sh", "-c", f"trap 'exit {code}' USR1; echo up; while :; do sleep 0.01; done")
                assert await it.line() == "up"
                shims.add(it.shim_pid)
                it.handle.signal(signal.SIGUSR1)
                assert as_ended(await it.handle.exited()) == (code, None)
                await it.handle.kill_tree()
            assert len(shims) == 1

    run(test)


def test_signals_reach_the_program() -> None:
    async def test() -> None:
        async with program() as it:
            await it.start("sh", "-c", "trap 'exit 3' USR1; echo up; while :; do sleep 0.01; done")
            assert await it.line() == "up"
            it.handle.signal(signal.SIGUSR1)
            assert as_ended(await it.handle.exited()) == (3, None)
            it.handle.signal(signal.SIGUSR1)  # to nobody

    run(test)


@pytest.mark.parametrize("hides", HIDES)
def test_kill_tree_leaves_nobody(hides: str) -> None:
    async def test() -> None:
        async with program() as it:
            await it.start("sh", "-c", HIDES[hides] + "echo up; exec sleep 1000")
            assert await it.line() == "up"
            await it.handle.kill_tree()
            assert as_ended(await it.handle.exited()) == (None, signal.SIGKILL)
            assert it.nobody_writes()

    run(test)


@pytest.mark.parametrize("hides", HIDES)
def test_a_killed_shim_leaves_nobody(hides: str) -> None:
    async def test() -> None:
        async with program() as it:
            await it.start("sh", "-c", HIDES[hides] + "echo up; exec sleep 1000")
            assert await it.line() == "up"
            os.kill(it.shim_pid, signal.SIGKILL)
            assert as_ended(await it.handle.exited()) == (None, None)
            assert it.handle.shim_died
            assert it.nobody_writes()

    run(test)


def test_many_killed_shims_leave_nobody() -> None:
    """The program dies with its shim, and only then are its children ours: they are looked for until that is over."""

    async def test() -> None:
        launcher = launcher_of(RUN)
        survived = 0
        for _ in range(150):
            async with program(launcher) as it:
                await it.start("sh", "-c", "sleep 1000 & echo up; exec sleep 1000")
                assert await it.line() == "up"
                os.kill(it.shim_pid, signal.SIGKILL)
                await it.handle.exited()
                survived += not it.nobody_writes()
        assert survived == 0

    try:
        run(test)
    finally:
        end_orphans(lambda pid: carries_mark(pid, f"CONNECTOR_RUN={RUN}".encode()))


def test_after_the_death_of_a_shim_the_next_start_brings_a_new_one() -> None:
    async def test() -> None:
        async with program() as it:
            await it.start("sleep", "1000")
            os.kill(it.shim_pid, signal.SIGKILL)
            await it.handle.exited()
            await it.start("sh", "-c", "exit 4")
            assert as_ended(await it.handle.exited()) == (4, None)
            assert not it.handle.shim_died

    run(test)


def test_closing_ends_everything_and_may_be_done_twice() -> None:
    async def test() -> None:
        async with program() as it:
            await it.start("sh", "-c", HIDES["a double fork"] + "echo up; exec sleep 1000")
            assert await it.line() == "up"
            await it.handle.close()
            await it.handle.close()
            assert it.nobody_writes()

    run(test)


def test_nothing_stays_open_or_unreaped() -> None:
    async def test() -> None:
        launcher = launcher_of(RUN)
        before = len(list(Path("/proc/self/fd").iterdir()))  # noqa: ASYNC240 - /proc does not block
        for _ in range(3):
            async with program(launcher) as it:
                await it.start("sh", "-c", "exit 0")
                await it.handle.exited()
        assert launcher.shims == set()
        assert len(list(Path("/proc/self/fd").iterdir())) == before  # noqa: ASYNC240 - the same

    run(test)


@pytest.mark.parametrize(
    ("command", "directory", "said"),
    [
        (("/nowhere/at-all",), "/", "cannot be executed: No such file"),
        (("/etc/passwd",), "/", "cannot be executed: Permission denied"),
        (("true",), "/nowhere/at-all", "its folder cannot be entered: No such file"),
    ],
)
def test_what_cannot_be_started_says_why_and_leaves_the_shim_usable(
    command: tuple[str, ...], directory: str, said: str
) -> None:
    async def test() -> None:
        async with program() as it:
            with pytest.raises(LaunchError, match=said):
                await it.start(*command, directory=directory)
            await it.start("sh", "-c", "exit 5")
            assert as_ended(await it.handle.exited()) == (5, None)

    run(test)


def test_a_child_of_the_host_survives_an_embedded_runner() -> None:
    """Neither a child of the host's own nor an orphan of somebody else is touched when a shim is killed."""

    async def test() -> None:
        host_s = subprocess.Popen(["sleep", "1000"])  # noqa: ASYNC220 - a program's own child, as any host has
        other_s = subprocess.Popen(  # noqa: ASYNC220 - the same
            ["sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & exit"], stdout=subprocess.PIPE
        )
        assert other_s.stdout is not None
        orphan = int(await asyncio.to_thread(other_s.stdout.readline))
        other_s.wait()
        try:
            async with program() as it:
                await it.start("sh", "-c", HIDES["a session of its own"] + "echo up; exec sleep 1000")
                assert await it.line() == "up"
                os.kill(it.shim_pid, signal.SIGKILL)
                await it.handle.exited()
            assert host_s.poll() is None
            os.kill(orphan, 0)
        finally:
            other_s.stdout.close()
            for pid in (host_s.pid, orphan):
                os.kill(pid, signal.SIGKILL)
            host_s.wait()
            reap(orphan)

    run(test)


def test_an_exclusive_runner_ends_orphans_that_hide_their_mark() -> None:
    """In a process of its own: the orphan has an empty environment."""
    script = """
import asyncio, os, signal
from runner.launch.base import LaunchContext
from runner.launch.process import ProcessLauncher
from tests.launch.test_process import program

async def main():
    async with program(ProcessLauncher(LaunchContext("r", "p", True, print))) as it:
        await it.start("sh", "-c", "env -i PATH=$PATH setsid sleep 1000 & echo up; exec sleep 1000")
        assert await it.line() == "up"
        os.kill(it.shim_pid, signal.SIGKILL)
        await it.handle.exited()
        print(it.nobody_writes())

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert (done.stdout, done.stderr) == ("True\n", "")
