"""SIGKILL of the runner over files that are written, read and followed: nothing lost, doubled or torn in them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from tests.e2e.connector import Connector
from tests.faults import broken_files
from tests.faults.files import Kills, Plan
from tests.faults.harness import seed

SAMPLE_KILLS = 3
SOAK_KILLS = 1000
SOAK_KILLS_EACH = 40
PLANS = (
    Plan(0, 0),
    Plan(1, 0, "self", "disk", replicas=3),
    Plan(2, 0, "file"),
    Plan(3, 0, "follow", "disk"),
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


def test_they_catch_a_broken_file(tmp_path: Path) -> None:
    broken = (sys.executable, str(Path(broken_files.__file__)))
    plan = dataclasses.replace(PLANS[0], seed=seed(), kills=SAMPLE_KILLS)
    with pytest.raises(AssertionError, match="not what was sent"):
        Kills(Connector(tmp_path, broken), plan).run()
