"""Bounds: what a full channel does, how much memory a run may take, what a program may take."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.children.build import misbehave, script, sink, source
from tests.e2e.connector import Connector, Result, chain, steady, until
from tests.e2e.test_contracts import one_to_one
from tests.e2e.test_ends import numbers

MIB = 1 << 20


def dropping(connector: Connector, tmp_path: Path, on_full: str) -> Result:
    """A run whose sink reads nothing before the source has written 20,000 messages of 100 bytes."""
    gate, total = tmp_path / "gate", tmp_path / "total"
    pipeline = chain(
        {"c1": {"capacity": "64KiB", "on_full": on_full}},
        source=source(20_000, "--total", total),
        sink={"command": sink(tmp_path / "out", "--until", gate), "in_flight": {"bytes": "64KiB"}},
    )
    with connector.start(pipeline) as running:
        until(total.exists, "the source to end, since nothing holds it")
        gate.touch()
        result = running.finish()
    result.completed()
    account = result.account("c1", "sink")
    assert account["written"] == 20_000
    assert account["acknowledged"] + account["dropped"] == 20_000
    assert account["dropped"] > 10_000
    assert len(numbers(tmp_path / "out")) == account["acknowledged"]
    return result


def test_drop_newest(connector: Connector, tmp_path: Path) -> None:
    dropping(connector, tmp_path, "drop-newest")
    got = numbers(tmp_path / "out")
    assert got == sorted(set(got))
    assert got[:500] == list(range(1, 501))


def test_drop_oldest(connector: Connector, tmp_path: Path) -> None:
    dropping(connector, tmp_path, "drop-oldest")
    got = numbers(tmp_path / "out")
    assert got == sorted(set(got))
    assert got[-300:] == list(range(19_701, 20_001))


def test_dropping_for_one_reader_costs_the_other_nothing(connector: Connector, tmp_path: Path) -> None:
    gate, total = tmp_path / "gate", tmp_path / "total"
    pipeline = chain(
        {"c1": {"capacity": "64KiB", "on_full": "drop-oldest"}},
        source=source(5_000, "--total", total, "--rate", 4_000),
        slow={"command": sink(tmp_path / "slow", "--until", gate), "in_flight": {"bytes": "64KiB"}},
    )
    pipeline["processors"]["fast"] = {"command": sink(tmp_path / "fast"), "reads": "c1"}
    with connector.start(pipeline) as running:
        until(total.exists, "the source to end")
        gate.touch()
        result = running.finish()
    result.completed()
    assert numbers(tmp_path / "fast") == list(range(1, 5_001))
    assert result.account("c1", "slow")["dropped"] > 1_000


def test_a_full_channel_stops_its_writer(connector: Connector, tmp_path: Path) -> None:
    gate, total = tmp_path / "gate", tmp_path / "total"
    pipeline = chain(
        {"c1": {"capacity": "1MiB"}},
        source=source(200_000, "--total", total),
        sink={"command": sink(tmp_path / "out", "--until", gate)},
    )
    with connector.start(pipeline) as running:
        writer = running.program(pipeline["processors"]["source"]["command"])
        until(lambda: writer.io_counters().write_chars > MIB, "the source to begin")
        written = steady(lambda: writer.io_counters().write_chars, "the source to be held")
        assert written < 8 * MIB, "capacity, window and pipes, no more"
        assert not total.exists()
        gate.touch()
        result = running.finish()
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 200_001))


def test_a_reader_that_never_reads_is_bounded_and_its_messages_unread(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(None), sink={"command": misbehave("never-reads"), "stop": {"grace": "200ms"}})
    pipeline["drain"] = "3s"  # what waits in front of a full channel is waited for so long
    with connector.start(pipeline) as running:
        writer = running.program(pipeline["processors"]["source"]["command"])
        until(lambda: writer.io_counters().write_chars > 8 * MIB, "the channel to fill")
        running.signal(2)
        result = running.finish(15)
    result.expect(130, "stopped")
    account = result.account("c1", "sink")
    assert account == {"written": account["written"], "unread": account["written"]}
    assert result.report is not None
    assert result.report["supervisor"]["peak_rss_bytes"] < 120 * MIB


def test_memory_is_held(connector: Connector, tmp_path: Path) -> None:
    for size, code in ((20 * MIB, 0), (500 * MIB, 1)):
        middle = one_to_one(script("takes", "memory", size), resources={"memory": "256MiB"}, restart="never")
        result = connector.run(chain(source=source(10), middle=middle, sink=sink(tmp_path / "out")))
        assert result.code == code, str(result)
    died = result.processor("middle")["instances"][0]
    if died["exit"]["signal"] == signal.SIGKILL:  # where a control group can be made
        assert died["cause"] == "killed by SIGKILL, out of memory: its limit is 256 MiB"
    else:
        assert died["exit"]["code"] == 9
        assert "no memory" in result.output


def test_open_files_are_held(connector: Connector, tmp_path: Path) -> None:
    for count, code in ((10, 0), (100, 1)):
        middle = one_to_one(script("takes", "files", count), resources={"files": 64}, restart="never")
        result = connector.run(chain(source=source(10), middle=middle, sink=sink(tmp_path / "out")))
        assert result.code == code, str(result)
    assert "too many files" in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="RLIMIT_NPROC does not bind root")
def test_processes_are_held(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(script("takes", "processes", 5000), resources={"pids": 4000}, restart="never")
    result = connector.run(chain(source=source(10), middle=middle, sink=sink(tmp_path / "out")))
    result.failed()
    assert "no more processes" in result.output


def test_a_slow_reader_holds_everybody_and_loses_nothing(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(
        {"c1": {"capacity": "64KiB"}, "c2": {"capacity": "64KiB"}},
        source=source(20_000),
        middle=one_to_one(["cat"], in_flight={"bytes": "64KiB"}),
        sink={"command": sink(tmp_path / "out", "--delay", 0.005, "--read", 20_000), "in_flight": {"bytes": "64KiB"}},
    )
    connector.run(pipeline).completed()
    assert numbers(tmp_path / "out") == list(range(1, 20_001))
