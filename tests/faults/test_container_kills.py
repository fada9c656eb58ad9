"""A one-to-one program in a container, ended at random moments in every way: nothing lost, nothing doubled."""

from __future__ import annotations

import pytest

from tests.e2e.connector import Connector
from tests.faults.deaths import of_containers, run_deaths
from tests.faults.doomed import IN_IMAGE, contained, doomed, doomed_image, marked
from tests.faults.harness import Plan, seed

__all__ = ["doomed", "doomed_image"]

pytestmark = pytest.mark.engine

SAMPLE_KILLS = 10  # one of each kind
SOAK_KILLS = 250  # 500 of the trusted, 500 of the untrusted


def kill(connector: Connector, kills: int, trust: str, replicas: int) -> None:
    plan = Plan(
        seed(),
        kills,
        marked(IN_IMAGE),
        replicas=replicas,
        more=contained(trust),
        name=f"container {trust}",
    )
    run_deaths(connector, plan, of_containers())


@pytest.mark.parametrize(("trust", "replicas"), [("trusted", 1), ("untrusted", 2)])
@pytest.mark.usefixtures("doomed_image")
def test_one_to_one(connector: Connector, trust: str, replicas: int) -> None:
    kill(connector, SAMPLE_KILLS, trust, replicas)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("trust", ["trusted", "untrusted"])
@pytest.mark.usefixtures("doomed_image")
def test_soak_one_to_one(connector: Connector, trust: str, replicas: int) -> None:
    kill(connector, SOAK_KILLS, trust, replicas)
