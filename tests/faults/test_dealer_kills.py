"""SIGKILL of programs under `acknowledged` over a DEALER socket, and of their runner: nothing lost, nothing doubled."""

from __future__ import annotations

import pytest

from tests.children.build import script
from tests.e2e.connector import Connector
from tests.faults.harness import Plan, run_kills, seed
from tests.faults.test_acknowledged_kills import kill_runners

SAMPLE_KILLS = 15
SOAK_KILLS = 1000
RUNNER_KILLS = 3
SOAK_RUNNER_KILLS = 50
ECHO = script("acknowledges", "echo")
SOCKET = {"bridge": "zeromq"}


def plan(kills: int) -> Plan:
    return Plan(seed(), kills, ECHO, contract="acknowledged", more=SOCKET, name="over a DEALER", rate_per_s=2000)


def test_programs(connector: Connector) -> None:
    run_kills(connector, plan(SAMPLE_KILLS)).expect_nothing_lost()


def test_runner(connector: Connector) -> None:
    kill_runners(connector, RUNNER_KILLS, 2000, **SOCKET)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_soak_programs(connector: Connector) -> None:
    run_kills(connector, plan(SOAK_KILLS)).expect_nothing_lost()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_soak_runner(connector: Connector) -> None:
    kill_runners(connector, SOAK_RUNNER_KILLS, 30_000, **SOCKET)
