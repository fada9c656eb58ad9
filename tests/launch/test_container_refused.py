"""Containers that cannot be had: what is said, and what is downloaded."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from runner.errors import LaunchError, MachineError
from runner.events import Progress
from runner.spec.model import MIB, Mount, Processor, Resources
from tests.engine import docker
from tests.launch.conftest import VOLUME
from tests.launch.containers import Launched, launched, program, run, running, spec_of, untrusted
from tests.launch.images import ARCH, own_tag, registry, scratch, small

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]


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
