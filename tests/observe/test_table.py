import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest

from runner.events import InstanceState, LogLine, ProcessorFailed, RunStarted, StateChanged
from runner.observe import observer_for
from runner.observe.jsonlog import JsonLog
from runner.observe.plain import PlainLog
from runner.observe.sink import Sink
from runner.observe.table import MOST_PENDING, LiveTable
from runner.supervise.snapshot import RunSnapshot
from tests.observe.samples import Drain, report, row, snapshot


class Terminal:
    """A pseudo terminal whose output is read, and a small part of a screen for what the table writes."""

    def __init__(self, columns: int = 120, lines: int = 24) -> None:
        self.leader, follower = pty.openpty()
        self.stream: TextIO = os.fdopen(follower, "w", encoding="utf-8")
        self.resize(columns, lines)
        self.drain = Drain(os.dup(self.leader))

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def close(self) -> str:
        self.stream.close()
        return self.drain.rest().decode()


def screen(output: str) -> list[str]:
    """What is on the screen after `output`: newlines, cursor up, erase below; colours are dropped."""
    lines, at = [""], 0
    rest = output.replace("\r", "")
    while rest:
        if rest.startswith("\x1b["):
            end = next(index for index, one in enumerate(rest[2:], 2) if one.isalpha())
            number, command, rest = rest[2:end], rest[end], rest[end + 1 :]
            assert command in "AJm", f"unknown command {command!r}"
            if command == "A":
                at -= int(number)
                assert at >= 0, "the cursor would leave the screen"
            elif command == "J":
                lines[at:] = [""]
        elif rest[0] == "\n":
            at, rest = at + 1, rest[1:]
            lines += [""] * (at + 1 - len(lines))
        else:
            lines[at] += rest[0]
            rest = rest[1:]
    return lines


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.leader)


def log_line(text: str) -> LogLine:
    return LogLine(processor="enrich", replica=0, stream="stderr", text=text)


def wait_idle(sink: Sink) -> None:
    while not sink.idle:
        os.sched_yield()


def test_lines_above_the_table_below_and_the_ledger_left_behind(terminal: Terminal) -> None:
    async def run() -> None:
        asked: asyncio.Queue[None] = asyncio.Queue()

        def now() -> RunSnapshot:
            asked.put_nowait(None)
            return snapshot(row("enrich", pids=(os.getpid(),)), elapsed_s=asked.qsize())

        table = LiveTable(Sink(terminal.stream), now, interval_s=0.01)
        table.start(asyncio.get_running_loop().call_later)
        table.handle(RunStarted(pipeline="flights", run="r1", processors=("fetch", "enrich")))
        table.handle(log_line("first \x1b[2J"))
        async with asyncio.timeout(20):
            await asked.get()
            await asked.get()
            table.handle(log_line("second"))
            await asked.get()
        table.handle(log_line("third"))
        table.finish(report())
        table.sink.close(10)

    asyncio.run(run())
    output = terminal.close()
    assert output.count("in/s") >= 2, "the table was painted again and again"
    left = [line for line in screen(output) if line]
    assert [line.partition(" ")[2] for line in left[:4]] == [
        "run        pipeline flights started with 2 processors (fetch, enrich), run r1",
        "enrich[0] | first \\x1b[2J",
        "enrich[0] | second",
        "enrich[0] | third",
    ]
    assert left[4] == "flights: completed in 12.5s"
    assert left[5].startswith("processor  state   restarts")
    assert left[-1] == "ledger balanced: every message acknowledged by every reader, nothing lost or doubled"
    assert "in/s" not in "".join(left), "the live picture is gone"


def test_the_picture_has_state_rates_usage_and_waits(terminal: Terminal) -> None:
    now_s = 0.0
    read, written = 0, 0
    busy = row("enrich", pids=(os.getpid(),), waiting="waiting for `store`, 8 MiB in flight", restarts=2)
    table = LiveTable(
        Sink(terminal.stream),
        lambda: snapshot(replace(busy, read=read, written=written), elapsed_s=now_s),
        clock=lambda: now_s,
        colour=False,
    )
    for _ in range(8):
        table.paint()
        wait_idle(table.sink)
        now_s += 0.25
        read, written = read + 500, written + 250
    table.sink.close(10)
    shown = screen(terminal.close())
    assert shown[0] == "flights: running for 1s"
    words = shown[2].split()
    assert words[:6] == ["enrich", "running", "2.0k", "1.0k", "-", "2"]
    assert words[6].endswith("%")
    assert shown[2].endswith("MiB  waiting for `store`, 8 MiB in flight")


def test_nothing_is_written_while_nothing_changes(terminal: Terminal) -> None:
    table = LiveTable(Sink(terminal.stream), lambda: snapshot(row()))
    table.paint()
    table.paint()
    wait_idle(table.sink)
    for _ in range(10):
        table.paint()
        assert table.sink.idle
    table.sink.close(10)
    assert terminal.close().count("flights: running") == 1


def test_a_terminal_that_became_narrow_is_cleaned(terminal: Terminal) -> None:
    table = LiveTable(Sink(terminal.stream), lambda: snapshot(row(waiting="waiting " * 20)), colour=False)
    table.paint()
    wait_idle(table.sink)
    terminal.resize(50, 24)
    table.handle(log_line("after"))
    table.paint()
    table.sink.close(10)
    output = terminal.close()
    # The headline takes one line of the narrow screen, the titles two (they end at 88), the row three (119 cells).
    assert "\x1b[6A\r\x1b[J" in output
    assert all(len(line) < 50 for line in output.rpartition("\x1b[J")[2].splitlines())


def test_a_held_terminal_keeps_a_bounded_number_of_lines(terminal: Terminal) -> None:
    termios.tcflow(terminal.stream.fileno(), termios.TCOOFF)
    calls: list[int] = []

    def now() -> RunSnapshot:
        calls.append(1)
        return snapshot(row())

    table = LiveTable(Sink(terminal.stream), now)
    table.paint()
    for _ in range(20_000):
        table.handle(log_line("x" * 100))
        table.paint()
    table.handle(ProcessorFailed(processor="enrich", replica=0, cause="why", exited=None, last_log=()))
    assert len(calls) == 1, "no picture is made while the terminal takes nothing"
    assert 0 < 20_000 - table.sink.lost_lines < MOST_PENDING // 100
    termios.tcflow(terminal.stream.fileno(), termios.TCOON)
    wait_idle(table.sink)
    table.finish(None)
    table.sink.close(10)
    output = terminal.close()
    assert "failed for good: why" in output
    assert f"… {table.sink.lost_lines:,} lines left out" in output


def test_a_terminal_that_goes_away_is_survived() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        table = LiveTable(Sink(stream), lambda: snapshot(row()))
    table.paint()
    wait_idle(table.sink)
    moving = StateChanged(
        processor="enrich",
        replica=0,
        attempt=1,
        old=InstanceState.STARTING,
        new=InstanceState.RUNNING,
        cause="its program runs",
    )
    os.close(leader)
    table.handle(moving)
    table.paint()
    table.finish(report())
    table.sink.close(10)
    assert table.sink.lost_lines > 1


@pytest.mark.parametrize(
    ("environ", "options", "kind", "colour"),
    [
        ({"TERM": "xterm"}, {}, LiveTable, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, {}, LiveTable, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, {}, LiveTable, True),
        ({"TERM": "dumb"}, {}, PlainLog, False),
        ({}, {}, PlainLog, False),
        ({"TERM": "xterm"}, {"quiet": True}, PlainLog, True),
        ({"TERM": "xterm"}, {"log_format": "json"}, JsonLog, None),
    ],
)
def test_the_observer_fits_the_terminal(
    terminal: Terminal, environ: dict[str, str], options: dict[str, object], kind: type, colour: bool | None
) -> None:
    make: Callable[..., object] = observer_for
    observer = make(terminal.stream, snapshot, environ=environ, **options)
    assert isinstance(observer, kind)
    if isinstance(observer, LiveTable | PlainLog):
        assert observer._format._colour is colour
    assert isinstance(observer, LiveTable | PlainLog | JsonLog)
    observer.sink.close()
    terminal.close()


def test_what_is_no_terminal_gets_lines() -> None:
    with Path("/dev/null").open("w", encoding="utf-8") as stream:
        observer = observer_for(stream, snapshot, environ={"TERM": "xterm"})
    assert isinstance(observer, PlainLog)
    observer.sink.close()
