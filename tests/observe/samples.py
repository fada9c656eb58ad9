"""Reports, snapshots and ends of streams that the tests of this folder share."""

from __future__ import annotations

import os
import threading
from typing import Any

from runner.events import RunStatus
from runner.supervise.snapshot import (
    ChannelReport,
    ExitReport,
    InstanceReport,
    ProcessorReport,
    ProcessorRow,
    ReaderReport,
    RunReport,
    RunSnapshot,
    SupervisorReport,
)


def reader(**counts: int | None) -> ReaderReport:
    terms: dict[str, int | None] = dict.fromkeys(
        ("carried", "replayed", "acknowledged", "dead", "dropped", "indeterminate", "unread"), 0
    )
    return ReaderReport(**(terms | counts))


def channel(
    written: int | None, readers: dict[str, ReaderReport], *, kind: str = "memory", refused: int | None = 0
) -> ChannelReport:
    return ChannelReport(kind=kind, written=written, refused=refused, readers=readers)


def processor(state: str = "exited", **fields: Any) -> ProcessorReport:
    known: dict[str, Any] = {
        "restarts": 0,
        "cause": "the end of its input",
        "read": 0,
        "written": 0,
        "stray": 0,
        "log_lines_left_out": 0,
        "instances": [],
    }
    return ProcessorReport(state=state, **(known | fields))


def report(**fields: Any) -> RunReport:
    known: dict[str, Any] = {
        "pipeline": "flights",
        "run": "r1",
        "status": RunStatus.COMPLETED,
        "cause": None,
        "started_at": "2026-03-01T12:00:00Z",
        "duration_s": 12.5,
        "balanced": True,
        "supervisor": SupervisorReport(peak_rss_bytes=40 << 20, cpu_s=1.5),
        "processors": {
            "fetch": processor(written=336_776),
            "enrich": processor(
                restarts=1,
                read=336_776,
                written=336_776,
                instances=[InstanceReport(0, 1, ExitReport(None, 9), "killed by SIGKILL", 20 << 20, 0.5)],
            ),
        },
        "channels": {"raw": channel(336_776, {"enrich": reader(acknowledged=336_776)})},
    }
    return RunReport(**(known | fields))


def row(name: str = "enrich", **fields: Any) -> ProcessorRow:
    known: dict[str, Any] = {
        "name": name,
        "state": "running",
        "read": 0,
        "written": 0,
        "queue_messages": 0,
        "queue_bytes": 0,
        "restarts": 0,
        "stray": 0,
        "pids": (),
        "waiting": None,
    }
    return ProcessorRow(**(known | fields))


def snapshot(*rows: ProcessorRow, elapsed_s: float = 3.0, stopping: bool = False) -> RunSnapshot:
    return RunSnapshot(pipeline="flights", elapsed_s=elapsed_s, stopping=stopping, rows=rows)


class Drain:
    """Reads a descriptor to its end in a thread; owns it. `until` waits for bytes to appear."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._data = bytearray()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def until(self, wanted: bytes, timeout_s: float = 10) -> bytes:
        with self._changed:
            found = self._changed.wait_for(lambda: wanted in self._data or self._ended, timeout_s)
            assert found, f"{wanted!r} did not come: {bytes(self._data[-300:])!r}"
            assert wanted in self._data, f"ended without {wanted!r}: {bytes(self._data[-300:])!r}"
            return bytes(self._data)

    def rest(self, timeout_s: float = 10) -> bytes:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the writing end is still open"
        return bytes(self._data)

    def _run(self) -> None:
        try:
            while chunk := os.read(self._descriptor, 1 << 16):
                self._add(chunk)
        except OSError:  # EIO: the other side of a pseudo terminal is closed
            pass
        os.close(self._descriptor)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _add(self, chunk: bytes) -> None:
        with self._changed:
            self._data += chunk
            self._changed.notify_all()
