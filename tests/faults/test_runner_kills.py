"""SIGKILL of the runner: no process of any processor may live a second later."""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil
import pytest

from tests.children.build import misbehave, sink, source
from tests.e2e.connector import Connector, chain, until, wait_gone
from tests.faults.harness import seed

SAMPLE_KILLS = 8
SOAK_KILLS = 100
GONE_WITHIN_S = 1.0
HIDDEN = 3


def kill_runner(connector: Connector, chance: random.Random, *, early: bool) -> int:
    """Kill the runner, `early` while it may still be starting; how many processes there were.

    Three processors leave daemons that called setsid, were forked twice and ignore every signal.
    """
    folder = connector.folder
    (folder / "pid").unlink(missing_ok=True)
    pipeline = chain(
        source=source(None, "--rate", 1000),
        one={"command": misbehave("hides", folder / "pid"), "contract": "one-to-one"},
        two=misbehave("hides", folder / "pid"),
        three={"command": misbehave("ignores-term", folder / "other"), "replicas": 2},
        four=misbehave("hides", folder / "pid"),
        sink=sink(folder / "out"),
    )
    with connector.start(pipeline, "--quiet") as running:
        if early:
            until(lambda: running.process.poll() is not None or running.family(), "a first process")
        else:
            until(lambda: daemons(folder / "pid") >= HIDDEN, "all daemons")
        assert running.process.poll() is None, running.output()
        time.sleep(chance.uniform(0, 0.2))
        family = {process.pid for process in running.family()}
        running.process.kill()
        gone_at = time.monotonic() + GONE_WITHIN_S
        running.process.wait()
        left = wait_gone(sorted(family), max(0.0, gone_at - time.monotonic()))
        assert not left, f"alive a second after the runner: {[describe(pid) for pid in left]}"
        until(lambda: not running.marked(), "whatever had hidden", max(0.1, gone_at - time.monotonic()))
        return len(family)


def daemons(file: Path) -> int:
    """How many daemons have said that they live."""
    return len(file.read_text().split()) if file.exists() else 0


def describe(pid: int) -> str:
    """What this process is."""
    try:
        process = psutil.Process(pid)
        return f"{pid} {process.status()} {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return f"{pid} gone by now"


def kill_runners(connector: Connector, kills: int) -> None:
    """Half of them early, half with everything up."""
    chance = random.Random(seed())
    seen = [kill_runner(connector, chance, early=number % 2 == 1) for number in range(kills)]
    print(f"{kills} runners killed, {sum(seen)} processes below them, none left after {GONE_WITHIN_S} s")
    assert max(seen) >= 10


def test_no_survivor(connector: Connector) -> None:
    kill_runners(connector, SAMPLE_KILLS)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_soak_no_survivor(connector: Connector) -> None:
    kill_runners(connector, SOAK_KILLS)
