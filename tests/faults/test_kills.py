"""SIGKILL at random moments: a seeded sample for every day, the full counts under `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.children.build import Programs, script
from tests.e2e.connector import Connector
from tests.faults.harness import Plan, run_counted_kills, run_kills, seed
from tests.faults.programs import VICTIMS, Victim

SAMPLE_KILLS = 20
SOAK_KILLS = 1000


@pytest.mark.parametrize(("victim", "replicas"), [(victim, 1 + n % 2) for n, victim in enumerate(VICTIMS)], ids=str)
def test_one_to_one(connector: Connector, programs: Programs, victim: Victim, replicas: int) -> None:
    command = victim.command(programs)
    plan = Plan(seed(), SAMPLE_KILLS, command, victim.codec, victim.form, replicas=replicas)
    run_kills(connector, plan).expect_nothing_lost()


def test_one_to_one_as_fast_as_it_goes(connector: Connector) -> None:
    """Full pipes and windows: what a dead program leaves behind is as much as there can be."""
    plan = Plan(seed(), SAMPLE_KILLS, ["cat"], rate_per_s=200_000)
    run_kills(connector, plan).expect_nothing_lost()


@pytest.mark.parametrize("codec", ["lines", "length-prefixed", "null"])
def test_one_to_one_with_a_small_window(connector: Connector, codec: str) -> None:
    plan = Plan(seed(), SAMPLE_KILLS, ["cat"], codec, replicas=2, more={"in_flight": {"messages": 5}})
    run_kills(connector, plan).expect_nothing_lost()


COUNTED = {"python": script("counted"), "c": None}


def counted(programs: Programs, language: str) -> list[str]:
    """The program whose reading can be counted from outside."""
    if not Path("/proc/self/io").exists():
        pytest.skip("this kernel counts no reads (/proc/self/io)")
    return COUNTED[language] or programs.c("counted")


@pytest.mark.parametrize("language", COUNTED)
@pytest.mark.parametrize("replicas", [1, 2])
def test_stream_counts_exactly(connector: Connector, programs: Programs, language: str, replicas: int) -> None:
    plan = Plan(seed(), SAMPLE_KILLS, counted(programs, language), replicas=replicas, rate_per_s=50_000)
    check_stream(connector, plan)


def check_stream(connector: Connector, plan: Plan) -> None:
    """The ledger balances, indeterminate is exactly what killed runs had read, and nothing else is lost."""
    outcome, read_by_killed = run_counted_kills(connector, plan)
    outcome.result.completed()
    account = outcome.result.account("c1", "victim")
    told = f"{outcome.summary()}, {read_by_killed} read by killed runs\n{outcome.result}"
    assert account["written"] == outcome.sent, told
    assert account.get("indeterminate", 0) == read_by_killed, told
    assert account.get("acknowledged", 0) == outcome.sent - read_by_killed, told
    assert (outcome.doubled, outcome.foreign) == (0, 0), told
    assert outcome.lost <= read_by_killed, told
    assert outcome.ordered or plan.replicas > 1, told
    assert outcome.result.processor("victim")["restarts"] == outcome.kills, told
    passed = outcome.sent - outcome.lost
    assert outcome.result.account("c2", "sink") == {"written": passed, "acknowledged": passed}, told


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("victim", VICTIMS, ids=str)
def test_soak_one_to_one(connector: Connector, programs: Programs, victim: Victim, replicas: int) -> None:
    command = victim.command(programs)
    plan = Plan(seed(), SOAK_KILLS, command, victim.codec, victim.form, replicas=replicas)
    run_kills(connector, plan).expect_nothing_lost()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("language", COUNTED)
def test_soak_stream(connector: Connector, programs: Programs, language: str, replicas: int) -> None:
    plan = Plan(seed(), SOAK_KILLS, counted(programs, language), replicas=replicas, rate_per_s=20_000)
    check_stream(connector, plan)
