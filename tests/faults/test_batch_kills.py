"""SIGKILL of programs under `batch`, and of their runner: nothing lost, nothing doubled, the same batches again."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.children.build import source
from tests.e2e.connector import Connector, Running, chain, until
from tests.faults.harness import FINISH_LIMIT_S, Outcome, Plan, run_kills, seed

SAMPLE_KILLS = 15
SOAK_KILLS = 1000
RUNNER_KILLS = 3
SOAK_RUNNER_KILLS = 100
BATCH = 25
FINAL_BATCH = 20 * BATCH  # a batch takes its sink 60 ms: what the kills left over has to end within the limit


def expect_exact(outcome: Outcome, replicas: int) -> None:
    """Every message once; a kill that came as the program was ending by itself is no death."""
    report = outcome.result.completed()
    told = f"{outcome.summary()}\n{outcome.result}"
    assert (outcome.lost, outcome.doubled, outcome.foreign) == (0, 0, 0), told
    assert outcome.ordered or replicas > 1, told
    for channel, reader in (("c1", "victim"), ("c2", "sink")):
        account = outcome.result.account(channel, reader)
        assert account == {"written": outcome.sent, "acknowledged": outcome.sent}, told
    assert outcome.kills // 2 <= report["processors"]["victim"]["restarts"] <= outcome.kills, told


def kill_programs(connector: Connector, kills: int, replicas: int) -> None:
    """Kill the program of a batch so often, each time at a random moment of its run."""
    more = {"batch": {"messages": 8 * BATCH, "wait": "100ms"}}
    command = ["sh", "-c", "sleep 0.1; cat; sleep 0.1"]  # long enough to be hit
    plan = Plan(seed(), kills, command, contract="batch", replicas=replicas, more=more, rate_per_s=2000)
    expect_exact(run_kills(connector, plan), replicas)


@pytest.mark.parametrize("replicas", [1, 2])
def test_programs(connector: Connector, replicas: int) -> None:
    kill_programs(connector, SAMPLE_KILLS, replicas)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("replicas", [1, 2])
def test_soak_programs(connector: Connector, replicas: int) -> None:
    kill_programs(connector, SOAK_KILLS, replicas)


def pipeline(folder: Path, count: int, replicas: int, bad: int, messages: int = BATCH) -> dict[str, Any]:
    """Numbered messages through a mortal program, to a sink that stores each batch under its numbers.

    The program cannot stand message `bad` (0: it can stand all).
    """
    common = {
        "contract": "batch",
        "batch": {"messages": messages, "wait": "100ms"},
        "restart": {"backoff": "0s", "limit": "100000 in 60s"},
        "replicas": replicas,
    }
    mortal = (
        f"echo $CONNECTOR_BATCH_CHANNEL $CONNECTOR_BATCH $CONNECTOR_ATTEMPT >> {folder}/notes;"
        f" [ $((($${{CONNECTOR_BATCH%-*}} / {BATCH} + CONNECTOR_ATTEMPT) % 5)) = 0 ] && head -c 777 && kill -9 $$;"
        f" awk '$1 == {bad} {{ exit 3 }} {{ print }}'"
    )
    keep = (  # it takes its time, so that messages are left for every kill
        f"cat > {folder}/part$CONNECTOR_INSTANCE && sleep 0.05"
        f" && mv {folder}/part$CONNECTOR_INSTANCE {folder}/kept/$CONNECTOR_BATCH"
    )
    durable = {"kind": "durable", "durability": "process", "capacity": "64KiB"}
    return chain(
        {"c1": durable, "c2": durable},
        source={"command": source(count), "resume": "skip"},
        middle={"command": ["sh", "-c", mortal]} | common,
        sink={"command": ["sh", "-c", keep]} | common,
    )


def kill_runners(connector: Connector, kills: int, count: int, replicas: int, bad: int = 0) -> None:
    """Kill the runner so often, each time some moments after something new was stored; then let it finish.

    Each one would cut batches of another size, but has to go on with those that were cut before it.
    """
    chance = random.Random(seed())
    folder = connector.folder
    (folder / "kept").mkdir()
    for _ in range(kills):
        spec = pipeline(folder, count, replicas, bad, chance.randint(BATCH // 2, 2 * BATCH))
        with connector.start(spec, "--quiet") as running:
            before = _kept(folder)
            until(partial(_more, running, folder, before), "something new", FINISH_LIMIT_S)
            time.sleep(chance.uniform(0, 0.15))
            assert running.process.poll() is None, running.output()
            running.process.kill()
            running.process.wait()
            until(running.gone, "its programs to be gone")
    rest = pipeline(folder, count, replicas, bad, FINAL_BATCH)
    result = connector.run(rest, "--quiet", limit_s=FINISH_LIMIT_S)
    result.completed()
    print(f"{kills} kills of the runner, {_kept(folder)} batches stored")
    expect_exact_batches(folder, [number for number in range(1, count + 1) if number != bad])
    if not bad:
        expect_same_batches(folder)
    else:
        letters = connector.command("dead-letters", "list", str(folder / "pipeline.toml")).stdout.splitlines()
        assert [line.split()[2:5] for line in letters] == [["middle", "c1", str(bad)]]


def expect_exact_batches(folder: Path, due: list[int]) -> None:
    """The stored batches are all messages, once: had boundaries moved, numbers would be there twice or never."""
    stored: list[int] = []
    for file in sorted((folder / "kept").iterdir(), key=lambda file: int(file.name.split("-")[0])):
        lines = file.read_text().splitlines()
        first, last = map(int, file.name.split("-"))
        assert len(lines) == last - first + 1, file.name
        stored += [int(line[:10]) for line in lines]
    assert sorted(stored) == due


def expect_same_batches(folder: Path) -> None:
    """The batches of the mortal program cover all messages, once.

    And no run of a batch had the number of an attempt that an earlier run of it had.
    """
    runs: dict[str, list[int]] = defaultdict(list)
    for line in (folder / "notes").read_text().splitlines():
        channel, numbers, attempt = line.split()
        runs[f"{channel} {numbers}"].append(int(attempt))
    assert all(attempts == sorted(set(attempts)) for attempts in runs.values()), runs
    covered = sorted(tuple(map(int, key.split()[1].split("-"))) for key in runs)
    assert [first for first, _ in covered] == [1, *(last + 1 for _, last in covered[:-1])], covered


def _more(running: Running, folder: Path, before: int) -> bool:
    return running.process.poll() is not None or _kept(folder) > before


def _kept(folder: Path) -> int:
    return len(list((folder / "kept").iterdir()))


@pytest.mark.parametrize("replicas", [1, 2])
def test_runner(connector: Connector, replicas: int) -> None:
    kill_runners(connector, RUNNER_KILLS, 1500, replicas)


def test_runner_in_a_search_for_a_bad_message(connector: Connector) -> None:
    kill_runners(connector, RUNNER_KILLS, 1000, 1, bad=30)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("bad", [0, 15_000])
def test_soak_runner(connector: Connector, replicas: int, bad: int) -> None:
    kill_runners(connector, SOAK_RUNNER_KILLS, 60_000, replicas, bad)
