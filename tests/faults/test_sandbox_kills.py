"""A one-to-one program in a sandbox, ended at random moments in every way: nothing lost, nothing doubled."""

from __future__ import annotations

import pytest

from tests.e2e.connector import Connector
from tests.faults.deaths import of_sandboxes, run_deaths
from tests.faults.doomed import Doomed, doomed, marked, sandboxed
from tests.faults.harness import Plan, seed

__all__ = ["doomed"]

SAMPLE_KILLS = 11  # one of each kind
SOAK_KILLS = 500


def kill(connector: Connector, doomed: Doomed, kills: int, trust: str, replicas: int) -> None:
    plan = Plan(
        seed(),
        kills,
        marked(doomed.file),
        replicas=replicas,
        more=sandboxed(doomed, trust),
        home="sandbox",
        name=f"sandbox {trust}",
    )
    run_deaths(connector, plan, of_sandboxes())


@pytest.mark.parametrize(("trust", "replicas"), [("trusted", 2), ("untrusted", 1)])
@pytest.mark.usefixtures("bubblewrap")
def test_one_to_one(connector: Connector, doomed: Doomed, trust: str, replicas: int) -> None:
    kill(connector, doomed, SAMPLE_KILLS, trust, replicas)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("trust", ["trusted", "untrusted"])
@pytest.mark.usefixtures("bubblewrap")
def test_soak_one_to_one(connector: Connector, doomed: Doomed, trust: str, replicas: int) -> None:
    kill(connector, doomed, SOAK_KILLS, trust, replicas)
