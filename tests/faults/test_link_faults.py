"""Two runners, and three, with a proxy between them that cuts, delays, swallows and changes what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.faults.harness import seed
from tests.faults.links import Outcome, Plan, run
from tests.faults.proxy import What
from tests.nats_server import NatsServer

SAMPLE_FAULTS = 10

MEMORY = (Plan("tcp", 0), Plan("websocket", 0, listen="writer"), Plan("zeromq", 0))
PROTECTED = (Plan("tcp+tls", 0, listen="writer"), Plan("websocket+tls", 0), Plan("zeromq+curve", 0, listen="writer"))
DURABLE = (
    Plan("tcp", 0, durable=True, listen="writer"),
    Plan("websocket", 0, durable=True),
    Plan("zeromq", 0, durable=True, listen="writer"),
    Plan("websocket", 0, durable=True, middle=True),
)
CONTROLS = {
    "checks-nothing": ("foreign", (What.CORRUPT,)),
    "counts-nothing": ("doubled", (What.RESET,)),
    "forgets": ("lost", (What.RESET,)),
}


def sample(plan: Plan, folder: Path, faults: int = SAMPLE_FAULTS, server: NatsServer | None = None) -> Outcome:
    return run(folder, dataclasses.replace(plan, faults=faults, seed=seed()), server)


@pytest.mark.parametrize("plan", (*MEMORY, *PROTECTED, *DURABLE), ids=str)
def test_nothing_is_lost_or_doubled(plan: Plan, tmp_path: Path) -> None:
    sample(plan, tmp_path).expect_nothing_lost()


@pytest.mark.parametrize("way", CONTROLS)
def test_a_broken_link_is_caught(way: str, tmp_path: Path) -> None:
    term, only = CONTROLS[way]
    outcome = sample(Plan("tcp", 0, way=way, only=only), tmp_path)
    with pytest.raises(AssertionError, match=f"{term}"):
        outcome.expect_nothing_lost()
    assert getattr(outcome, term) > 0, outcome.summary()
