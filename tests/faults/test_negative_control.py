"""The kill suites can see what they are there to see: they catch every runner that was broken on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.connector import Connector
from tests.faults.broken import LATER_S, WAYS, broken
from tests.faults.campaign import Campaign
from tests.faults.campaign import Plan as Campaigned
from tests.faults.doomed import IN_IMAGE, Doomed, alive, contained, doomed, doomed_image, marked, sandboxed
from tests.faults.harness import Outcome, Plan, kill_with_input, run_kills, seed
from tests.faults.relay import Relay, relay
from tests.faults.schedule import Act, Life, Schedule, Victim
from tests.faults.topology import Part, Topology

__all__ = ["doomed", "doomed_image", "relay"]

KILLS = 3  # each of a program with input that it has not answered, so each loses some
BROKEN = broken("forgets")


def test_the_harness_catches_a_broken_bridge(tmp_path: Path) -> None:
    caught(run_kills(Connector(tmp_path, BROKEN), Plan(seed(), KILLS, ["cat"]), kill=kill_with_input))


@pytest.mark.engine
@pytest.mark.usefixtures("doomed_image")
def test_it_does_with_containers(tmp_path: Path) -> None:
    plan = Plan(seed(), KILLS, marked(IN_IMAGE), more=contained("trusted"))
    caught(run_kills(Connector(tmp_path, BROKEN), plan, alive, kill_with_input))


@pytest.mark.usefixtures("bubblewrap")
def test_it_does_with_sandboxes(tmp_path: Path, doomed: Doomed) -> None:
    plan = Plan(seed(), KILLS, marked(doomed.file), more=sandboxed(doomed, "untrusted"), home="sandbox")
    caught(run_kills(Connector(tmp_path, BROKEN), plan, kill=kill_with_input))


def caught(outcome: Outcome) -> None:
    """The harness has seen the loss."""
    with pytest.raises(AssertionError):
        outcome.expect_nothing_lost()
    assert outcome.lost >= KILLS, outcome.summary()


# -- random pipelines


PATIENCE_S = 3.0
DURABLE, MEMORY = {"kind": "durable", "durability": "process", "capacity": "8MiB"}, {"kind": "memory"}
DEATHS = tuple(Act(0.02, 300, (Victim("middle", stopped_s=0.3),)) for _ in range(4))
PASSING = (Act(0.1, 300, ()), Act(2 * LATER_S, 1, ()))
KILLED = Life((Act(0.0, 300, ()),), 0.05)


def pipeline(channel: dict[str, str], program: str) -> Topology:
    """One processor between a source and a sink."""
    contract = "acknowledged" if program == "dies" else "one-to-one"
    parts = (
        Part("source-a", "source", "stream", None, ("c1",), resume="self", origin="a"),
        Part("middle", program, contract, "c1", ("c2",)),
        Part("store-c2", "store", "acknowledged", "c2"),
        *([Part("held-c2", "held", "one-to-one", "c2")] if channel is DURABLE else ()),
    )
    return Topology(parts, {"c1": channel, "c2": channel}, frozenset({"c1", "c2"}))


CONTROLS = {
    "forgets": (pipeline(MEMORY, "echo"), (Life(DEATHS),), "are lost"),
    "overtakes": (pipeline(MEMORY, "echo"), (Life((DEATHS[0], *PASSING)),), "comes after"),
    "repeats": (pipeline(MEMORY, "half"), (Life((Act(0.0, 500, ()),)),), "is message"),
    "lets-out": (pipeline(MEMORY, "dies"), (Life((Act(0.0, 500, ()),)),), "is message"),
    "cursor-later": (pipeline(DURABLE, "echo"), (KILLED, Life()), "is message"),
    "cursor-first": (pipeline(DURABLE, "echo"), (KILLED, Life()), "are lost"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_campaign_catches_a_runner_that(tmp_path: Path, relay: Relay, way: str) -> None:
    topology, lives, told = CONTROLS[way]
    plan = Campaigned(seed(), topology, Schedule(lives), "-")
    with pytest.raises(AssertionError, match=told):
        Campaign(Connector(tmp_path, broken(way)), relay, plan, patience_s=PATIENCE_S).run()
