"""The home `container`, on the engine of this machine: what is kept of an image, restarts, ends, walls, leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from runner.errors import LaunchError
from runner.events import Warned
from runner.launch import box, owner
from runner.launch import container as container_home
from runner.launch.base import PROBE, LaunchRequest, ShimLostError
from runner.spec.model import MIB, Resources
from tests.e2e.connector import until
from tests.engine import docker
from tests.launch.conftest import SCRATCH, TALKS, VOLUME
from tests.launch.containers import launched, pids_with, program, run, running, spec_of, untrusted

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

HIDES = {
    "a child": "sleep 1000 & ",
    "a session of its own": "setsid sleep 1000 & ",
    "a double fork": "(setsid sh -c 'sleep 1000 & exit' &) ; ",
    "one that ignores signals": "sh -c 'trap \"\" TERM INT HUP; sleep 1000; sleep 1000' & ",
}
ECHO = ("sh", "-c", "echo up; exec cat")
BALLOON = "tail /dev/zero"
LITTLE = Resources(memory_bytes=32 * MIB)


def proc(pid: int | str, file: str) -> Path:
    return Path(f"/proc/{pid}/{file}")


# -- what a program finds


def test_the_images_own_command_entrypoint_user_folder_and_environment_are_kept(images: str) -> None:
    async def test() -> None:
        async with running(spec_of(TALKS)) as (_, it):
            assert await it.says() == "hello world, 1234, /work"

    del images
    run(test)


def test_what_the_file_says_goes_over_what_the_image_says(images: str) -> None:
    async def test() -> None:
        spec = spec_of(TALKS, "you", "there", directory=Path("/tmp"))
        async with running(spec) as (_, it):
            said = await it.says("you", "there", directory="/tmp", env={"GREETING": "bye"})  # type: ignore[arg-type]
            assert said == "bye there, 1234, /tmp"
        async with running(spec_of(TALKS, "-u", entrypoint=("id",))) as (_, it):
            assert await it.says("-u") == "1234"

    del images
    run(test)


def test_an_image_from_scratch_works_and_is_looked_at_from_inside(images: str) -> None:
    async def test() -> None:
        async with running(untrusted(SCRATCH)) as (_, it):
            await it.start()
            assert "usage" in await it.line(it.stderr)
            assert await it.ended() == (2, None)
        waits = spec_of(SCRATCH, entrypoint=(PROBE,))  # a program that is nothing but the shim's code
        async with running(waits) as (_, it):
            await it.start("tcp", "127.0.0.1:1")
            assert (await it.handle.probe((PROBE, "file", "/program"))).ok
            assert not (await it.handle.probe((PROBE, "file", "/etc/passwd"))).ok

    del images
    run(test)


def test_at_most_four_are_started_at_once(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More would only queue in the engine, where nobody sees them wait."""
    starting, most = 0, 0
    open_box = box.open_box

    async def counted(*arguments: Any) -> Any:
        nonlocal starting, most
        starting += 1
        most = max(most, starting)
        try:
            return await open_box(*arguments)
        finally:
            starting -= 1

    monkeypatch.setattr(container_home, "open_box", counted)

    async def test() -> None:
        spec = spec_of(images, "sh", "-c", "echo up; exec cat")
        async with launched(spec) as made, contextlib.AsyncExitStack() as stack:

            async def start(replica: int) -> None:
                it = await stack.enter_async_context(program(made, spec, replica))
                await it.start("sh", "-c", "echo up; exec cat")
                assert await it.line() == "up"

            async with asyncio.TaskGroup() as group:
                for replica in range(1, 9):
                    group.create_task(start(replica))
            assert len(made.containers()) == 8

    run(test)
    assert most == container_home.MOST_STARTS == 4


def test_its_process_is_known_here_and_signals_reach_it(images: str) -> None:
    async def test() -> None:
        async with running(spec_of(images)) as (_, it):
            await it.start("sh", "-c", "trap 'exit 3' USR1; echo up; while :; do sleep 0.01; done")
            assert await it.line() == "up"
            assert b"trap" in proc(it.pid, "cmdline").read_bytes()
            it.handle.signal(signal.SIGUSR1)
            assert await it.ended() == await it.ended() == (3, None)

    run(test)


def test_ports_can_be_opened_again_by_another_user(images: str) -> None:
    async def test() -> None:
        for spec in (spec_of(VOLUME), untrusted(images)):
            async with running(spec) as (_, it):
                await it.start("sh", "-c", "id -u > /dev/stdout; cat /dev/stdin >> /dev/fd/1")
                assert int(await it.line()) > 1000
                os.write(it.stdin, b"through\n")
                assert await it.line() == "through"

    run(test)


# -- runs, one after the other


def test_a_trusted_program_is_started_again_in_its_container_and_all_else_in_it_is_dead(images: str) -> None:
    async def test() -> None:
        async with running(spec_of(images)) as (made, it):
            for code in (1, 2, 3):
                await it.start("sh", "-c", f"setsid sleep 1000 & echo here; echo $$ > /tmp/{code}; exit {code}")
                assert await it.line() == "here"
                assert await it.ended() == (code, None)
                await it.handle.kill_tree()
                assert "sleep" not in docker("top", *made.containers())
            assert len(made.containers()) == 1
            assert await it.says("ls", "/tmp") == "1\n2\n3"

    run(test)


def test_an_untrusted_program_gets_a_new_container_each_time(images: str) -> None:
    async def test() -> None:
        async with running(untrusted(images)) as (made, it):
            seen = set()
            for _ in range(3):
                assert await it.says("sh", "-c", "ls /tmp; touch /tmp/was-here; echo done") == "done"
                seen |= set(made.containers("--filter", "status=running"))
            assert len(seen) == 3
        assert not made.containers()

    run(test)


@pytest.mark.parametrize("hides", HIDES)
def test_kill_tree_leaves_nobody(images: str, hides: str) -> None:
    async def test() -> None:
        async with running(spec_of(images)) as (made, it):
            await it.start("sh", "-c", HIDES[hides] + "echo up; exec sleep 1000")
            assert await it.line() == "up"
            await it.handle.kill_tree()
            assert await it.ended() == (None, signal.SIGKILL)
            assert "sleep" not in docker("top", *made.containers())
            assert await it.rest() == ""

    run(test)


def test_a_probe_runs_beside_the_program_with_its_environment(images: str) -> None:
    async def test() -> None:
        async with running(untrusted(images)) as (_, it):
            await it.start(*ECHO, env={"ANSWER": "42"})
            assert await it.line() == "up"
            assert (await it.handle.probe(("sh", "-c", '[ "$ANSWER" = 42 ]'))).ok
            assert (await it.handle.probe(("sh", "-c", "exit 3"))).code == 3
            with pytest.raises(LaunchError, match="cannot be started"):
                await it.handle.probe(("nowhere",))

    run(test)


def test_close_leaves_nothing_and_may_come_twice(images: str) -> None:
    async def test() -> None:
        specs = [spec_of(images, name=f"p{number}") for number in range(6)]
        async with launched(*specs) as made:
            handles = [await made.launcher.open(spec, 1) for spec in specs]
            null = os.open(os.devnull, os.O_RDWR)
            request = LaunchRequest(("sleep", "1000"), None, {}, {0: null, 1: null, 2: null})
            await asyncio.gather(*(handle.start(request) for handle in handles))
            os.close(null)
            assert len(made.containers()) == 6
            await asyncio.gather(*(handle.close() for handle in handles))
            assert not made.containers()
            await asyncio.gather(*(handle.close() for handle in handles))
            folder = made.launcher._folder
            assert folder is not None
            assert list(folder.path.iterdir()) == []
        assert not folder.path.exists()

    run(test)


@pytest.mark.parametrize("after_ms", [0, 5, 20, 50, 100, 150, 200, 300])
def test_a_start_that_is_cancelled_leaves_no_container(images: str, after_ms: int) -> None:
    async def test() -> None:
        async with launched(spec_of(images)) as made:
            async with program(made, spec_of(images)) as it:
                starting = asyncio.create_task(it.start(*ECHO))
                await asyncio.wait({starting}, timeout=after_ms / 1000)
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await starting
            assert not made.containers()

    run(test)


# -- the end of the container itself


@pytest.mark.parametrize(
    ("command", "note"),
    [
        (("stop",), "its container was stopped, by the engine or by somebody"),
        (("kill",), "its container was killed"),
        (("rm", "-f"), "its container was"),
    ],
)
def test_a_container_that_somebody_ends_counts_for_nothing_and_another_follows(
    images: str, command: tuple[str, ...], note: str
) -> None:
    async def test() -> None:
        async with running(spec_of(images)) as (made, it):
            await it.start("sh", "-c", "trap '' TERM; echo up; cat; sleep 1000")
            assert await it.line() == "up"
            before = time.monotonic()
            await asyncio.to_thread(docker, *command, *made.containers())
            exited = await it.handle.exited()
            assert (exited.code, exited.signal) == (None, None)
            assert exited.note is not None
            assert exited.note.startswith(note)
            assert time.monotonic() - before < 8  # an engine gives ten seconds before it kills
            await it.handle.kill_tree()
            await it.start(*ECHO)
            assert await it.line() == "up"
            assert len(made.containers()) <= 2

    run(test)


def test_an_untrusted_container_that_somebody_ends_counts_for_nothing_either(images: str) -> None:
    """Nobody in it can have done that: the first process of a PID namespace gets no SIGKILL from inside."""

    async def test() -> None:
        async with running(untrusted(images)) as (made, it):
            await it.start(*ECHO)
            assert await it.line() == "up"
            await asyncio.to_thread(docker, "kill", *made.containers())
            exited = await it.handle.exited()
            assert (exited.code, exited.signal, exited.note) == (None, None, "its container was killed")

    run(test)


def test_a_handle_may_be_closed_while_it_starts(images: str) -> None:
    async def test() -> None:
        async with launched(spec_of(images)) as made:
            async with program(made, spec_of(images)) as it:
                starting = asyncio.create_task(it.start(*ECHO))
                await asyncio.wait({starting}, timeout=0.05)
                await it.handle.close()
                with pytest.raises(ShimLostError):
                    await starting
            assert not made.containers()

    run(test)


def test_a_paused_container_can_be_ended(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_home, "_LONGEST_KILL_S", 0.5)

    async def test() -> None:
        async with running(spec_of(images)) as (made, it):
            await it.start(*ECHO)
            assert await it.line() == "up"
            await asyncio.to_thread(docker, "pause", *made.containers())
            await it.handle.kill_tree()
            assert (await it.handle.exited()).code is None
            assert await it.rest() == ""

    run(test)


def test_out_of_memory_is_named_with_the_limit(images: str) -> None:
    async def test() -> None:
        async with running(spec_of(images, resources=LITTLE)) as (made, it):
            await it.start("sh", "-c", f"exec {BALLOON}")
            exited = await it.handle.exited()
            assert (exited.code, exited.signal) == (None, signal.SIGKILL)
            assert exited.note == "out of memory: its limit is 32 MiB"
            await it.handle.kill_tree()
            await it.start("sh", "-c", f"{BALLOON}; exit 5")
            exited = await it.handle.exited()
            assert exited.code == 5
            assert exited.note == "out of memory: its limit is 32 MiB"
            await it.handle.kill_tree()
            await it.start("sh", "-c", "exit 6")
            assert (await it.handle.exited()).note is None
            assert len(made.containers()) == 1

    run(test)


def test_want_of_memory_is_not_said_of_a_later_run_in_the_same_container(images: str) -> None:
    """The engine goes on saying it of the container."""

    async def test() -> None:
        async with running(spec_of(images, resources=LITTLE)) as (made, it):
            await it.start("sh", "-c", f"exec {BALLOON}")
            assert (await it.handle.exited()).note == "out of memory: its limit is 32 MiB"
            await it.handle.kill_tree()
            await it.start(*ECHO)
            assert await it.line() == "up"
            await asyncio.to_thread(docker, "kill", *made.containers())
            exited = await it.handle.exited()
            assert (exited.code, exited.signal, exited.note) == (None, None, "its container was killed")

    run(test)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have the kernel prefer the shim")
def test_a_shim_that_was_killed_for_want_of_memory_is_named_as_well(images: str) -> None:
    async def test() -> None:
        async with running(spec_of(images, resources=LITTLE)) as (made, it):
            await it.start("sh", "-c", f"read go; exec {BALLOON}")
            init = docker("inspect", "--format", "{{.State.Pid}}", *made.containers())
            proc(init, "oom_score_adj").write_text("1000")
            os.write(it.stdin, b"go\n")
            exited = await it.handle.exited()
            assert (exited.code, exited.signal) == (None, signal.SIGKILL)
            assert exited.note == "out of memory: its limit is 32 MiB"
            await it.handle.kill_tree()
            await it.start(*ECHO)
            assert await it.line() == "up"

    run(test)


# -- what a dead runner leaves

DIES = """
    import asyncio, os, sys
    from tests.launch.containers import launched, program, spec_of, untrusted

    async def main():
        specs = [spec_of(sys.argv[1], name="trusted"), untrusted(sys.argv[1], name="untrusted")]
        async with launched(*specs, run=sys.argv[2]) as made:
            async with program(made, specs[0]) as one, program(made, specs[1]) as two:
                for it in (one, two):
                    await it.start("sh", "-c",
                        f"setsid sleep {os.environ['MARK']} & echo up; trap '' TERM; sleep {os.environ['MARK']}")
                    assert await it.line() == "up"
                print("up", flush=True)
                await asyncio.sleep(1000)

    asyncio.run(main())
"""


@pytest.mark.alone  # a runner of another test would take the containers away
def test_a_killed_runner_leaves_no_process_and_its_containers_go_with_the_next_one(images: str) -> None:
    mark = f"{1000 + os.getpid()}.25"
    name = f"test-{os.urandom(4).hex()}"
    command = [sys.executable, "-c", textwrap.dedent(DIES), images, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "MARK": mark}) as runner:
        try:
            assert runner.stdout is not None
            assert runner.stdout.readline() == b"up\n"
            until(lambda: len(pids_with(mark)) == 4, "all four processes")

            async def beside() -> None:  # a living runner loses nothing
                async with launched(spec_of(images)) as made:
                    assert not [event for event in made.events if isinstance(event, Warned)]

            run(beside)
            until(lambda: len(pids_with(mark)) == 4, "all four processes")
        finally:
            runner.kill()
        deadline = time.monotonic() + 2
        while pids_with(mark) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not pids_with(mark)
        assert len(docker("ps", "-aq", "--filter", f"label=connector.run={name}").split()) == 2
        folders = list(Path("/run/connector").glob(f"connector-*-{runner.pid}-*")) if _is_root() else []
        assert len(folders) == _is_root()

        async def next_one() -> None:
            async with launched(spec_of(images)) as made:
                warned = [event.message for event in made.events if isinstance(event, Warned)]
                assert warned == ["2 containers of a runner that has died removed"]
                assert not docker("ps", "-aq", "--filter", f"label=connector.run={name}")
                assert not any(folder.exists() for folder in folders)

        run(next_one)  # while the killed one is a zombie: Popen waits for it only now


def _is_root() -> bool:
    return os.geteuid() == 0


def test_this_process_lives_and_a_zombie_does_not() -> None:
    assert owner.started(os.getpid()) == owner.this_owner().started
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner.started(child.pid) is None
    child.wait()
    assert owner.started(child.pid) is None
