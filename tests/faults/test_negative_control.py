"""The kill harness can see a loss: it catches a runner that was broken on purpose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.connector import Connector
from tests.faults import broken_runner
from tests.faults.doomed import IN_IMAGE, Doomed, alive, contained, doomed, doomed_image, marked, sandboxed
from tests.faults.harness import Outcome, Plan, run_kills, seed

__all__ = ["doomed", "doomed_image"]

BROKEN = (sys.executable, str(Path(broken_runner.__file__)))


def test_the_harness_catches_a_broken_bridge(tmp_path: Path) -> None:
    caught(run_kills(Connector(tmp_path, BROKEN), Plan(seed(), 20, ["cat"], rate_per_s=50_000)))


@pytest.mark.engine
@pytest.mark.usefixtures("doomed_image")
def test_it_does_with_containers(tmp_path: Path) -> None:
    plan = Plan(seed(), 10, marked(IN_IMAGE), rate_per_s=50_000, more=contained("trusted"))
    caught(run_kills(Connector(tmp_path, BROKEN), plan, alive))


@pytest.mark.usefixtures("bubblewrap")
def test_it_does_with_sandboxes(tmp_path: Path, doomed: Doomed) -> None:
    plan = Plan(seed(), 10, marked(doomed.file), rate_per_s=50_000, more=sandboxed(doomed, "untrusted"), home="sandbox")
    caught(run_kills(Connector(tmp_path, BROKEN), plan))


def caught(outcome: Outcome) -> None:
    """The harness has seen the loss."""
    with pytest.raises(AssertionError):
        outcome.expect_nothing_lost()
    assert outcome.lost > 0, outcome.summary()
