"""`connector sidecar` beside real containers: no network, no capabilities, any user, root and bridge read-only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_image
from tests.e2e.connector import until
from tests.e2e.sidecar import Sidecar
from tests.engine import docker
from tests.launch.images import own_tag, scratch

IMAGE = "debian:trixie-slim"
COUNT = 300_000
NAMES = ("source", "middle")
HALF = COUNT // 2
SOURCE = f"seq {HALF}; until [ -e /tmp/go ]; do sleep 0.05; done; seq {HALF + 1} {COUNT}"
WALL = (
    *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "12345:12345", "--pids-limit", "64", "--ipc", "none", "--tmpfs", "/tmp:mode=1777"),
)

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]


class Containers:
    """Containers with a shim that stays as their first process; all are removed in the end."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._run = os.urandom(4).hex()
        self._names: list[str] = []

    def start(self, processor: str, *options: str, image: str = IMAGE) -> str:
        name = f"connector-test-{self._run}-{len(self._names)}-{processor}"
        self._names.append(name)
        bridge = f"{self._sidecar.shims.path}/{processor}:/bridge:ro"
        command = ("--entrypoint", "/bridge/connector-shim", image, "--stay", "/bridge/shim.sock")
        docker("run", "--detach", "--name", name, *WALL, *options, "--volume", bridge, *command)
        return name

    def remove(self) -> None:
        if self._names:
            docker("rm", "--force", *self._names)


@contextlib.contextmanager
def containers(sidecar: Sidecar) -> Iterator[Containers]:
    made = Containers(sidecar)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def pipeline(tmp_path: Path) -> dict[str, Any]:
    """What a `cat` in a container answers ends in a file, by the runner's own hand."""
    need_image(IMAGE)
    return {
        "processors": {
            "source": {"image": IMAGE, "command": ["sh", "-c", SOURCE], "writes": "raw", "resume": "skip"},
            "middle": {"image": IMAGE, "command": ["cat"], "reads": "raw", "writes": "out", "contract": "one-to-one"},
        },
        "channels": {
            "raw": {"kind": "durable", "durability": "process"},
            "out": {"kind": "file", "path": str(tmp_path / "out"), "durability": "process"},
        },
    }


def whole(tmp_path: Path) -> bool:
    return (tmp_path / "out").read_text() == "".join(f"{number}\n" for number in range(1, COUNT + 1))


def flowing(sidecar: Sidecar, tmp_path: Path) -> None:
    """Wait until messages flow; the source holds the second half of them back."""
    out = tmp_path / "out"
    until(lambda: sidecar.dead() or (out.exists() and out.stat().st_size > 50_000), "messages to flow")
    assert not sidecar.dead(), sidecar.finish()


def go_on(source: str) -> None:
    docker("exec", source, "touch", "/tmp/go")


def code_of(container: str) -> int:
    return int(docker("wait", container))


def test_a_killed_container_is_waited_for_and_goes_on(pipeline: dict[str, Any], tmp_path: Path) -> None:
    """`docker kill` counts as a person's stop: nothing starts it again but a person."""
    with Sidecar(tmp_path, pipeline) as sidecar, containers(sidecar) as engine:
        sidecar.begin()
        names = [engine.start(each) for each in NAMES]
        flowing(sidecar, tmp_path)
        docker("kill", names[1])
        cause = "waiting for a container of `middle` (docker start?)"
        until(lambda: sidecar.dead() or sidecar.cause("middle") == cause, "the cause")
        docker("start", names[1])
        go_on(names[0])
        sidecar.finish().completed()
        assert whole(tmp_path)
        assert [code_of(name) for name in names] == [0, 0]


def test_a_killed_sidecar_costs_no_container(pipeline: dict[str, Any], tmp_path: Path) -> None:
    with Sidecar(tmp_path, pipeline) as sidecar, containers(sidecar) as engine:
        running = sidecar.begin()
        names = [engine.start(each) for each in NAMES]
        flowing(sidecar, tmp_path)
        running.process.kill()
        running.process.wait()
        sidecar.begin()
        go_on(names[0])
        sidecar.finish().completed()
        assert whole(tmp_path)
        assert [code_of(name) for name in names] == [0, 0]
        assert docker("inspect", "--format", "{{.RestartCount}}", *names).split() == ["0", "0"]


def test_a_restarted_container_goes_on(pipeline: dict[str, Any], tmp_path: Path) -> None:
    with Sidecar(tmp_path, pipeline) as sidecar, containers(sidecar) as engine:
        sidecar.begin()
        names = [engine.start(each) for each in NAMES]
        flowing(sidecar, tmp_path)
        docker("restart", names[1])
        go_on(names[0])
        result = sidecar.finish()
        result.completed()
        assert whole(tmp_path)
        assert "its container was stopped" in result.output
        assert [code_of(name) for name in names] == [0, 0]


def test_the_containers_environment_is_the_programs(pipeline: dict[str, Any], tmp_path: Path) -> None:
    pipeline["processors"]["source"] |= {
        "command": [
            "sh",
            "-c",
            "echo $OF_THE_CONTAINER $CONNECTOR_PROCESSOR $ADDED $PWD $(id -u); ls /proc | grep -c ^1$",
        ],
        "env": {"ADDED": "here"},
    }
    with Sidecar(tmp_path, pipeline) as sidecar, containers(sidecar) as engine:
        sidecar.begin()
        engine.start("source", "--env", "OF_THE_CONTAINER=yes", "--workdir", "/usr")
        engine.start("middle")
        sidecar.finish().completed()
        assert (tmp_path / "out").read_text() == "yes source here /usr 12345\n1\n"


def test_a_paused_container_is_given_up_and_comes_back(pipeline: dict[str, Any], tmp_path: Path) -> None:
    pipeline["processors"]["middle"]["stall"] = "2s"
    with Sidecar(tmp_path, pipeline) as sidecar, containers(sidecar) as engine:
        sidecar.begin()
        names = [engine.start(each) for each in NAMES]
        flowing(sidecar, tmp_path)
        docker("pause", names[1])
        go_on(names[0])
        try:
            until(lambda: sidecar.dead() or "docker start?" in sidecar.cause("middle"), "it to be given up", 40)
        finally:
            docker("unpause", names[1])
        sidecar.finish().completed()
        assert whole(tmp_path)
        assert [code_of(name) for name in names] == [0, 0]


@pytest.fixture
def scratch_image() -> Iterator[str]:
    """One program and nothing else."""
    tag = scratch().load(own_tag("sidecar-scratch"))
    yield tag
    docker("image", "rm", "--force", tag)


def test_an_image_without_a_shell_and_a_libc(scratch_image: str, tmp_path: Path) -> None:
    """What it executes is the shim's own prober, which sees the image's files."""
    pipeline = {"processors": {"one": {"command": ["connector-probe", "file", "/program"]}}}
    with Sidecar(tmp_path, pipeline) as sidecar, containers(sidecar) as engine:
        sidecar.begin()
        name = engine.start("one", image=scratch_image)
        sidecar.finish().completed()
        assert code_of(name) == 0
