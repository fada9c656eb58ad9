"""SIGKILL of the runner over durable chains: nothing lost, nothing doubled in any channel, and the account is right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.e2e.connector import Connector
from tests.faults.broken import broken
from tests.faults.durable import Kills, Plan
from tests.faults.harness import seed

SAMPLE_KILLS = 3
SOAK_KILLS = 240
SOAK_KILLS_EACH = 40
BOTH, STREAMS = ("one-to-one", "one-to-one"), ("stream", "stream")
PLANS = (
    Plan(0, 0, BOTH),
    Plan(1, 0, BOTH, replicas=(3, 2, 1), resume="self", durability="disk"),
    Plan(2, 0, BOTH, replicas=(1, 2, 2), resume="live", capacity="1MiB"),
    Plan(3, 0, STREAMS, "stream"),
    Plan(4, 0, STREAMS, replicas=(2, 3, 1), resume="self", capacity="1MiB"),
    Plan(5, 0, ("stream", "one-to-one"), "stream", replicas=(1, 3, 2), resume="live", durability="disk"),
)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_killed_runners(connector: Connector, plan: Plan) -> None:
    Kills(connector, dataclasses.replace(plan, seed=seed() + plan.seed, kills=SAMPLE_KILLS)).run()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("round_", range(SOAK_KILLS // SOAK_KILLS_EACH))
def test_soak_killed_runners(connector: Connector, round_: int) -> None:
    plan = PLANS[round_ % len(PLANS)]
    Kills(connector, dataclasses.replace(plan, seed=seed() + round_, kills=SOAK_KILLS_EACH)).run()


def test_they_catch_broken_channels(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLANS[0], seed=seed(), kills=SAMPLE_KILLS)
    with pytest.raises(AssertionError, match=r"are answered|message \d+ of c[23] is|doubled in"):
        Kills(Connector(tmp_path, broken("cursor-later")), plan).run()
