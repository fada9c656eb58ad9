"""A program's log: always read, so that it never blocks the program; cut, rate-limited and counted."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from runner.clock import Clock, monotonic
from runner.events import Bus, LogLeftOut, LogLine

LINE_BYTES = 8 << 10
LINES_PER_S = 1000
_BURST_LINES = 4 * LINES_PER_S
_READ_BYTES = 1 << 16
_TAIL_BYTES = 16 << 10
_LAST_LINES = 20
_HIDDEN = "[secret]"

Stream = Literal["stderr", "stdout", "stray"]


class InstanceLog:
    """What one instance logs over all its runs: emits lines on the bus, within `LINES_PER_S`, and keeps the last.

    Wherever one of `secrets` stands in a line, it is replaced.
    """

    def __init__(
        self, bus: Bus, processor: str, replica: int, clock: Clock = monotonic, secrets: Sequence[str] = ()
    ) -> None:
        self._bus = bus
        self._processor = processor
        self._replica = replica
        self._clock = clock
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)
        self._allowed = float(_BURST_LINES)
        self._refilled_at = clock()
        self._unsaid = 0
        self._tail: deque[str] = deque(maxlen=_LAST_LINES)
        self.left_out = 0
        self.watcher: Callable[[bytes], None] | None = None
        self.own: Callable[[str], bool] | None = None
        """Writes a line into the log of the program's own container; False: there is none."""

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines, oldest first, those that were left out among them."""
        return tuple(self._tail)

    def allowance(self) -> int:
        """How many lines may be emitted now."""
        now = self._clock()
        self._allowed = min(_BURST_LINES, self._allowed + (now - self._refilled_at) * LINES_PER_S)
        self._refilled_at = now
        return int(self._allowed)

    def line(self, raw: bytes, stream: Stream) -> None:
        """One line without its newline."""
        if self.watcher is not None:
            self.watcher(raw)
        cut = len(raw) > LINE_BYTES
        text = self._text(raw)
        self._tail.append(text)
        if self.allowance() < 1:
            self.left_out += 1
            self._unsaid += 1
            return
        self._allowed -= 1
        self.say_left_out()
        apart = self.own is not None and self.own(text)
        self._bus.emit(
            LogLine(processor=self._processor, replica=self._replica, stream=stream, text=text, cut=cut, apart=apart)
        )

    def _text(self, raw: bytes) -> str:
        """What is shown of a line. A secret is hidden before the line is cut, so that no half of one is left."""
        if not self._secrets:
            return raw[:LINE_BYTES].decode("utf-8", "replace")
        text = raw.decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text[:LINE_BYTES]

    def skip(self, lines: int, tail: bytes) -> None:
        """`lines` lines came faster than the limit and were not looked at; they ended with `tail`."""
        self.left_out += lines
        self._unsaid += lines
        for raw in tail[-_TAIL_BYTES:].split(b"\n")[-_LAST_LINES - 1 : -1]:
            self._tail.append(self._text(raw))

    def say_left_out(self) -> None:
        """Tell how many lines were left out since this was told last."""
        if self._unsaid:
            count, self._unsaid = self._unsaid, 0
            self._bus.emit(LogLeftOut(processor=self._processor, replica=self._replica, count=count))


class LogReader:
    """Reads one descriptor of one run into the instance's log; owns the descriptor."""

    def __init__(self, descriptor: int, log: InstanceLog, stream: Stream) -> None:
        self.ended = asyncio.Event()
        self._descriptor = descriptor
        self._log = log
        self._stream: Stream = stream
        self._pending = b""
        self._rest: Literal["", "shown", "left out"] = ""
        """What became of the beginning of the line that is being read, where it is not pending."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.close()

    def _take(self, data: bytes) -> None:
        newlines = data.count(b"\n")
        log = self._log
        if log.watcher is None and newlines > log.allowance():
            already_shown = self._rest == "shown"
            log.skip(newlines - already_shown, data[: data.rfind(b"\n") + 1])
            self._pending = b""
            self._rest = "" if data.endswith(b"\n") else "left out"
            return
        first, *rest = data.split(b"\n")
        if self._rest:
            if not rest:
                return
            if self._rest == "left out":
                log.skip(1, b"")
            self._rest = ""
            first, *rest = rest
        pending = self._pending + first
        for line in rest:
            log.line(pending, self._stream)
            pending = line
        if len(pending) > LINE_BYTES:
            log.line(pending, self._stream)
            pending = b""
            self._rest = "shown"
        self._pending = pending

    def close(self) -> None:
        """Show what is left over and let go of the descriptor."""
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        if self._pending:
            self._log.line(self._pending, self._stream)
            self._pending = b""
        if self._rest == "left out":
            self._log.skip(1, b"")
        self._log.say_left_out()
        self.ended.set()
