"""Two runners, and three, with a proxy between them that cuts, delays, swallows and changes what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from runner.channel.link.peer import TIMING
from tests.faults.harness import seed
from tests.faults.links import Outcome, Plan, run
from tests.faults.proxy import What
from tests.nats_server import NatsServer

pytestmark = pytest.mark.timeout(300)  # a machine that is busy otherwise takes its time with every start
CONTROL_ROUNDS = 8
SAMPLE_FAULTS = 7
CONTROL_FAULTS = 25
SOAK_FAULTS = 1000
SOAK_NATS_FAULTS = 100
AT_A_SERVER = (What.RESET, What.FINISH, What.LOSE, What.STALL, What.DELAY, What.THROTTLE, What.AWAY)
"""A byte that was changed on its way to a server is confirmed by it as it came: only TLS helps there."""

CHANGED = (What.CORRUPT,) * 3
PLAIN = (
    Plan("tcp", 0, first=CHANGED),
    Plan("websocket", 0, first=CHANGED, listen="writer"),
    Plan("zeromq", 0, first=CHANGED),
)
PROTECTED = (Plan("tcp+tls", 0, listen="writer"), Plan("websocket+tls", 0), Plan("zeromq+curve", 0, listen="writer"))
DURABLE = (
    Plan("tcp", 0, durable=True, listen="writer"),
    Plan("zeromq", 0, durable=True),
    Plan("websocket", 0, durable=True, middle=True),
)
NATS = (Plan("nats", 0, only=AT_A_SERVER), Plan("nats", 0, only=AT_A_SERVER, durable=True))
CONTROLS = {
    "checks-nothing": ("foreign", (What.CORRUPT,)),
    "counts-nothing": ("doubled", (What.RESET,)),
    "forgets": ("lost", (What.RESET,)),
}


def sample(plan: Plan, folder: Path, faults: int = SAMPLE_FAULTS, server: NatsServer | None = None) -> Outcome:
    return run(folder, dataclasses.replace(plan, faults=faults, seed=plan.seed + seed()), server)


@pytest.mark.parametrize("plan", (*PROTECTED, *DURABLE), ids=str)
def test_nothing_is_lost_or_doubled(plan: Plan, tmp_path: Path) -> None:
    sample(plan, tmp_path).expect_nothing_lost()


@pytest.mark.parametrize("plan", PLAIN, ids=str)
def test_changed_bytes_are_told_and_never_delivered(plan: Plan, tmp_path: Path) -> None:
    outcome = sample(plan, tmp_path)
    outcome.expect_nothing_lost()
    assert "a checksum does not match" in outcome.output, outcome.output


@pytest.mark.parametrize("plan", NATS, ids=str)
def test_over_a_server(plan: Plan, tmp_path: Path, nats_server: NatsServer) -> None:
    sample(plan, tmp_path, server=nats_server).expect_nothing_lost()


def test_memory_is_bounded_while_nothing_or_little_comes_through(tmp_path: Path) -> None:
    """The source would write a hundred times as much as comes through."""
    only = (What.STALL, What.THROTTLE, What.DEAD)
    outcome = sample(Plan("tcp", 0, rate_per_s=None, bytes_per_s=1e6, first=only), tmp_path, len(only))
    outcome.expect_nothing_lost()


def test_a_half_open_connection_is_found_by_its_silence(tmp_path: Path) -> None:
    """With the times that the runner has for everybody."""
    outcome = sample(Plan("tcp", 0, way="", first=(What.DEAD,), rate_per_s=500), tmp_path, 1)
    outcome.expect_nothing_lost()
    ((took_s,), connections) = outcome.made[What.DEAD], outcome.connections
    assert TIMING.silent_s - TIMING.beat_s < took_s < TIMING.silent_s + 3 * TIMING.beat_s
    assert connections == 2


@pytest.mark.parametrize("way", CONTROLS)
def test_a_broken_link_is_caught(way: str, tmp_path: Path) -> None:
    term, only = CONTROLS[way]
    summaries = []
    for round_ in range(CONTROL_ROUNDS):  # not every connection is cut while something is on its way
        folder = tmp_path / str(round_)
        folder.mkdir()
        outcome = sample(Plan("tcp", round_, way=way, only=only, pause_s=0.05), folder, CONTROL_FAULTS)
        summaries.append(outcome.summary())
        if getattr(outcome, term) > 0:
            with pytest.raises(AssertionError):
                outcome.expect_nothing_lost()
            return
    pytest.fail("\n".join(summaries))


# -- the full counts


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("round_", range(4))
@pytest.mark.parametrize("kind", ["tcp", "websocket", "zeromq"])
def test_soak(kind: str, round_: int, tmp_path: Path) -> None:
    """Half of it between durable channels; either side listens."""
    listen = ("reader", "writer")[round_ // 2 % 2]
    plan = Plan(kind, 0, seed=round_, listen=listen, durable=round_ % 2 == 1, rate_per_s=1000)
    sample(plan, tmp_path, SOAK_FAULTS // 4).expect_nothing_lost()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("plan", NATS, ids=str)
def test_soak_over_a_server(plan: Plan, tmp_path: Path, nats_server: NatsServer) -> None:
    plan = dataclasses.replace(plan, only=(*AT_A_SERVER, What.DEAD), rate_per_s=1000)
    sample(plan, tmp_path, SOAK_NATS_FAULTS, nats_server).expect_nothing_lost()
