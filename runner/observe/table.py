"""The live table: a picture of the run at the bottom of a terminal, log lines above it, the ledger left behind.

It is painted from the event loop, so it must be cheap: a picture is made only when something in it changed, and the
next one waits so long that painting takes at most a fiftieth of the time. rich is imported in a thread meanwhile (it
takes a quarter of a second on a cold machine). All output goes through the sink; while a terminal is held (Ctrl-S) the
log lines are kept, up to a bound, and no picture is made.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

from runner.clock import Clock, monotonic
from runner.events import Event, RunStarted
from runner.observe.picture import Picture, Rates, headline, picture_of
from runner.observe.plain import LineFormat
from runner.observe.progress import Now
from runner.observe.sanitize import cells
from runner.observe.sentences import sentences
from runner.observe.sink import Sink
from runner.observe.summary import summary_lines
from runner.observe.usage import TreeUsage, UsageMeter
from runner.observe.waits import CallLater, TimerHandle
from runner.supervise.snapshot import ProcessorRow, RunReport, RunSnapshot

INTERVAL_S = 0.25
MOST_PENDING = 1 << 18
"""Characters of log lines kept while the terminal is held; what is no log line may take as much again."""

_SHARE = 50
_RATE_OVER_S = 1.0
_USAGE_EVERY_S = 1.0
_ESCAPE_START = "\x1b["


class LiveTable:
    """Shows a run on the terminal behind `sink`; `snapshot` says how it is now and is called on the loop's thread."""

    def __init__(
        self,
        sink: Sink,
        snapshot: Callable[[], RunSnapshot],
        *,
        colour: bool = True,
        interval_s: float = INTERVAL_S,
        clock: Clock = monotonic,
    ) -> None:
        self.sink = sink
        sink.notice = lambda _count: ""  # a line that the picture does not know of would shift it
        self._snapshot = snapshot
        self._colour = colour
        self._interval_s = interval_s
        self._clock = clock
        self._format = LineFormat(colour=colour, date=False)
        self._now = Now()
        self._pending: list[str] = []
        self._pending_size = 0
        self._left_out = 0
        self._rates = _RateMeter(clock)
        self._usage = _UsageOfRows(clock)
        self._shown: list[str] = []
        self._last: tuple[Picture, int] | None = None
        self._last_lines: list[str] = []
        self._call_later: CallLater | None = None
        self._timer: TimerHandle | None = None
        self._importing = threading.Thread(target=_import_frame, name="connector-import", daemon=True)
        self._finished = False

    def start(self, call_later: CallLater) -> None:
        """Paint from now on, by this timer."""
        self._call_later = call_later
        self._importing.start()
        self._timer = call_later(self._interval_s, self._tick)

    def handle(self, event: Event) -> None:
        """Take an event from the bus. Its lines appear above the table with the next picture."""
        if isinstance(event, RunStarted):
            self._format.learn(event)
        if not self._now.worth_a_line(event):
            return
        for sentence in sentences(event):
            line = self._format.line(sentence, event.at_s)
            if self._pending_size + len(line) > (MOST_PENDING if sentence.log else 2 * MOST_PENDING):
                self._left_out += 1
                self.sink.lose(1)
            else:
                self._pending.append(line)
                self._pending_size += len(line)

    def finish(self, report: RunReport | None) -> None:
        """Take the live picture away; leave the last lines, the final table and the ledger. None: no report."""
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        columns = self.sink.size().columns
        lines = [] if report is None else [f"{line}\n" for line in summary_lines(report, columns)]
        above = self._take_pending()
        text = self._erase(columns) + "".join(above) + "".join(lines)
        self._shown = []
        if text:
            self.sink.write(text, lines=len(above) + len(lines), important=True)

    def paint(self) -> None:
        """Show the run as it is now, unless the terminal is held or nothing changed."""
        if not self.sink.idle:
            return
        snapshot = self._snapshot()
        columns, height = self.sink.size()
        width = columns - 1  # the last column is left alone: terminals differ in when they wrap after it
        shown = [headline(snapshot, width), *self._table(snapshot, width, height - 2)]
        if shown == self._shown and not self._pending and not self._left_out:
            return
        above = self._take_pending()
        text = self._erase(columns) + "".join(above) + "".join(f"{line}\n" for line in shown)
        self._shown = shown
        self.sink.write(text, lines=len(above), important=True)

    def _table(self, snapshot: RunSnapshot, width: int, height: int) -> list[str]:
        """The lines below the headline; made anew only when they would look different."""
        from runner.observe.frame import render

        rates = self._rates.rates(snapshot)
        usage = self._usage.usage(snapshot.rows)
        picture = picture_of(snapshot.rows, rates, usage, width=width, height=height)
        if (picture, width) != self._last:
            self._last_lines = render(picture, width=width, colour=self._colour)
            self._last = (picture, width)
        return self._last_lines

    def _tick(self) -> None:
        if self._finished or self._call_later is None:
            return
        began_s = self._clock()
        if not self._importing.is_alive():
            self.paint()
        cost_s = self._clock() - began_s
        self._timer = self._call_later(max(self._interval_s, _SHARE * cost_s), self._tick)

    def _take_pending(self) -> list[str]:
        taken, self._pending, self._pending_size = self._pending, [], 0
        if self._left_out:
            taken.append(f"… {self._left_out:,} lines left out here: the terminal did not take them\n")
            self._left_out = 0
        return taken

    def _erase(self, columns: int) -> str:
        """Moves to where the picture begins and clears from there; it may have been wrapped by a smaller terminal."""
        rows = sum(max(1, -(-_width(line) // columns)) for line in self._shown)
        return f"\x1b[{rows}A\r\x1b[J" if rows else ""


class _RateMeter:
    """Turns counts into rates over the last second or so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: collections.deque[tuple[float, dict[str, tuple[int, int]]]] = collections.deque()

    def rates(self, snapshot: RunSnapshot) -> dict[str, Rates]:
        now_s = self._clock()
        self._samples.append((now_s, {row.name: (row.read, row.written) for row in snapshot.rows}))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - _RATE_OVER_S:
            self._samples.popleft()
        then_s, before = self._samples[0]
        passed_s = now_s - then_s
        rates = {}
        for row in snapshot.rows:
            read, written = before.get(row.name, (row.read, row.written))
            if passed_s > 0:
                rates[row.name] = Rates((row.read - read) / passed_s, (row.written - written) / passed_s)
        return rates


class _UsageOfRows:
    """Samples each row's processes once a second, a part of the rows at each call, so that no call takes long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._meters: dict[str, UsageMeter] = {}
        self._last: dict[str, TreeUsage] = {}
        self._sampled_s: dict[str, float] = {}

    def usage(self, rows: tuple[ProcessorRow, ...]) -> dict[str, TreeUsage]:
        now_s = self._clock()
        due = [row for row in rows if now_s - self._sampled_s.get(row.name, -_USAGE_EVERY_S) >= _USAGE_EVERY_S]
        due.sort(key=lambda row: self._sampled_s.get(row.name, 0.0))
        for row in due[: max(8, len(rows) // 4)]:
            meter = self._meters.setdefault(row.name, UsageMeter(self._clock))
            self._last[row.name] = meter.sample(row.pids)
            self._sampled_s[row.name] = now_s
        return self._last


def _width(line: str) -> int:
    """Cells of a line of the picture, whose only escapes are colours."""
    plain = "".join(part.partition("m")[2] if index else part for index, part in enumerate(line.split(_ESCAPE_START)))
    return cells(plain)


def _import_frame() -> None:
    import runner.observe.frame  # noqa: F401 - only so that the first picture need not wait for it
