"""Whoever follows the events: log, table, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

if TYPE_CHECKING:
    from runner.events import Event
    from runner.observe.sink import Sink
    from runner.observe.waits import CallLater
    from runner.supervise.snapshot import RunReport, RunSnapshot


class Observer(Protocol):
    """What shows a run while it goes on. None of its methods raises or blocks; call them on the loop's thread.

    `start` may be left out, then nothing is shown by time (the live table, waits that last). `finish` is called once,
    after the last event. The owner closes `sink` after it.
    """

    sink: Sink

    def start(self, call_later: CallLater) -> None:
        """Use this timer (`loop.call_later`) from now on."""

    def handle(self, event: Event) -> None:
        """Take an event; to be given to `Bus.subscribe`."""

    def finish(self, report: RunReport | None) -> None:
        """Show what became of the run. None: it came to no report."""


def observer_for(
    stream: TextIO | None,
    snapshot: Callable[[], RunSnapshot],
    *,
    log_format: Literal["text", "json"] = "text",
    quiet: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Observer:
    """The observer that fits `stream`: the live table on a terminal, plain lines elsewhere, JSON where asked.

    Colours: on a terminal, unless NO_COLOR (https://no-color.org) is set to something. TERM=dumb: plain lines.
    """
    from runner.observe.sink import Sink

    sink = Sink(stream)
    if log_format == "json":
        from runner.observe.jsonlog import JsonLog

        return JsonLog(sink, quiet=quiet)
    capable = sink.is_terminal and environ.get("TERM", "") not in {"", "dumb"}
    colour = capable and not environ.get("NO_COLOR")
    if capable and not quiet:
        from runner.observe.table import LiveTable

        return LiveTable(sink, snapshot, colour=colour)
    from runner.observe.plain import PlainLog

    return PlainLog(sink, quiet=quiet, colour=colour)
