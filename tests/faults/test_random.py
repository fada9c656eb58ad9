"""Random pipelines under random kills: a sample in each test run, the full counts under `make soak`.

Each round has the seed after that of the round before. A round that fails prints its pipeline, its schedule, and the
command that has it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.connector import Connector
from tests.faults.campaign import Campaign, Outcome, Plan
from tests.faults.harness import seed
from tests.faults.relay import Relay, relay, relay_image
from tests.faults.schedule import Deaths
from tests.faults.schedule import draw as draw_schedule
from tests.faults.topology import Limits, Topology
from tests.faults.topology import draw as draw_topology
from tests.launch.private_engine import PrivateEngine, lasting_engine

__all__ = ["lasting_engine", "relay", "relay_image"]

AT_ONCE = 2
"""Rounds of a soak that run side by side."""
PROCESS, SANDBOX, CONTAINER = "process", "sandbox", "container"


@dataclass(frozen=True)
class Rounds:
    """So many pipelines with their schedules. `middles`: only what is between sources and sinks is killed."""

    count: int
    limits: Limits
    deaths: Deaths
    middles: bool = False

    def plan(self, number: int, again: str) -> Plan:
        """That of a seed."""
        topology = draw_topology(number, self.limits)
        deaths = self.deaths.only(part.name for part in topology.middles) if self.middles else self.deaths
        return Plan(number, topology, draw_schedule(number, topology, deaths), again)


CHAIN = partial(Limits, durable=True, chain=3, quick=True)
SAMPLES = {
    "programs": Rounds(3, Limits(), Deaths(25)),
    "runners": Rounds(2, Limits(durable=True), Deaths(15, 1)),
    "sandboxes": Rounds(1, Limits((SANDBOX,)), Deaths(30)),
}
CONTAINER_SAMPLE = Rounds(1, Limits((PROCESS, SANDBOX, CONTAINER), durable=True), Deaths(15, 1))
SOAKS = {
    "programs": Rounds(20, CHAIN(), Deaths(500), middles=True),
    "sandboxes": Rounds(8, CHAIN((SANDBOX,)), Deaths(125, pause_s=0.03), middles=True),
    "runners": Rounds(50, CHAIN(), Deaths(40, 20)),
    "anything": Rounds(24, Limits((PROCESS, SANDBOX), durable=True), Deaths(60, 2)),
    "mixed": Rounds(12, Limits((PROCESS, SANDBOX)), Deaths(100)),
}
ENGINE_SOAK = Rounds(4, CHAIN((CONTAINER,)), Deaths(10, 1, pause_s=0.1, engines=4), middles=True)
CONTAINER_SOAK = Rounds(8, CHAIN((CONTAINER,)), Deaths(63, pause_s=0.1), middles=True)


def sample(connector: Connector, relay: Relay, rounds: Rounds, round_: int, test: str) -> None:
    number = seed() + round_
    run(connector, relay, rounds.plan(number, again(number, test)))


def run(connector: Connector, relay: Relay, plan: Plan, engine: PrivateEngine | None = None) -> Outcome:
    outcome = Campaign(connector, relay, plan, engine=engine).run()
    print(f"CONNECTOR_SEED={plan.seed}: {outcome}")
    return outcome


def again(number: int, test: str, *options: str) -> str:
    """The command that has this round again, as the first of its test."""
    words = [f"CONNECTOR_SEED={number}", ".venv/bin/python -m pytest -s", *options]
    return " ".join([*words, f"'tests/faults/test_random.py::{test}'"])


def soak(folder: Path, relay: Relay, rounds: Rounds, test: str, engine: PrivateEngine | None = None) -> None:
    """All rounds, a few at a time; the figures of all of them together."""

    def one(number: int) -> Outcome:
        place = folder / str(number)
        place.mkdir()
        return run(Connector(place), relay, rounds.plan(number, again(number, test, "-m soak")), engine)

    first = seed()
    with ThreadPoolExecutor(AT_ONCE if engine is None else 1) as executor:
        outcomes = list(executor.map(one, range(first, first + rounds.count)))
    figures: Counter[str] = Counter()
    for outcome in outcomes:
        figures.update(outcome.figures)
    print(f"{test}, {rounds.count} rounds from CONNECTOR_SEED={first}: {dict(figures)}, 0 lost, 0 doubled")


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize(("what", "round_"), [(name, n) for name, each in SAMPLES.items() for n in range(each.count)])
def test_random_kills(connector: Connector, relay: Relay, what: str, round_: int) -> None:
    sample(connector, relay, SAMPLES[what], round_, f"test_random_kills[{what}-0]")


@pytest.mark.engine
@pytest.mark.usefixtures("bubblewrap", "relay_image")
def test_random_kills_with_containers(connector: Connector, relay: Relay) -> None:
    sample(connector, relay, CONTAINER_SAMPLE, 0, "test_random_kills_with_containers")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("what", SOAKS)
def test_soak_random_kills(tmp_path: Path, relay: Relay, what: str) -> None:
    soak(tmp_path, relay, SOAKS[what], f"test_soak_random_kills[{what}]")


@pytest.mark.soak
@pytest.mark.engine
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("bubblewrap", "relay_image")
def test_soak_random_kills_with_containers(tmp_path: Path, relay: Relay) -> None:
    soak(tmp_path, relay, CONTAINER_SOAK, "test_soak_random_kills_with_containers")


@pytest.mark.soak
@pytest.mark.engine
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("engine")
def test_soak_random_kills_of_an_engine(tmp_path: Path, relay: Relay, lasting_engine: PrivateEngine) -> None:
    relay.load(lasting_engine.host)
    soak(tmp_path, relay, ENGINE_SOAK, "test_soak_random_kills_of_an_engine", lasting_engine)


def test_a_seed_is_a_plan() -> None:
    rounds = Rounds(1, Limits((PROCESS, SANDBOX, CONTAINER)), Deaths(50, 5))
    for number in range(200):
        one, other = rounds.plan(number, ""), rounds.plan(number, "")
        assert (one.schedule, one.topology) == (other.schedule, other.topology)
        assert (one.schedule.victims, one.schedule.runners) == (50, 5)
        assert all(reached(one.topology)), one.topology


def reached(topology: Topology) -> Iterator[bool]:
    """Of each channel, whether somebody writes it, and whether somebody reads it or it ends in a file."""
    for channel in topology.channels:
        yield any(channel in part.writes for part in topology.parts)
        yield channel in topology.files or any(channel == part.reads for part in topology.parts)
