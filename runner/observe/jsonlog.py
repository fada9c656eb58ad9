"""A run as JSON: one object per line per event. Its events and fields are documented in docs/report.md."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from runner.events import Event, LogLine, StateChanged, WaitChanged
from runner.observe.sanitize import json_safe
from runner.observe.sentences import Level, level_of
from runner.observe.sink import Sink
from runner.observe.waits import CallLater, Wait, Waits
from runner.supervise.snapshot import RunReport

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


class JsonLog:
    """Writes a run to `sink` as one JSON object per line; `quiet`: errors only."""

    def __init__(self, sink: Sink, *, quiet: bool = False) -> None:
        self.sink = sink
        sink.notice = _notice
        self._least = Level.ERROR if quiet else Level.INFO
        self._waits = Waits(self._tell_wait)

    def start(self, call_later: CallLater) -> None:
        """Tell waits while they last, by this timer."""
        self._waits.start(call_later)

    def handle(self, event: Event) -> None:
        """Take an event from the bus."""
        if isinstance(event, WaitChanged | StateChanged):
            self._waits.handle(event)
        level = level_of(event)
        if level < self._least or isinstance(event, WaitChanged):
            return
        fields = msgspec.to_builtins(event)
        del fields["at_s"]
        if "exited" in fields:
            fields["exit"] = _exit(fields.pop("exited"))
        line = _line(event.at_s, level, event_name(type(event)), fields)
        self.sink.write(line, important=not isinstance(event, LogLine))

    def finish(self, report: RunReport | None) -> None:
        """Write the ledger. None: the run came to no report."""
        if report is None or (self._least is Level.ERROR and report.balanced):
            return
        level = Level.INFO if report.balanced else Level.ERROR
        fields = {"balanced": report.balanced, "channels": msgspec.to_builtins(report.channels)}
        self.sink.write(_line(time.time(), level, "ledger", fields), important=True)

    def _tell_wait(self, wait: Wait) -> None:
        if self._least is Level.INFO:
            line = _line(time.time(), Level.INFO, event_name(WaitChanged), msgspec.to_builtins(wait))
            self.sink.write(line, important=True)


def event_name(kind: type[Event]) -> str:
    """The `event` field of a class of events: "state_changed" of `StateChanged`."""
    return _WORD_START.sub("_", kind.__name__).lower()


def _exit(exited: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if exited is None else {"code": exited["code"], "signal": exited["signal"], **exited["usage"]}


def _line(at_s: float, level: Level, name: str, fields: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    entry = {"time": moment, "level": level.name.lower(), "event": name, **fields}
    try:
        encoded = msgspec.json.encode(entry)
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot carry
        encoded = msgspec.json.encode(_without_surrogates(entry))
    return json_safe(encoded.decode()) + "\n"


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
        case _:
            return value


def _notice(count: int) -> str:
    return _line(time.time(), Level.WARNING, "output_left_out", {"count": count})
