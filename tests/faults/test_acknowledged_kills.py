"""SIGKILL of programs under `acknowledged`, and of their runner: what is between durable channels stays exact."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.children.build import PYTHON, script
from tests.e2e.connector import Connector, Running, chain, kill_exactly, until
from tests.faults.harness import FINISH_LIMIT_S, Plan, run_kills, seed

SAMPLE_KILLS = 15
SOAK_KILLS = 1000
RUNNER_KILLS = 3
SOAK_RUNNER_KILLS = 100
SDK = Path(__file__).parents[2] / "sdk" / "python"
SDK_ECHO = (
    f"import sys; sys.path.insert(0, {str(SDK)!r}); from connector_processor import Processor;"
    " Processor().run(lambda message: message.payload)"
)
CLIENTS = {"by hand": script("acknowledges", "echo"), "sdk": [PYTHON, "-c", SDK_ECHO]}


@pytest.mark.parametrize(("client", "codec"), [("by hand", "length-prefixed"), ("sdk", "lines")])
def test_programs(connector: Connector, client: str, codec: str) -> None:
    plan = Plan(seed(), SAMPLE_KILLS, CLIENTS[client], codec, contract="acknowledged", name=client)
    run_kills(connector, plan).expect_nothing_lost()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("client", CLIENTS)
def test_soak_programs(connector: Connector, client: str) -> None:
    plan = Plan(seed(), SOAK_KILLS, CLIENTS[client], contract="acknowledged", name=client)
    run_kills(connector, plan).expect_nothing_lost()


def pipeline(folder: Path, count: int, **more: Any) -> dict[str, Any]:
    """A stateful source, the sums of what it says (with state), and a sink that keeps the number of each message."""
    common = {"contract": "acknowledged", "restart": {"backoff": "0s", "limit": "10000 in 60s"}, **more}
    durable = {"kind": "durable", "durability": "process"}
    return chain(
        {"c1": durable, "c2": durable},
        source={"command": script("acknowledges", "source", count, 0, 10, 0.005), "resume": "self"} | common,
        middle={"command": script("acknowledges", "sums")} | common,
        sink={"command": script("acknowledges", "stores", folder / "kept")} | common,
    )


def expect_exact(folder: Path, count: int) -> None:
    """Each message has one number and one content, whoever died; the sink may have stored one more than once."""
    kept = dict.fromkeys((folder / "kept").read_text().splitlines())
    due, total = [], 0
    for number in range(1, count + 1):
        total += number
        due.append(f"{number} {total}")
    due.append(f"{count + 1} total {total}")
    assert sorted(kept, key=lambda line: int(line.split()[0])) == due


def kill_some(running: Running, chance: random.Random, commands: list[list[str]]) -> int:
    """Kill a few programs, each at its moment."""
    killed = 0
    for _ in range(chance.randint(0, 4)):
        time.sleep(chance.uniform(0, 0.08))
        command = chance.choice(commands)
        for process in running.family():
            killed += kill_exactly(process, command)
    return killed


def kill_runners(connector: Connector, kills: int, count: int, **more: Any) -> None:
    """Kill the runner so often, and programs in between; then let it finish. `more` are keys of all processors."""
    chance = random.Random(seed())
    folder = connector.folder
    spec = pipeline(folder, count, **more)
    commands = [spec["processors"][name]["command"] for name in ("source", "middle", "sink")]
    kept, programs = folder / "kept", 0
    for _ in range(kills):
        with connector.start(spec, "--quiet") as running:
            before = _size(kept)
            until(partial(_grown, kept, before), "something new", FINISH_LIMIT_S)
            programs += kill_some(running, chance, commands)
            time.sleep(chance.uniform(0, 0.15))
            assert running.process.poll() is None, running.output()
            running.process.kill()
            running.process.wait()
            until(running.gone, "its programs to be gone")
    result = connector.run(spec, "--quiet", limit_s=FINISH_LIMIT_S)
    result.completed()
    print(f"{kills} kills of the runner, {programs} of programs, {len(kept.read_text().splitlines())} stored")
    expect_exact(folder, count)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _grown(file: Path, before: int) -> bool:
    return _size(file) > before


def test_runner(connector: Connector) -> None:
    kill_runners(connector, RUNNER_KILLS, 3000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_soak_runner(connector: Connector) -> None:
    kill_runners(connector, SOAK_RUNNER_KILLS, 60_000)
