"""SIGKILL of programs on each SDK at random moments, in a durable chain: nothing lost, nothing doubled."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.children.build import PYTHON
from tests.conftest import need_program
from tests.e2e.connector import Connector
from tests.faults.campaign import Campaign, Plan
from tests.faults.harness import seed
from tests.faults.relay import Relay, relay
from tests.faults.schedule import Deaths, draw
from tests.faults.topology import Part, Topology

__all__ = ["relay"]

SAMPLE, SOAK = Deaths(8, 1, pause_s=0.1), Deaths(200, 10, pause_s=0.1)
PROJECT = Path(__file__).parents[2]
PROGRAMS = PROJECT / "tests" / "sdk" / "programs"
LANGUAGES = ("python", "javascript", "java")


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Where the Java program is, compiled when it is asked for."""
    folder = tmp_path_factory.mktemp("classes")

    def compiled() -> Path:
        if not (folder / "Modes.class").exists():
            sources = [PROJECT / "sdk" / "java" / "ConnectorProcessor.java", PROGRAMS / "Modes.java"]
            subprocess.run([need_program("javac"), "-d", folder, *sources], check=True, timeout=120)
        return folder

    return compiled


def command(language: str, classes: Callable[[], Path]) -> tuple[str, ...]:
    """The program of each language; how it answers follows."""
    if language == "python":
        return (PYTHON, str(PROGRAMS / "modes.py"))
    if language == "javascript":
        return (need_program("node"), str(PROGRAMS / "modes.mjs"))
    options = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
    return (need_program("java"), *options, "-cp", str(classes()), "Modes")


def chain(program: tuple[str, ...]) -> Topology:
    """A source, the program three times (one by one, in batches, two replicas that answer from anywhere), sinks."""
    channels = {f"c{n}": {"kind": "durable", "durability": "process", "capacity": "8MiB"} for n in range(1, 5)}
    channels["c4"]["capacity"] = "256MiB"
    ways = (("echo", 1), ("batches", 1), ("manual", 2))
    middles = (
        Part(way, "given", "acknowledged", f"c{n}", (f"c{n + 1}",), "lines", replicas, given=(*program, way))
        for n, (way, replicas) in enumerate(ways, 1)
    )
    parts = (
        Part("source-a", "source", "stream", None, ("c1",), resume="self", origin="a"),
        *middles,
        Part("store-c4", "store", "acknowledged", "c4"),
        Part("held-c4", "held", "one-to-one", "c4"),
    )
    return Topology(parts, channels, frozenset({"c1", "c2", "c3"}))


def kill(connector: Connector, relay: Relay, program: tuple[str, ...], deaths: Deaths) -> None:
    topology = chain(program)
    number = seed()
    schedule = draw(number, topology, deaths.only(part.name for part in topology.middles))
    plan = Plan(number, topology, schedule, f"CONNECTOR_SEED={number}, the same test")
    print(Campaign(connector, relay, plan).run())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_on_an_sdk(connector: Connector, relay: Relay, classes: Callable[[], Path], language: str) -> None:
    kill(connector, relay, command(language, classes), SAMPLE)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("language", LANGUAGES)
def test_soak_a_program_on_an_sdk(
    connector: Connector, relay: Relay, classes: Callable[[], Path], language: str
) -> None:
    kill(connector, relay, command(language, classes), SOAK)
