"""A run as lines for people: `2026-03-01 12:00:00.125 enrich[1]  will be restarted: …`."""

from __future__ import annotations

import time

from runner.events import Event, RunStarted, StateChanged, WaitChanged
from runner.observe.progress import Now
from runner.observe.sanitize import cells, visible
from runner.observe.sentences import RUN, Level, Sentence, instance_name, sentences
from runner.observe.sink import Sink
from runner.observe.summary import summary_lines
from runner.observe.waits import CallLater, Wait, Waits
from runner.supervise.snapshot import RunReport

_WIDEST_NAME = 24
_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_OF_LEVEL = {Level.WARNING: "\x1b[33m", Level.ERROR: "\x1b[1;31m"}
_OF_NAMES = ("\x1b[36m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[96m", "\x1b[92m", "\x1b[95m", "\x1b[94m")


class LineFormat:
    """Lays out sentences: time, who in a column of its own, text. All that comes from outside is made harmless.

    `date`: the time carries its date (for logs that are kept). Local time.
    """

    def __init__(self, *, colour: bool, date: bool) -> None:
        self._colour = colour
        self._pattern = "%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S"
        self._width = len(RUN)
        self._colours = {RUN: "\x1b[1m"}

    def learn(self, event: RunStarted) -> None:
        """Take the processors' names for the width and colours of the second column."""
        self._width = min(_WIDEST_NAME, max(map(len, (RUN, *event.processors))) + len("[0]"))
        for index, name in enumerate(event.processors):
            self._colours[name] = _OF_NAMES[index % len(_OF_NAMES)]

    def line(self, sentence: Sentence, at_s: float) -> str:
        """The line with its newline."""
        moment = f"{time.strftime(self._pattern, time.localtime(at_s))}.{int(at_s % 1 * 1000):03d}"
        who = visible(sentence.who)
        pad = " " * (self._width - cells(who))
        mark = " stray |" if sentence.stray else " |" if sentence.log else " "
        text = visible(sentence.text)
        if not self._colour:
            return f"{moment} {who}{pad}{mark} {text}\n"
        name_colour = self._colours.get(sentence.who.partition("[")[0], "")
        text_colour = _OF_LEVEL.get(sentence.level, "")
        text = f"{text_colour}{text}{_RESET}" if text_colour else text
        return f"{_DIM}{moment}{_RESET} {name_colour}{who}{_RESET}{pad}{_DIM}{mark}{_RESET} {text}\n"


class PlainLog:
    """Writes a run to `sink` as lines for people; `quiet`: errors only. `colour`: with terminal colours."""

    def __init__(self, sink: Sink, *, quiet: bool = False, colour: bool = False) -> None:
        self.sink = sink
        self._least = Level.ERROR if quiet else Level.INFO
        self._format = LineFormat(colour=colour, date=True)
        self._waits = Waits(self._tell_wait)
        self._now = Now()

    def start(self, call_later: CallLater) -> None:
        """Tell waits while they last, by this timer."""
        self._waits.start(call_later)

    def handle(self, event: Event) -> None:
        """Take an event from the bus."""
        match event:
            case RunStarted():
                self._format.learn(event)
            case WaitChanged() | StateChanged():
                self._waits.handle(event)
        if self._now.worth_a_line(event):
            for sentence in sentences(event):
                self._write(sentence, event.at_s)

    def finish(self, report: RunReport | None) -> None:
        """Write the final table and the ledger. None: the run came to no report."""
        if report is not None and self._least is Level.INFO:
            for line in summary_lines(report):
                self.sink.write(f"{line}\n", important=True)

    def _tell_wait(self, wait: Wait) -> None:
        self._write(Sentence(Level.INFO, instance_name(wait.processor, wait.replica), wait.text), time.time())

    def _write(self, sentence: Sentence, at_s: float) -> None:
        if sentence.level >= self._least:
            important = not sentence.log or sentence.level is Level.ERROR
            self.sink.write(self._format.line(sentence, at_s), important=important)
