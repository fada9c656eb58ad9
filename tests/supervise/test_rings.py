"""Rings of waits, what is none, and drains in which somebody waits for somebody."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.events import WaitChanged
from runner.spec.model import InFlight, StopPolicy
from runner.supervise import monitor
from tests.supervise.running import (
    Happened,
    execute,
    pipeline,
    processor,
    sh,
)
from tests.supervise.test_found import open_gate, soon


def test_a_ring_is_found_though_stall_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "RING_SURE_S", 1.0)
    ran = execute(
        pipeline(
            processor(
                "src",
                sh("yes | head -n 3000000 | tee /dev/stderr"),
                writes={"stdout": "a", "stderr": "b"},
                stall_s=600.0,
            ),
            processor("left", ("cat",), reads="a", writes="c", stall_s=600.0),
            processor(
                "join",
                sh('cat "$CONNECTOR_READER_SECOND" >/dev/null; cat >/dev/null'),
                reads={"stdin": "c", "second": "d"},
                stall_s=600.0,
            ),
            processor("right", sh("sort"), reads="b", writes="d", stall_s=600.0),
            channels={name: {"capacity_bytes": 4096} for name in "abcd"},
            drain_s=1.0,
        ),
        deadline_s=20.0,
    )
    assert ran.report.status == "failed"
    assert "ring of waits" in (ran.report.cause or "")


def _slow_input(monkeypatch: pytest.MonkeyPatch, join: str, late: str, gate: Path) -> None:
    """A join that waits for a slow source, while another writer is held up: no ring, as the slow source will write."""
    monkeypatch.setattr(monitor, "RING_SURE_S", 0.6)

    async def steps(happened: Happened) -> None:
        await happened.until(
            lambda: any(isinstance(event, WaitChanged) and event.processor == "both" for event in happened.events)
        )
        open_gate(gate)

    ran = execute(
        pipeline(
            processor(
                "both",
                sh('yes | head -c 16000000; echo end > "$CONNECTOR_WRITER_B"'),
                writes={"stdout": "a", "b": "b"},
            ),
            processor("late", sh(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo go"), writes=late),
            processor("join", sh(join), reads={"stdin": "a", "b": "b", **({"c": "c"} if late == "c" else {})}),
            channels={"a": {"capacity_bytes": 4096}},
            drain_s=1.0,
        ),
        steps,
        deadline_s=20.0,
    )
    assert ran.report.status == "completed", ran.report.cause


def test_no_ring_where_another_port_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    join = 'cat "$CONNECTOR_READER_C" >/dev/null; cat >/dev/null; cat "$CONNECTOR_READER_B" > /dev/null'
    _slow_input(monkeypatch, join, "c", tmp_path / "gate")


def test_no_ring_where_another_writer_may_still_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    join = 'exec 5<"$CONNECTOR_READER_B"; read x <&5; cat >/dev/null; cat <&5 >/dev/null'
    _slow_input(monkeypatch, join, "b", tmp_path / "gate")


def test_the_end_of_a_failing_ring_does_not_take_the_whole_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a ring can drain, so waiting for it is in vain."""
    monkeypatch.setattr(monitor, "RING_SURE_S", 1.0)
    ran = execute(
        pipeline(
            processor("src", sh("yes | head -n 3000000 | tee /dev/stderr"), writes={"stdout": "a", "stderr": "b"}),
            processor("left", ("cat",), reads="a", writes="c"),
            processor(
                "join",
                sh('cat "$CONNECTOR_READER_SECOND" >/dev/null; cat >/dev/null'),
                reads={"stdin": "c", "second": "d"},
            ),
            processor("right", sh("sort"), reads="b", writes="d"),
            channels={name: {"capacity_bytes": 4096} for name in "abcd"},
            drain_s=1000.0,
        ),
        deadline_s=20.0,
    )
    assert ran.report.status == "failed"
    assert "ring of waits" in (ran.report.cause or "")


def test_a_drain_waits_for_who_is_held_up_by_a_slow_reader() -> None:
    """Its grace starts with its end of input, which comes after the last message; until then it only waits for room."""

    async def steps(happened: Happened) -> None:
        await soon(lambda: happened.run.channels and happened.run.channels["a"].written == 400)
        happened.run.stop("enough")

    ran = execute(
        pipeline(
            processor("src", sh("seq -f %010000.0f 400; exec sleep 1000"), writes="a"),
            processor(
                "mid",
                ("cat",),
                reads="a",
                writes="b",
                in_flight=InFlight(4096),
                stop=StopPolicy(grace_s=0.3),
            ),
            processor(
                "out",
                sh("sleep 1.5; exec cat >/dev/null"),
                reads="b",
                in_flight=InFlight(4096),
                stop=StopPolicy(grace_s=5.0),
            ),
            channels={"a": {"capacity_bytes": 8 << 20}, "b": {"capacity_bytes": 4096}},
        ),
        steps,
    )
    assert ran.account("a", "mid").unread == 0
    assert ran.account("b", "out").acknowledged == 400
