"""Stops: in order, in time, and at once for those who ask twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.children.build import misbehave, sink, source
from tests.children.messages import number_of, unframe
from tests.e2e.connector import Connector, chain, until


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_drains_in_order(connector: Connector, tmp_path: Path, number: int, code: int) -> None:
    total, log, out = tmp_path / "total", tmp_path / "log", tmp_path / "out"
    pipeline = chain(
        source=source(None, "--rate", 5000, "--graceful", "--total", total),
        first={"command": misbehave("ends-on-term", log, "first"), "contract": "one-to-one"},
        second=misbehave("ends-on-term", log, "second"),
        sink=sink(out),
    )
    with connector.start(pipeline) as running:
        until(lambda: out.exists() and out.stat().st_size > 50_000, "messages at the sink")
        running.signal(number)
        result = running.finish()
    result.expect(code, "stopped")
    written = int(total.read_text())
    assert log.read_text().split("\n") == ["first end", "second end", ""], "the end of input came first, in order"
    assert [number_of(each) for each in unframe(out.read_bytes(), "lines")[0]] == list(range(1, written + 1))
    for channel, reader in (("c1", "first"), ("c2", "second"), ("c3", "sink")):
        assert result.account(channel, reader) == {"written": written, "acknowledged": written}
    assert result.took_s < 20


def test_a_source_that_does_not_end_by_itself_is_killed_after_its_grace(connector: Connector, tmp_path: Path) -> None:
    stubborn = {"command": misbehave("ignores-term", tmp_path / "pid"), "stop": {"grace": "300ms"}}
    stubborn["command"] = ["sh", "-c", 'trap "" TERM; echo line; while :; do sleep 1; done']
    pipeline = chain(source=stubborn, sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running:
        until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size, "a line")
        running.signal(signal.SIGTERM)
        result = running.finish(10)
    result.expect(143, "stopped")
    assert result.processor("source")["instances"][0]["exit"] == {"code": None, "signal": 9}
    assert result.account("c1", "sink") == {"written": 1, "acknowledged": 1}


def test_a_program_that_ignores_term_and_the_end_of_input(connector: Connector, tmp_path: Path) -> None:
    stubborn = {"command": misbehave("ignores-term", tmp_path / "pid"), "stop": {"grace": "300ms"}}
    pipeline = chain(source=source(None, "--rate", 1000), middle=stubborn, sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running:
        until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size, "a line")
        running.signal(signal.SIGINT)
        result = running.finish(15)
        assert not running.marked()
    result.expect(130, "stopped")
    assert result.processor("middle")["instances"][0]["exit"] == {"code": None, "signal": 9}


def test_another_signal_to_end_a_program_with(connector: Connector, tmp_path: Path) -> None:
    command = ["sh", "-c", 'trap "echo asked by USR1; exit 0" USR1; trap "" TERM; echo up; while :; do sleep 0.1; done']
    pipeline = chain(source={"command": command, "stop": {"signal": "USR1"}}, sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running:
        until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size, "a line")
        running.signal(signal.SIGINT)
        result = running.finish(10)
    result.expect(130, "stopped")
    assert (tmp_path / "out").read_text() == "up\nasked by USR1\n"


def test_a_second_signal_kills(connector: Connector, tmp_path: Path) -> None:
    stubborn = {"command": misbehave("ignores-term", tmp_path / "pid"), "stop": {"grace": "60s"}}
    pipeline = chain(source=source(None, "--rate", 1000), middle=stubborn, sink=sink(tmp_path / "out"))
    pipeline["drain"] = "120s"
    with connector.start(pipeline) as running:
        until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size, "a line")
        sources = running.programs(pipeline["processors"]["source"]["command"])
        running.signal(signal.SIGINT)
        until(lambda: not sources[0].is_running(), "the source to end")
        assert running.process.poll() is None
        running.signal(signal.SIGINT)
        result = running.finish(5)
        assert not running.marked()
    result.expect(130, "stopped")


def test_drain_bounds_the_whole_stop(connector: Connector, tmp_path: Path) -> None:
    slow = {"command": misbehave("ignores-term", tmp_path / "pid"), "stop": {"grace": "60s"}}
    pipeline = chain(source=source(None, "--rate", 1000), middle=slow, sink=sink(tmp_path / "out"))
    pipeline["drain"] = "1s"
    with connector.start(pipeline) as running:
        until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size, "a line")
        running.signal(signal.SIGTERM)
        result = running.finish(8)
    result.expect(143, "stopped")


def test_a_stop_while_it_starts(connector: Connector, tmp_path: Path) -> None:
    never_ready = {"command": ["cat"], "ready": {"file": str(tmp_path / "never")}}
    pipeline = chain(source=source(1000), middle=never_ready, sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running:
        running.program(["cat"])
        running.signal(signal.SIGINT)
        result = running.finish(15)
    result.expect(130, "stopped")
    account = result.account("c1", "middle")
    assert account.get("unread", 0) == account["written"]


def test_a_stop_during_backoff(connector: Connector, tmp_path: Path) -> None:
    dying = {"command": misbehave("exit-at-once", 3), "restart": {"backoff": "60s..60s", "limit": "100 in 60s"}}
    pipeline = chain(source=source(1000), middle=dying, sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running:
        until(lambda: "will be restarted" in running.output(), "a death to be told")
        running.signal(signal.SIGINT)
        result = running.finish(10)
    result.expect(130, "stopped")
    account = result.account("c1", "middle")
    assert account.get("unread", 0) == account["written"]
