"""The kill harness can see a loss: it catches a runner that was broken on purpose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.connector import Connector
from tests.faults import broken_runner
from tests.faults.harness import Plan, run_kills, seed

BROKEN = (sys.executable, str(Path(broken_runner.__file__)))


def test_the_harness_catches_a_broken_bridge(tmp_path: Path) -> None:
    outcome = run_kills(Connector(tmp_path, BROKEN), Plan(seed(), 20, ["cat"], rate_per_s=50_000))
    with pytest.raises(AssertionError):
        outcome.expect_nothing_lost()
    assert outcome.lost > 0, outcome.summary()
