"""The kill harness can see a loss: it catches a runner that was broken on purpose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.connector import Connector
from tests.faults import broken_runner
from tests.faults.doomed import IN_IMAGE, Doomed, alive, contained, doomed, doomed_image, marked, sandboxed
from tests.faults.harness import Outcome, Plan, kill_with_input, run_kills, seed

__all__ = ["doomed", "doomed_image"]

KILLS = 3  # each of a program with input that it has not answered, so each loses some
BROKEN = (sys.executable, str(Path(broken_runner.__file__)))


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
