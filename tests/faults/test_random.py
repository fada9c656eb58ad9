"""Random pipelines under random kills: a sample in each test run, the full counts under `make soak`."""

from __future__ import annotations

import pytest

from tests.e2e.connector import Connector
from tests.faults.campaign import Campaign, Outcome, Plan
from tests.faults.harness import seed
from tests.faults.relay import Relay, relay, relay_image
from tests.faults.schedule import Deaths
from tests.faults.schedule import draw as draw_schedule
from tests.faults.topology import Limits
from tests.faults.topology import draw as draw_topology

__all__ = ["relay", "relay_image"]


def plan_of(number: int, limits: Limits, deaths: Deaths, test: str, *options: str) -> Plan:
    topology = draw_topology(number, limits)
    schedule = draw_schedule(number, topology, deaths)
    again = " ".join(
        [
            f"CONNECTOR_SEED={number}",
            ".venv/bin/python -m pytest -s",
            *options,
            f"'tests/faults/test_random.py::{test}'",
        ]
    )
    return Plan(number, topology, schedule, again)


def run(connector: Connector, relay: Relay, plan: Plan) -> Outcome:
    outcome = Campaign(connector, relay, plan).run()
    print(f"CONNECTOR_SEED={plan.seed}: {outcome}")
    return outcome


@pytest.mark.parametrize("round_", range(4))
def test_processes(connector: Connector, relay: Relay, round_: int) -> None:
    run(connector, relay, plan_of(seed() + round_, Limits(), Deaths(30), "test_processes[0]"))


@pytest.mark.parametrize("round_", range(4))
def test_runners(connector: Connector, relay: Relay, round_: int) -> None:
    plan = plan_of(seed() + round_, Limits(durable=True), Deaths(20, 3), "test_runners[0]")
    run(connector, relay, plan)


@pytest.mark.parametrize("round_", range(2))
def test_sandboxes(connector: Connector, relay: Relay, round_: int) -> None:
    run(connector, relay, plan_of(seed() + round_, Limits(("process", "sandbox")), Deaths(30), "test_sandboxes[0]"))


@pytest.mark.engine
@pytest.mark.usefixtures("relay_image")
@pytest.mark.parametrize("round_", range(2))
def test_containers(connector: Connector, relay: Relay, round_: int) -> None:
    limits = Limits(("process", "sandbox", "container"), durable=True)
    run(connector, relay, plan_of(seed() + round_, limits, Deaths(20, 2), "test_containers[0]"))
