import io
import json
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runner.events import (
    DeadLetter,
    Event,
    Exited,
    InstanceState,
    LogLeftOut,
    LogLine,
    MessagesRefused,
    ProcessorFailed,
    Progress,
    RunEnded,
    RunStarted,
    RunStatus,
    RunStopping,
    StateChanged,
    Usage,
    WaitChanged,
    Warned,
)
from runner.observe.jsonlog import JsonLog
from runner.observe.sink import Sink
from tests.observe import samples
from tests.observe.samples import Drain

AT_S = 1_772_366_400.125
EVERY_EVENT: list[Event] = [
    RunStarted(at_s=AT_S, pipeline="flights", run="r1", processors=("fetch", "enrich")),
    StateChanged(
        at_s=AT_S,
        processor="enrich",
        replica=1,
        attempt=2,
        old=InstanceState.RUNNING,
        new=InstanceState.BACKOFF,
        cause="in 100ms",
        exited=Exited(None, 9, Usage(0.5, 1000)),
    ),
    LogLine(at_s=AT_S, processor="enrich", replica=1, stream="stray", text="\x1b[31m", cut=True),
    LogLeftOut(at_s=AT_S, processor="enrich", replica=1, count=7),
    DeadLetter(
        at_s=AT_S,
        processor="enrich",
        replica=1,
        channel="raw",
        number=17,
        letter=1,
        cause="exit 3",
        exited=Exited(3, None, Usage(0.5, 1000)),
        size_bytes=9,
        beginning="{bad",
        kept=True,
    ),
    MessagesRefused(at_s=AT_S, processor="fetch", channel="raw", count=2, cause="not JSON"),
    Progress(at_s=AT_S, what="image x", doing="downloading", fraction=0.5),
    Warned(at_s=AT_S, message="odd"),
    ProcessorFailed(at_s=AT_S, processor="enrich", replica=1, cause="why", exited=None, last_log=("one",)),
    RunStopping(at_s=AT_S, cause="enrich failed"),
    RunEnded(at_s=AT_S, status=RunStatus.FAILED, cause="enrich failed", duration_s=1.5),
]


def written(*events: Event, quiet: bool = False, balanced: bool | None = None) -> tuple[str, list[dict[str, Any]]]:
    stream = io.StringIO()
    log = JsonLog(Sink(stream), quiet=quiet)
    for event in events:
        log.handle(event)
    if balanced is not None:
        log.finish(samples.report(balanced=balanced))
    log.sink.close(5)
    text = stream.getvalue()
    return text, [json.loads(line) for line in text.splitlines()]


def test_every_event_with_its_fields() -> None:
    text, entries = written(*EVERY_EVENT)
    assert "\x1b" not in text
    assert {entry.pop("time") for entry in entries} == {"2026-03-01T12:00:00.125Z"}
    assert entries == [
        {
            "level": "info",
            "event": "run_started",
            "pipeline": "flights",
            "run": "r1",
            "processors": ["fetch", "enrich"],
        },
        {
            "level": "warning",
            "event": "state_changed",
            "processor": "enrich",
            "replica": 1,
            "attempt": 2,
            "old": "running",
            "new": "backoff",
            "cause": "in 100ms",
            "exit": {"code": None, "signal": 9, "cpu_s": 0.5, "peak_rss_bytes": 1000},
        },
        {
            "level": "warning",
            "event": "log_line",
            "processor": "enrich",
            "replica": 1,
            "stream": "stray",
            "text": "\x1b[31m",
            "cut": True,
            "apart": False,
        },
        {"level": "warning", "event": "log_left_out", "processor": "enrich", "replica": 1, "count": 7},
        {
            "level": "warning",
            "event": "dead_letter",
            "processor": "enrich",
            "replica": 1,
            "channel": "raw",
            "number": 17,
            "letter": 1,
            "cause": "exit 3",
            "size_bytes": 9,
            "beginning": "{bad",
            "kept": True,
            "exit": {"code": 3, "signal": None, "cpu_s": 0.5, "peak_rss_bytes": 1000},
        },
        {
            "level": "warning",
            "event": "messages_refused",
            "processor": "fetch",
            "channel": "raw",
            "count": 2,
            "cause": "not JSON",
        },
        {
            "level": "info",
            "event": "progress",
            "what": "image x",
            "doing": "downloading",
            "fraction": 0.5,
            "done": False,
        },
        {"level": "warning", "event": "warned", "message": "odd", "processor": None},
        {
            "level": "error",
            "event": "processor_failed",
            "processor": "enrich",
            "replica": 1,
            "cause": "why",
            "exit": None,
            "last_log": ["one"],
        },
        {"level": "info", "event": "run_stopping", "cause": "enrich failed"},
        {"level": "error", "event": "run_ended", "status": "failed", "cause": "enrich failed", "duration_s": 1.5},
    ]


def test_waits_are_written_once_they_last() -> None:
    stream = io.StringIO()
    log = JsonLog(Sink(stream))
    timers: list[Any] = []

    class Handle:
        def cancel(self) -> None: ...

    def call_later(delay: float, callback: Any, /) -> Handle:
        timers.append(callback)
        return Handle()

    log.start(call_later)
    log.handle(WaitChanged(processor="fetch", replica=0, cause="waiting for store"))
    log._waits._patience_s = 0.0
    timers[0]()
    log.handle(WaitChanged(processor="fetch", replica=0, cause=None))
    log.sink.close(5)
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(entry["event"], entry["processor"], entry["cause"]) for entry in entries] == [
        ("wait_changed", "fetch", "waiting for store"),
        ("wait_changed", "fetch", None),
    ]
    assert all(entry["waited_s"] >= 0 for entry in entries)


def test_quiet_writes_errors_only() -> None:
    _, entries = written(*EVERY_EVENT, quiet=True, balanced=True)
    assert [entry["event"] for entry in entries] == ["processor_failed", "run_ended"]
    _, entries = written(quiet=True, balanced=False)
    assert [(entry["event"], entry["level"]) for entry in entries] == [("ledger", "error")]


def test_the_ledger_is_the_last_line() -> None:
    _, entries = written(*EVERY_EVENT, balanced=True)
    ledger = entries[-1]
    assert (ledger["event"], ledger["balanced"]) == ("ledger", True)
    assert ledger["channels"]["raw"]["readers"]["enrich"]["acknowledged"] == 336_776


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_one_line_of_json(text: str) -> None:
    raw, entries = written(LogLine(processor="enrich", replica=0, stream="stderr", text=text))
    assert raw.count("\n") == 1
    assert raw[:-1].replace("\u200c", "").replace("\u200d", "").isprintable() or not raw.isascii()
    assert entries[0]["text"] == text.encode("utf-8", "replace").decode()


def test_what_a_stalled_reader_missed_is_json_too() -> None:
    receiving, sending = os.pipe()
    with os.fdopen(sending, "w", encoding="utf-8") as stream:
        log = JsonLog(Sink(stream, capacity_bytes=4096))
    for _ in range(3000):
        log.handle(LogLine(processor="enrich", replica=0, stream="stderr", text="x" * 100))
    lost = log.sink.lost_lines
    assert lost > 0
    drain = Drain(receiving)
    drain.until(b"output_left_out")
    log.sink.close(10)
    entries = [json.loads(line) for line in drain.rest().splitlines()]
    assert sum(entry["count"] for entry in entries if entry["event"] == "output_left_out") == lost
    assert len([entry for entry in entries if entry["event"] == "log_line"]) == 3000 - lost
