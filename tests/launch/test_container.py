"""The home `container`, on the engine of this machine: what is kept of an image, restarts, ends, walls, leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.errors import LaunchError, MachineError
from runner.events import Progress, Warned
from runner.launch import box, owner
from runner.launch import container as container_home
from runner.launch.base import PROBE, LaunchRequest, ShimLostError
from runner.spec.model import MIB, Mount, Processor, Resources
from tests.e2e.connector import until
from tests.engine import docker
from tests.launch.containers import Launched, launched, pids_with, program, run, running, spec_of, untrusted
from tests.launch.images import ARCH, own_tag, registry, scratch, small

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


SMALL, TALKS, VOLUME, SCRATCH = map(own_tag, ("small", "talks", "volume", "scratch"))


@pytest.fixture(scope="session")
def images(engine: str) -> Iterator[str]:
    """A few programs (`SMALL`), the same as images that say much of themselves, the shim alone; yields `SMALL`."""
    del engine
    tags = [
        small(Cmd=["sh", "-c", "echo of the image"]).load(SMALL),
        small(
            Env=["PATH=/bin", "GREETING=hello"],
            User="guest",
            WorkingDir="/work",
            Entrypoint=["sh", "-c", 'echo "$GREETING $*, $(id -u), $(pwd)"'],
            Cmd=["it", "world"],
        ).load(TALKS),
        small(Volumes={"/data": {}}, User="1234").load(VOLUME),
        scratch().load(SCRATCH),
    ]
    yield tags[0]
    docker("rmi", "-f", *tags)


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


# -- the walls


def test_the_profile_of_an_untrusted_processor(images: str) -> None:
    async def test() -> None:
        async with running(untrusted(VOLUME)) as (made, it):
            await it.start(*ECHO)
            assert await it.line() == "up"
            found = json.loads(docker("inspect", *made.containers()))[0]
            status = proc(it.pid, "status").read_text()
            limits = proc(it.pid, "limits").read_text()
        host = found["HostConfig"]
        assert (host["NetworkMode"], host["IpcMode"], host["CgroupnsMode"]) == ("none", "none", "private")
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["LogConfig"]["Type"] == "none"
        assert host["Memory"] == host["MemorySwap"] == 512 * MIB
        assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 65)
        assert not [mount for mount in found["Mounts"] if mount["Type"] == "volume"]
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in status
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert len(set(uids)) == 1
        assert int(uids[0]) >= 1 << 30
        gid = found["Config"]["User"].partition(":")[2]
        assert f"Groups:\t{gid} \n" in status
        for name, value in (("Max open files", "256"), ("Max core file size", "0")):
            assert next(line for line in limits.splitlines() if line.startswith(name)).split()[-3:-1] == [value] * 2

    del images
    run(test)


def test_what_an_untrusted_processor_can_see_and_write(images: str) -> None:
    async def test() -> None:
        async with running(untrusted(VOLUME)) as (_, it):
            said = await it.says(
                "sh", "-c", "for f in / /work /data /tmp /dev /dev/shm; do touch $f/x && echo $f; done"
            )
            assert said.split() == ["/data", "/tmp"]
            said = await it.says("sh", "-c", "dd if=/dev/zero of=/tmp/x bs=1M count=100; wc -c < /tmp/x")
            assert int(said) == 64 * MIB
            assert await it.says("ls", "/sys/class/net") == "lo"
            assert await it.says("sh", "-c", "echo $HOME") == "/tmp"
            said = await it.says("sh", "-c", "cp /bin/cat /tmp/c || cat /bin/cat > /tmp/c; /tmp/c /dev/null || echo no")
            assert said == "no"

    del images
    run(test)


def test_replicas_are_not_the_same_user(images: str) -> None:
    async def test() -> None:
        spec = untrusted(images, replicas=2)
        async with launched(spec) as made, program(made, spec, 1) as one, program(made, spec, 2) as two:
            said = [await it.says("sh", "-c", "id -u; id -g") for it in (one, two)]
            uids, gids = zip(*(each.split() for each in said), strict=True)
            assert len(set(uids)) == 2
            assert len(set(gids)) == 1

    run(test)


def test_a_way_out_of_its_own_is_made_and_taken_away(images: str) -> None:
    async def test() -> None:
        spec = untrusted(images, network="outbound", replicas=2)
        async with launched(spec) as made, program(made, spec) as it:
            assert set((await it.says("ls", "/sys/class/net")).split()) == {"lo", "eth0"}
            network = json.loads(docker("network", "inspect", f"connector-pipeline-p-{made.run}"))[0]
            assert network["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
        assert not docker("network", "ls", "-q", "--filter", f"label=connector.run={made.run}")

    run(test)


def test_networks_of_trusted_ones(images: str) -> None:
    async def test() -> None:
        async with running(spec_of(images, network="host")) as (_, it):
            assert set((await it.says("ls", "/sys/class/net")).split()) == set(os.listdir("/sys/class/net"))  # noqa: PTH208
        async with running(spec_of(images, network="outbound")) as (_, it):
            assert set((await it.says("ls", "/sys/class/net")).split()) == {"lo", "eth0"}

    run(test)


def test_mounts_are_read_only_unless_they_say_otherwise(images: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file.txt").write_text("there\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    tmp_path.chmod(0o700)  # who may go through it does not matter to the engine

    async def test() -> None:
        mounts = (Mount(tmp_path / "in", "/in"), Mount(tmp_path / "out", "/out", writable=True))
        for spec in (spec_of(images, mounts=mounts), untrusted(images, mounts=mounts)):
            async with running(spec) as (_, it):
                said = await it.says(
                    "sh", "-c", "cat /in/file.txt; touch /in/x || echo no; echo yes > /out/x; cat /out/x"
                )
                assert said.split() == ["there", "no", "yes"]
                assert (tmp_path / "out/x").read_text() == "yes\n"
                (tmp_path / "out/x").unlink()

    run(test)


def test_a_template_is_seen_where_it_is(images: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo of the template")
    tmp_path.chmod(0o755)

    async def test() -> None:
        async with running(untrusted(images, template=tmp_path)) as (_, it):
            assert await it.says("sh", f"{tmp_path}/script") == "of the template"

    run(test)


# -- errors in words


def refused(spec: Processor, kind: type[Exception], *words: str, command: tuple[str, ...] = ()) -> None:
    """Whatever comes first, `prepare` or the start, says all of `words`, and no container stays."""
    seen: list[Launched] = []

    async def test() -> None:
        async with launched(spec) as made:
            seen.append(made)
            async with program(made, spec) as it:
                await it.start(*(command or spec.command))

    with pytest.raises(kind) as caught:
        run(test)
    for word in words:
        assert word in str(caught.value)
    for made in seen:
        assert not made.containers()


def test_a_program_that_is_not_in_the_image(images: str) -> None:
    refused(spec_of(images, "nowhere"), LaunchError, '"nowhere"', images, "not there")


def test_a_program_that_cannot_be_executed(images: str) -> None:
    refused(spec_of(images, "/etc/passwd"), LaunchError, '"/etc/passwd"', images, "cannot be executed")


def test_an_image_without_a_command(images: str) -> None:
    refused(spec_of(VOLUME), LaunchError, "no command of its own", "command = ")
    del images


def test_a_folder_that_is_not_in_the_image(images: str) -> None:
    async def test() -> None:
        async with running(spec_of(images, directory=Path("/nowhere"))) as (_, it):
            with pytest.raises(LaunchError, match="folder cannot be entered"):
                await it.start("ls", directory="/nowhere")

    run(test)


def test_an_image_that_is_not_there() -> None:
    refused(spec_of("connector-test/nowhere:1"), MachineError, "connector-test/nowhere:1 is not there", "processor p")


def test_an_image_for_another_machine(images: str) -> None:
    other = "arm64" if ARCH == "amd64" else "amd64"
    layers = scratch()
    layers.arch = other
    tag = layers.load(own_tag("other"))
    try:
        refused(spec_of(tag), MachineError, f"is for {other}, this machine is {ARCH}")
    finally:
        docker("rmi", tag)
    del images


def test_a_network_that_is_not_there(images: str) -> None:
    words = ("no network nowhere-at-all", "docker network create nowhere-at-all")
    refused(spec_of(images, "ls", network="nowhere-at-all"), MachineError, *words)


def test_the_engines_socket_is_never_mounted(images: str) -> None:
    for source in ("/var/run/docker.sock", "/run", "/"):
        mounts = (Mount(Path(source), "/target"),)
        for spec in (spec_of(images, "ls", mounts=mounts), untrusted(images, "ls", mounts=mounts)):
            refused(spec, LaunchError, "not mounted into anything")


def test_a_mount_that_its_user_cannot_reach(images: str, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o750)
    spec = untrusted(images, "ls", mounts=(Mount(closed, "/closed"),))
    refused(spec, LaunchError, str(closed), "0750", "chmod o+rx", "processor p")
    closed.chmod(0o755)
    spec = untrusted(images, "ls", mounts=(Mount(closed, "/closed", writable=True),))
    refused(spec, LaunchError, str(closed), "0755", "chown 1")


def test_a_mount_that_went_away(images: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    spec = spec_of(images, mounts=(Mount(folder, "/folder"),))
    refused(spec_of(images, "ls", mounts=(Mount(tmp_path / "nowhere", "/folder"),)), LaunchError, "nowhere", "refused")

    async def test() -> None:
        async with launched(spec) as made, program(made, spec) as it:
            folder.rmdir()
            with pytest.raises(LaunchError, match=f"mount of {folder} is refused"):
                await it.start("ls")
            assert not folder.exists()

    run(test)


def test_a_file_on_a_folder(images: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    spec = spec_of(images, "ls", mounts=(Mount(file, "/work"),))
    refused(spec, LaunchError, "the mount at /work is refused")


def test_too_little_memory(images: str) -> None:
    refused(spec_of(images, "ls", resources=Resources(memory_bytes=MIB)), LaunchError, "limit of memory is too small")


def test_a_user_that_the_image_does_not_have(images: str) -> None:
    tag = small(User="nobody-at-all").load(own_tag("nobody"))
    try:
        refused(spec_of(tag, "ls"), LaunchError, "no user nobody-at-all")
    finally:
        docker("rmi", tag)
    del images


# -- downloads


def progress(made: Launched) -> list[Progress]:
    """What it told of that; of what a dead runner of another test has left it may tell as well."""
    return [event for event in made.events if isinstance(event, Progress)]


def test_an_image_is_fetched_once_with_progress(images: str) -> None:
    layers = small()
    layers.files["etc/large.txt"] = os.urandom(8 * MIB)
    with registry({"test/small:1": layers}) as host:
        name = f"{host}/test/small:1"

        async def test() -> None:
            specs = [spec_of(name, "id", name=each, pull="missing") for each in ("p", "q")]
            async with launched(*specs) as made, program(made, specs[1]) as it:
                assert "uid=0" in await it.says("id")
                told = progress(made)
                assert {event.what for event in told} == {f"image {name}"}
                assert [event.done for event in told].count(True) == 1
                assert told[-1].done
                assert told[-1].fraction == 1.0
            async with launched(*specs) as made:
                assert not progress(made)
            async with launched(spec_of(name, pull="always")) as made:
                assert progress(made)

        try:
            run(test)
            missing = f"{host}/test/small:2"
            refused(spec_of(missing, pull="missing"), MachineError, missing, "nor in its registry", "processor p")
        finally:
            docker("rmi", "-f", name)
    refused(spec_of(missing, pull="missing"), MachineError, missing, "registry cannot be reached", "docker load")
    del images


def test_a_download_can_be_broken_off(engine: str) -> None:
    gate = threading.Event()
    with registry({"test/small:1": small()}, gate) as host:
        name = f"{host}/test/small:1"

        async def test() -> None:
            preparing = asyncio.create_task(_prepare(spec_of(name, pull="missing")))
            await asyncio.wait({preparing}, timeout=0.5)
            assert not preparing.done()
            preparing.cancel()
            done, _ = await asyncio.wait({preparing}, timeout=5)
            assert done

        try:
            run(test)
        finally:
            gate.set()
    del engine
    docker("rmi", name, code=None)


async def _prepare(spec: Processor) -> None:
    async with launched(spec):
        pass


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
