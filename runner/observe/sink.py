"""The stream that people or a log collector read, wrapped so that nothing about it can hurt a run.

A terminal may be held (Ctrl-S), a pipe's reader may stall or be gone, the disk below a log may be full. The data path
must notice none of it. So `Sink.write` only puts text into a queue that is bounded in bytes, and a thread of the sink's
own does the blocking writes. The other way, O_NONBLOCK on the descriptor, would change it for every program that shares
the open file (a shell's terminal above all), and a poll before each write promises only PIPE_BUF bytes of a pipe and
nothing of a terminal.

What cannot be written is left out and counted; the count is written where it is missing, as soon as writing works.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

CAPACITY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
_FALLBACK_SIZE = os.terminal_size((80, 24))

Writer = Callable[[bytes], int]
"""Writes bytes, blocking; returns how many it could write. Fewer than given: the stream failed."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One text: `lines` are lost with it; `tells` is how many lost lines it tells of."""

    data: bytes
    lines: int
    tells: int = 0


class Sink:
    """A text stream that never raises and never blocks.

    `stream` None (a closed standard error) or one that is closed loses everything and counts it. A stream with a file
    descriptor is written by a duplicate of it, in the stream's encoding; what the encoding cannot say is escaped.
    `is_terminal` tells whether it is one. `notice` makes the text (with its newline, or empty) that tells how many
    lines are missing.
    Log lines may fill three quarters of `capacity_bytes`; the rest is kept for important text.
    """

    def __init__(self, stream: TextIO | None, *, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.notice: Callable[[int], str] = _plain_notice
        self.lost_lines = 0
        self._capacity_bytes = capacity_bytes
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._fd = _duplicate(stream)
        self.is_terminal = self._fd is not None and os.isatty(self._fd)
        self._write_now = _stream_writer(stream) if self._fd is None else _descriptor_writer(self._fd)
        self._wake = threading.Condition()
        self._queue: list[_Item] = []
        self._size_bytes = 0
        self._overflowed = 0
        self._untold = 0
        self._torn = False
        self._waiting = False
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether everything given to `write` has been written or given up."""
        with self._wake:
            return not self._size_bytes and not self._overflowed

    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal now; 80 by 24 where there is none or it does not know."""
        if self._fd is None:
            return _FALLBACK_SIZE
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return _FALLBACK_SIZE
        return size if size.columns > 0 and size.lines > 0 else _FALLBACK_SIZE

    def write(self, text: str, *, lines: int = 1, important: bool = False) -> None:
        """Queue `text`, which ends with a newline and counts as `lines` should it be lost. Whole or not at all."""
        data = text.encode(self._encoding, "backslashreplace")
        room_bytes = self._capacity_bytes if important else self._capacity_bytes * 3 // 4
        with self._wake:
            if self._closed:
                self.lost_lines += lines
                return
            full = self._size_bytes + len(data) > room_bytes
            # Once something was left out, all log lines are until the queue is taken: the notice then stands in place.
            if full or (self._overflowed and not important):
                self._overflowed += lines
                self.lost_lines += lines
            else:
                self._queue.append(_Item(data, lines))
                self._size_bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="connector-output", daemon=True)
                self._thread.start()
            if self._waiting:
                self._wake.notify()

    def lose(self, lines: int) -> None:
        """Count `lines` as lost that the caller left out itself."""
        with self._wake:
            self.lost_lines += lines

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, for at most `timeout_s` seconds; what is left then is lost. May be called again."""
        with self._wake:
            already_closed, self._closed = self._closed, True
            self._wake.notify()
        if already_closed:
            return
        if self._thread is None:
            self._release()
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            with self._wake:
                self.lost_lines += sum(item.lines for item in self._queue)
                self._queue = []

    def _run(self) -> None:
        """Write until closed, on the sink's own thread."""
        # Signals are the main thread's business; blocked here, SIGPIPE and SIGTTOU also turn into errors of write(2).
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (taken := self._take()) is not None:
            self._deliver(*taken)
        if self._untold:
            self._deliver([], 0)
        self._release()

    def _take(self) -> tuple[list[_Item], int] | None:
        """Wait for something to write; return it and how many lines were left out after it. None: closed and done."""
        with self._wake:
            while not self._queue and not self._overflowed:
                if self._closed:
                    return None
                self._waiting = True
                self._wake.wait()
                self._waiting = False
            items, self._queue = self._queue, []
            return items, self._overflowed

    def _deliver(self, items: list[_Item], overflowed: int) -> None:
        parts = [_Item(b"\n", 0)] if self._torn else []
        parts += self._telling(self._untold)
        parts += items
        parts += self._telling(overflowed)
        data = b"".join(part.data for part in parts)
        written = self._write_now(data)
        kept, end = 0, 0
        while kept < len(parts) and end + len(parts[kept].data) <= written:
            end += len(parts[kept].data)
            kept += 1
        lost = parts[kept:]
        self._torn = written > end or (self._torn and kept == 0)
        self._untold = sum(part.lines + part.tells for part in lost)
        with self._wake:
            self.lost_lines += sum(part.lines for part in lost)
            self._size_bytes -= sum(len(item.data) for item in items)
            self._overflowed -= overflowed

    def _telling(self, count: int) -> list[_Item]:
        return [_Item(self.notice(count).encode(self._encoding, "backslashreplace"), 0, tells=count)] if count else []

    def _release(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def _plain_notice(count: int) -> str:
    return f"… {count:,} {'line' if count == 1 else 'lines'} left out here: this stream did not take them\n"


def _duplicate(stream: TextIO | None) -> int | None:
    """A descriptor of the stream's file that nobody else closes; None where it has none."""
    if stream is None:
        return None
    try:
        stream.flush()
        return os.dup(stream.fileno())
    except (OSError, ValueError):  # io.UnsupportedOperation is both: a stream in memory
        return None


def _descriptor_writer(fd: int) -> Writer:
    def write(data: bytes) -> int:
        view, written = memoryview(data), 0
        while written < len(view):
            try:
                written += os.write(fd, view[written : written + _PIECE_BYTES])
            except BlockingIOError:  # somebody else made the shared open file non-blocking
                poll = select.poll()
                poll.register(fd, select.POLLOUT)
                poll.poll()
            except OSError:
                break
        return written

    return write


def _stream_writer(stream: TextIO | None) -> Writer:
    def write(data: bytes) -> int:
        if stream is None:
            return 0
        try:
            stream.write(data.decode(getattr(stream, "encoding", None) or "utf-8"))
            stream.flush()
        except (OSError, ValueError):
            return 0
        return len(data)

    return write
