"""Contracts between inputs and outputs: what a death costs, and what is said of a program that breaks one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.children.build import misbehave, sink, source
from tests.e2e.connector import Connector, chain
from tests.e2e.test_ends import numbers

SWIFT = {"backoff": "0s", "limit": "1000 in 60s"}


@pytest.fixture
def connector(in_each_home: Connector) -> Connector:
    """What a contract says holds in all homes."""
    return in_each_home


def one_to_one(command: list[str], **more: Any) -> dict[str, Any]:
    """A one-to-one processor that is restarted at once."""
    return {"command": command, "contract": "one-to-one", "restart": SWIFT} | more


def test_one_to_one_over_deaths_loses_and_doubles_nothing(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("dies-every", 100))
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.account("c1", "middle") == {"written": 1000, "acknowledged": 1000}
    assert result.account("c2", "sink") == {"written": 1000, "acknowledged": 1000}
    assert result.processor("middle")["restarts"] in (9, 10)
    assert result.processor("middle")["instances"][0]["exit"] == {"code": None, "signal": 9}


def test_half_an_answer_of_a_dead_program_is_no_answer(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("dies-with-half-answer", 50))
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.processor("middle")["restarts"] == 2


def test_replicas_that_die_keep_the_order(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("dies-every", 30), replicas=3)
    result = connector.run(chain(source=source(2000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 2001))
    assert result.account("c1", "middle") == {"written": 2000, "acknowledged": 2000}


@pytest.mark.parametrize("torn", [0, 40])
def test_stream_counts_what_a_dead_program_had_read(connector: Connector, tmp_path: Path, torn: int) -> None:
    middle = {"command": misbehave("reads-then-dies", 7, torn, 101), "restart": SWIFT}
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(8, 1001)), "the torn one came again, whole"
    assert result.account("c1", "middle") == {"written": 1000, "acknowledged": 993, "indeterminate": 7}
    assert result.account("c2", "sink") == {"written": 993, "acknowledged": 993}
    assert result.processor("middle")["restarts"] == 1


def test_stream_that_read_nothing_costs_nothing(connector: Connector, tmp_path: Path) -> None:
    middle = {"command": misbehave("fails-first", 2, 3), "restart": SWIFT}
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.account("c1", "middle") == {"written": 1000, "acknowledged": 1000}


def test_a_grandchild_that_reads_on_is_killed_before_counting(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("grandchild-reads", tmp_path / "pid"), restart={"backoff": "0s", "limit": "9 in 60s"})
    result = connector.run(chain(source=source(5), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 6))
    assert result.processor("middle")["restarts"] in (4, 5)


def test_an_acknowledging_sink(connector: Connector, tmp_path: Path) -> None:
    storing = one_to_one(sink(tmp_path / "out", "--ack"))
    result = connector.run(chain(source=source(1000), sink=storing))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.account("c1", "sink") == {"written": 1000, "acknowledged": 1000}
    assert "stored" not in result.output, "its stdout is no log"


def test_an_acknowledging_sink_gets_again_what_it_had_not_acknowledged(connector: Connector) -> None:
    result = connector.run(chain(source=source(100), sink=one_to_one(misbehave("dies-with-half-answer", 10))))
    result.completed()
    assert result.account("c1", "sink") == {"written": 100, "acknowledged": 100}
    assert result.processor("sink")["restarts"] == 2


BREACHES = {
    "too much": (misbehave("answers-too-much", 5), "10"),
    "first": (misbehave("speaks-first"), "1"),
    "too little": (misbehave("answers-too-little", 5), "10"),
    "left": (misbehave("leaves-after", 5), "6"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_named_and_not_retried(connector: Connector, tmp_path: Path, breach: str) -> None:
    command, number = BREACHES[breach]
    result = connector.run(chain(source=source(10), middle=one_to_one(command), sink=sink(tmp_path / "out")))
    result.failed()
    middle = result.processor("middle")
    assert middle["restarts"] == 0
    assert middle["state"] == "failed"
    assert "message" in middle["cause"], middle["cause"]
    if breach in ("too little", "left"):
        assert re.search(rf"\b{number}\b", middle["cause"]), middle["cause"]
        assert f"{int(number):010d}" in result.stderr, "its beginning is shown"
    assert middle["cause"] in result.stderr or "message" in result.stderr


def test_the_last_answer_may_lack_its_newline(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("no-newline-at-end"), in_flight={"bytes": "1MiB"})
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 101))


def test_a_program_that_buffers_its_output_gets_a_larger_window(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("buffers"), in_flight={"bytes": "64KiB"})
    result = connector.run(chain(source=source(20_000), middle=middle, sink=sink(tmp_path / "out")), limit_s=30)
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 20_001))


@pytest.mark.slow
def test_a_program_that_buffers_more_than_the_channel_holds_is_told_so(tmp_path: Path) -> None:
    """It takes as long as the runner must wait to be sure, so it runs in one home."""
    connector = Connector(tmp_path)
    pipeline = chain(
        {"c1": {"capacity": "2MiB"}},
        source=source(50_000),
        middle=one_to_one(misbehave("buffers"), in_flight={"bytes": "64KiB"}),
        sink=sink(tmp_path / "out"),
    )
    result = connector.run(pipeline, limit_s=80)
    result.failed()
    assert "buffers its output" in result.stderr
    assert result.processor("middle")["restarts"] == 0


def test_a_window_in_messages(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("counts-in-flight", 3), in_flight={"messages": 3}, restart="never")
    result = connector.run(chain(source=source(60), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 61))


def test_a_program_that_writes_into_its_own_stdin(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(
        chain(source=source(100), middle=one_to_one(misbehave("writes-own-stdin", 40_000)), sink=sink(tmp_path / "out"))
    )
    result.failed()
    middle = result.processor("middle")
    assert middle["restarts"] == 0, "a breach of contract is not retried"
    assert "stdin" in middle["cause"], middle["cause"]


def test_the_same_under_stream(connector: Connector, tmp_path: Path) -> None:
    middle = {"command": misbehave("writes-own-stdin", 40_000), "restart": SWIFT}
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    result.failed()
    assert result.processor("middle")["restarts"] == 0


@pytest.mark.parametrize("how", ["KILL", "3"])
def test_half_a_message_of_a_dead_source_is_torn(connector: Connector, tmp_path: Path, how: str) -> None:
    result = connector.run(chain(source=misbehave("half-message", how), sink=sink(tmp_path / "out")))
    result.failed()
    assert (tmp_path / "out").read_bytes() == b"whole\n"
    assert result.account("c1", "sink") == {"written": 1, "acknowledged": 1}


def test_half_a_line_of_a_source_that_ended_well_counts(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=misbehave("half-message", "0"), sink=sink(tmp_path / "out")))
    result.completed()
    assert (tmp_path / "out").read_bytes() == b"whole\nha\n"


def test_a_length_prefixed_message_cut_short_at_exit_0_is_an_error(connector: Connector, tmp_path: Path) -> None:
    cut = {"command": ["printf", r"\0\0\0\1a\0\0\0\5ab"], "codec": "length-prefixed"}
    result = connector.run(chain(source=cut, sink={"command": sink(tmp_path / "out"), "codec": "length-prefixed"}))
    result.failed()
    assert (tmp_path / "out").read_bytes() == b"\0\0\0\1a"
    assert "message 2" in result.stderr


def test_the_contract_binds_stdin_to_stdout_only(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(
        source=source(100), middle=one_to_one(["sh", "-c", "echo one >&2; cat"]), sink=sink(tmp_path / "out")
    )
    pipeline["processors"]["middle"]["writes"] = {"stdout": "c2", "stderr": "noise"}
    pipeline["processors"]["noise"] = {"command": sink(tmp_path / "noise"), "reads": "noise"}
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "noise").read_bytes() == b"one\n"
    assert result.account("c2", "sink") == {"written": 100, "acknowledged": 100}
