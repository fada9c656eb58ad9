"""Programs that flood, hoard and hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.children.build import misbehave, sink, source
from tests.e2e.connector import Connector, Result, chain, kill_exactly, until, wait_gone
from tests.e2e.test_contracts import SWIFT, one_to_one
from tests.e2e.test_ends import numbers

MIB = 1 << 20
GB = 1_000_000_000


def peak(result: Result) -> int:
    """The runner's largest resident set."""
    assert result.report is not None
    found: int = result.report["supervisor"]["peak_rss_bytes"]
    return found


def test_a_gigabyte_on_stderr(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(
        chain(source=source(100), middle=one_to_one(misbehave("flood-stderr", GB)), sink=sink(tmp_path / "out"))
    )
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 101))
    assert result.processor("middle")["log_lines_left_out"] > 1_000_000
    assert len(result.output) < 20 * MIB
    assert peak(result) < 100 * MIB


def test_a_gigabyte_in_one_log_line(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(
        chain(source=source(100), middle=one_to_one(misbehave("long-log-line", GB)), sink=sink(tmp_path / "out"))
    )
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 101))
    assert len(result.output) < MIB
    assert peak(result) < 100 * MIB


def test_a_message_of_a_gigabyte(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=misbehave("long-line", GB), sink=sink(tmp_path / "out")))
    result.failed()
    assert "message 2" in result.stderr
    assert "max_message" in result.stderr
    assert (tmp_path / "out").read_bytes() == b"good\n"
    assert peak(result) < 150 * MIB


def test_a_program_that_exits_at_once(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("exit-at-once", 7), restart={"backoff": "0s", "limit": "20 in 60s"})
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.failed()
    assert result.processor("middle")["restarts"] == 20
    assert len(result.processor("middle")["instances"]) == 20, "the last 20 are kept"
    assert result.account("c1", "middle") == {"written": 1000, "unread": 1000}


@pytest.mark.parametrize("what", ["hides", "holds-stdout"])
def test_who_hides_is_found_at_the_end(connector: Connector, tmp_path: Path, what: str) -> None:
    middle = {"command": misbehave(what, tmp_path / "pid"), "stop": {"grace": "300ms"}}
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 101))
    hidden = [int(word) for word in (tmp_path / "pid").read_text().split()]
    assert len(hidden) == 1
    assert not psutil.pid_exists(hidden[0])


def hiding(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A pipeline whose middle leaves a daemon, endless until a file appears; and its middle."""
    middle = one_to_one(misbehave("hides", tmp_path / "pid"))
    pipeline = chain(
        source=source(None, "--rate", 2000, "--until", tmp_path / "stop"), middle=middle, sink=sink(tmp_path / "out")
    )
    return pipeline, middle


def hidden_ones(tmp_path: Path, count: int) -> list[int]:
    """The daemons that said they live, once there are so many."""
    file = tmp_path / "pid"
    until(lambda: file.exists() and len(file.read_text().split()) >= count, f"{count} daemons")
    return [int(word) for word in file.read_text().split()]


def test_who_hides_dies_with_its_program(connector: Connector, tmp_path: Path) -> None:
    pipeline, middle = hiding(tmp_path)
    with connector.start(pipeline) as running:
        for count in (1, 2, 3):
            hidden = hidden_ones(tmp_path, count)
            assert kill_exactly(running.program(middle["command"]), middle["command"])
            assert wait_gone(hidden, 5) == []
        hidden_ones(tmp_path, 4)
        (tmp_path / "stop").touch()
        result = running.finish()
        assert not running.marked()
    result.completed()
    got = numbers(tmp_path / "out")
    assert got == list(range(1, len(got) + 1))
    assert result.processor("middle")["restarts"] == 3


def test_who_hides_dies_with_its_shim(connector: Connector, tmp_path: Path) -> None:
    pipeline, middle = hiding(tmp_path)
    with connector.start(pipeline) as running:
        hidden = hidden_ones(tmp_path, 1)
        program = running.program(middle["command"])
        shim = program.parent()
        assert shim is not None
        assert shim.pid != running.pid
        assert kill_exactly(shim, shim.cmdline())
        assert wait_gone([*hidden, program.pid], 5) == []
        hidden_ones(tmp_path, 2)
        (tmp_path / "stop").touch()
        result = running.finish()
        assert not running.marked()
    result.completed()
    got = numbers(tmp_path / "out")
    assert got == list(range(1, len(got) + 1)), "nothing lost or doubled over the death of a shim"


def test_a_source_that_hides(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=misbehave("source-that-hides", tmp_path / "pid"), head=["head", "-n", "20"])
    result = connector.run(pipeline)
    result.completed()
    assert not any(psutil.pid_exists(int(word)) for word in (tmp_path / "pid").read_text().split())


def test_a_daemon_that_forks_for_ever_is_ended(connector: Connector, tmp_path: Path) -> None:
    forking = ["sh", "-c", "(while :; do sleep 100 & sleep 0.001; done) >/dev/null 2>&1 & cat"]
    result = connector.run(
        chain(source=source(10), middle={"command": forking, "restart": SWIFT}, sink=sink(tmp_path / "out"))
    )
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 11))
