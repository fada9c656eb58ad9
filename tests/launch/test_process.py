"""The home `process`: what is its own. What every home does is in tests/contracts/test_launchers.py."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.launch.base import Launcher
from runner.launch.cgroup import CgroupHome
from runner.launch.process import ProcessLauncher
from runner.launch.tree import carries_mark, end_orphans
from runner.spec.model import MIB, Resources
from tests.conftest import without
from tests.contracts.homes import HOMES, RUN, Program, context_of, program, run

PROCESS = next(kind for kind in HOMES if kind.name == "process")
HIDES = {
    "a child": "sleep 1000 & ",
    "a session of its own": "setsid sleep 1000 & ",
    "a double fork": "(setsid sh -c 'sleep 1000 & exit' &) ; ",
    "one that ignores signals": "sh -c 'trap \"\" TERM INT HUP; sleep 1000; sleep 1000' & ",
}
BALLOON = 'x=$(head -c 200000000 /dev/zero | tr "\\0" x)'


def shim_pid(it: Program) -> int:
    return int(Path(f"/proc/{it.pid}/stat").read_text().rpartition(")")[2].split()[1])


def groups_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.fixture
def cgroups() -> CgroupHome:
    """Where groups can be made for all that they can hold."""
    home = CgroupHome.find()
    if home.missing:
        without(f"control groups cannot be made for everything here: {home.missing}")
    return home


def test_it_is_started_again_by_the_same_shim() -> None:
    async def test() -> None:
        async with program(PROCESS) as it:
            shims = set()
            for _ in range(3):
                await it.script("echo up; sleep 1000")
                assert await it.line() == "up"
                shims.add(shim_pid(it))
                await it.handle.kill_tree()
            assert len(shims) == 1

    run(test)


@pytest.mark.parametrize("hides", HIDES)
def test_a_killed_shim_leaves_nobody(hides: str) -> None:
    async def test() -> None:
        async with program(PROCESS) as it:
            await it.script(HIDES[hides] + "echo up; exec sleep 1000")
            assert await it.line() == "up"
            os.kill(shim_pid(it), signal.SIGKILL)
            assert await it.end() == (None, None)
            assert it.nobody_writes()

    run(test)


def test_many_killed_shims_leave_nobody() -> None:
    """The program dies with its shim, and only then are its children ours: they are looked for until that is over."""

    async def test() -> None:
        launcher = ProcessLauncher(context_of())
        survived = 0
        for _ in range(150):
            async with program(PROCESS, launcher) as it:
                await it.script("sleep 1000 & echo up; exec sleep 1000")
                assert await it.line() == "up"
                os.kill(shim_pid(it), signal.SIGKILL)
                await it.end()
                survived += not it.nobody_writes()
        assert survived == 0

    try:
        run(test)
    finally:
        end_orphans(lambda pid: carries_mark(pid, f"CONNECTOR_RUN={RUN}".encode()))


def test_after_the_death_of_a_shim_the_next_start_brings_a_new_one() -> None:
    async def test() -> None:
        async with program(PROCESS) as it:
            await it.start("sleep", "1000")
            os.kill(shim_pid(it), signal.SIGKILL)
            assert await it.end() == (None, None)
            await it.script("exit 4")
            assert await it.end() == (4, None)

    run(test)


def test_every_shim_is_reaped() -> None:
    async def test() -> None:
        launcher = ProcessLauncher(context_of())
        async with program(PROCESS, launcher) as it:
            await it.script("exit 0")
            await it.end()
            assert len(launcher.shims) == 1
        assert launcher.shims == set()

    run(test)


def test_the_shims_of_another_launcher_are_no_orphans() -> None:
    """In a process of its own: one launcher cleans up with a rough hand while another's program runs."""
    script = """
import asyncio, os, signal
from runner.launch.process import ProcessLauncher
from tests.contracts.homes import context_of, program
from tests.launch.test_process import PROCESS, shim_pid

async def main():
    one, other = (ProcessLauncher(context_of("r", exclusive=True)) for _ in range(2))
    async with program(PROCESS, one) as it, program(PROCESS, other) as dies:
        await it.script("echo up; while :; do sleep 0.01; done")
        assert await it.line() == "up"
        await dies.start("sleep", "1000")
        os.kill(shim_pid(dies), signal.SIGKILL)
        await dies.end()
        os.kill(shim_pid(it), 0)
        it.handle.signal(signal.SIGTERM)
        print(await it.end())

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert (done.stdout, done.stderr) == (f"(None, {signal.SIGTERM:d})\n", "")


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
            async with program(PROCESS) as it:
                await it.script(HIDES["a session of its own"] + "echo up; exec sleep 1000")
                assert await it.line() == "up"
                os.kill(shim_pid(it), signal.SIGKILL)
                await it.end()
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
from runner.launch.process import ProcessLauncher
from tests.contracts.homes import context_of, program
from tests.launch.test_process import PROCESS, shim_pid

async def main():
    async with program(PROCESS, ProcessLauncher(context_of("r", exclusive=True))) as it:
        await it.script("env -i PATH=$PATH setsid sleep 1000 & echo up; exec sleep 1000")
        assert await it.line() == "up"
        os.kill(shim_pid(it), signal.SIGKILL)
        await it.end()
        print(it.nobody_writes())

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert (done.stdout, done.stderr) == ("True\n", "")


# -- resources


def test_without_limits_there_is_no_control_group() -> None:
    async def test() -> None:
        async with program(PROCESS, resources=Resources(files=64)) as it:
            await it.script("echo up; sleep 1000")
            assert await it.line() == "up"
            assert groups_of(it.pid) == groups_of(os.getpid())

    run(test)


def test_a_control_group_holds_program_and_shim_and_goes_with_the_handle(cgroups: CgroupHome) -> None:
    async def test() -> None:
        launcher = ProcessLauncher(context_of())
        try:
            async with program(PROCESS, launcher, resources=Resources(memory_bytes=64 * MIB, cpus=1, pids=8)) as it:
                await it.script("echo up; sleep 1000")
                assert await it.line() == "up"
                for pid in (it.pid, shim_pid(it)):
                    assert groups_of(pid).count(f"/{RUN}.p.1") == len(cgroups.places)
                made = [folder for place in cgroups.places for folder in place.folder.glob(f"*/{RUN}.p.1")]
                assert len(made) == len(cgroups.places)
                assert Path(f"/proc/{it.pid}/limits").read_text().count(str(64 * MIB)) == 0  # noqa: ASYNC240 - /proc
            assert not any(folder.exists() for folder in made)
        finally:
            await launcher.close()
        assert not any(folder.parent.exists() for folder in made)

    run(test)


def test_what_no_control_group_holds_is_held_by_rlimits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where none can be made (its check finds nothing to write to)."""
    monkeypatch.setattr(CgroupHome, "find", classmethod(lambda cls: cls((), {"memory": "", "cpus": "", "pids": ""})))
    wanted = Resources(memory_bytes=64 * MIB, cpus=0.5, pids=4000, files=99, disk_bytes=MIB)

    async def test() -> None:
        async with program(PROCESS, resources=wanted) as it:
            await it.script("echo up; sleep 1000")
            assert await it.line() == "up"
            for number, value in (
                (resource.RLIMIT_DATA, 64 * MIB),
                (resource.RLIMIT_NPROC, 4000),
                (resource.RLIMIT_NOFILE, 99),
                (resource.RLIMIT_FSIZE, MIB),
            ):
                assert resource.prlimit(it.pid, number) == (value, value)

    run(test)


def test_a_group_that_is_refused_is_told_and_rlimits_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Found writable, and then gone: as it happens to a delegated group."""
    told: list[str] = []

    def vanished() -> CgroupHome:
        found = CgroupHome.find()
        places = [dataclasses.replace(place, folder=tmp_path / "gone") for place in found.places]
        return CgroupHome(places, found.missing)

    async def test() -> None:
        launcher = ProcessLauncher(context_of(notify=lambda event: told.append(str(event))))
        monkeypatch.setitem(launcher.__dict__, "_cgroups", vanished())
        async with program(PROCESS, launcher, resources=Resources(memory_bytes=64 * MIB)) as it:
            await it.script("echo up; sleep 1000")
            assert await it.line() == "up"
            assert resource.prlimit(it.pid, resource.RLIMIT_DATA)[0] == 64 * MIB

    run(test)
    assert "rlimits alone" in told[0]


def test_a_number_of_processes_is_held(cgroups: CgroupHome) -> None:
    async def test() -> None:
        async with program(PROCESS, resources=Resources(pids=5)) as it:
            await it.script("for i in 1 2 3 4 5 6 7; do sleep 1000 & done; echo never")
            assert await it.end() == (2, None)  # dash ends when it cannot fork
            await it.handle.kill_tree()
            await it.script("for i in 1 2 3 4; do sleep 1000 & done; echo four and itself")
            assert await it.line() == "four and itself"

    run(test)


def test_a_child_that_is_killed_for_want_of_memory_is_named(cgroups: CgroupHome) -> None:
    async def test() -> None:
        async with program(PROCESS, resources=Resources(memory_bytes=32 * MIB)) as it:
            await it.script(f"sh -c '{BALLOON}'; exit $?")
            exited = await it.handle.exited()
            assert (exited.code, exited.signal) == (128 + signal.SIGKILL, None)
            assert exited.note == "out of memory: its limit is 32 MiB"

    run(test)


def test_one_that_lives_on_without_its_child_has_nothing_to_explain(cgroups: CgroupHome) -> None:
    async def test() -> None:
        async with program(PROCESS, resources=Resources(memory_bytes=32 * MIB)) as it:
            await it.script(f"sh -c '{BALLOON}'; echo $?; exit 0")
            assert await it.line() == "137"
            exited = await it.handle.exited()
            assert (exited.code, exited.note) == (0, None)

    run(test)


def test_a_shim_that_dies_of_the_programs_memory_is_the_programs_death(cgroups: CgroupHome) -> None:
    """The kernel may take the shim as well; here it is killed once the kernel has killed something else."""

    async def test() -> None:
        async with program(PROCESS, resources=Resources(memory_bytes=32 * MIB)) as it:
            await it.script(f"sh -c '{BALLOON}'; echo dead; exec sleep 1000")
            assert await it.line() == "dead"
            os.kill(shim_pid(it), signal.SIGKILL)
            exited = await it.handle.exited()
            assert (exited.code, exited.signal) == (None, signal.SIGKILL)
            assert exited.note == "out of memory: its limit is 32 MiB"
            assert it.nobody_writes()

    run(test)


def test_launchers_close_without_having_opened_anything() -> None:
    async def test() -> None:
        launcher: Launcher = ProcessLauncher(context_of())
        await launcher.close()

    run(test)
