"""What the live table shows at one moment, decided as plain values: which rows, columns, words and styles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.observe.sanitize import cells, clip, visible
from runner.observe.usage import TreeUsage
from runner.supervise.snapshot import ProcessorRow, RunSnapshot
from runner.units import format_duration, format_size

GAP = 2
"""Cells between two columns."""

_WIDEST_NAME = 24
_LEAST_WAITING = 20
_MOST_NOTES = 3
_STYLES = {
    "running": "green",
    "starting": "cyan",
    "backoff": "yellow",
    "draining": "cyan",
    "stopping": "cyan",
    "exited": "dim",
    "failed": "bold red",
}
_NEEDS_ATTENTION = frozenset({"failed", "backoff"})
_WIDTHS = {"state": 8, "in/s": 5, "out/s": 5, "queue": 13, "restarts": 8, "batches": 7, "cpu": 5, "memory": 8}
_KEPT_LONGEST = ("state", "in/s", "out/s", "restarts", "queue", "cpu", "memory", "batches")


@dataclass(frozen=True, slots=True)
class Rates:
    """Messages a second over the last second or so."""

    read_per_s: float = 0.0
    written_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cell:
    """Words and their style (rich's names); harmless, not longer than the column."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, its width in cells, whether it is flush right."""

    title: str
    width: int
    right: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """The table below its headline; `notes` are lines below the rows. Equal pictures look the same."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[Cell, ...]


def headline(snapshot: RunSnapshot, width: int) -> str:
    """The line above the table."""
    words = "stopping after" if snapshot.stopping else "running for"
    return clip(visible(f"{snapshot.pipeline}: {words} {format_duration(max(1, int(snapshot.elapsed_s)))}"), width)


def picture_of(
    rows: Sequence[ProcessorRow],
    rates: Mapping[str, Rates],
    usage: Mapping[str, TreeUsage],
    *,
    width: int,
    height: int,
) -> Picture:
    """The picture that fits `width` cells and `height` lines (with its titles).

    Where it is narrow, columns are left out and what a processor waits for is told below the table; where it is low,
    rows are left out, those that failed or wait for their restart last.
    """
    chosen, left_out = _fitting(rows, max(1, height - 1))
    name = Column("processor", min(_WIDEST_NAME, max([len("processor"), *(cells(row.name) for row in rows)])))
    batches = any(row.batches is not None for row in rows)
    titles, room = _fitting_titles(width - name.width, _KEPT_LONGEST if batches else _KEPT_LONGEST[:-1])
    columns = [name, *(Column(title, _WIDTHS[title], right=title != "state") for title in titles)]
    waiting = Column("waits for", room - GAP)
    told_in_table = waiting.width >= _LEAST_WAITING
    if told_in_table:
        columns.append(waiting)
    lines = []
    for row in chosen:
        known = _cells(row, rates.get(row.name, Rates()), usage.get(row.name))
        lines.append(tuple(Cell(clip(known[one.title].text, one.width), known[one.title].style) for one in columns))
    notes = [Cell(clip(f"… and {left_out} more", width), "dim")] if left_out else []
    if not told_in_table:
        held = [visible(f"{row.name}: {row.waiting}") for row in chosen if row.waiting]
        notes += [Cell(clip(text, width), "yellow") for text in held[:_MOST_NOTES]]
    return Picture(tuple(columns), tuple(lines), tuple(notes[: max(0, height - 1 - len(lines))]))


def compact(number: float) -> str:
    """A count or a rate in at most five characters: "0", "0.4", "12", "1.2k", "340k", "1.2M"."""
    if number < 9.95:
        return f"{number:.1f}".removesuffix(".0")
    for unit in ("", "k", "M", "G", "T"):
        if number < 999.5:
            return f"{number:.1f}{unit}" if unit and number < 9.95 else f"{number:.0f}{unit}"
        number /= 1000
    return f"{number:.0f}P"


def _fitting_titles(room: int, wanted: Sequence[str]) -> tuple[list[str], int]:
    """Those of the `wanted` columns that fit beside the name, in the table's order, and the cells that are left."""
    fitting = []
    for title in wanted:
        if room < _WIDTHS[title] + GAP:
            break
        fitting.append(title)
        room -= _WIDTHS[title] + GAP
    return [title for title in _WIDTHS if title in fitting], room


def _fitting(rows: Sequence[ProcessorRow], most: int) -> tuple[list[ProcessorRow], int]:
    """The rows that fit, in order, and how many are left out; one line is kept for saying so."""
    if len(rows) <= most:
        return list(rows), 0
    by_need = sorted(range(len(rows)), key=lambda index: rows[index].state not in _NEEDS_ATTENTION)
    kept = sorted(by_need[: max(1, most - 1)])
    return [rows[index] for index in kept], len(rows) - len(kept)


def _cells(row: ProcessorRow, rates: Rates, usage: TreeUsage | None) -> dict[str, Cell]:
    queue = f"{compact(row.queue_messages)} {format_size(row.queue_bytes)}" if row.queue_bytes else "-"
    percent = None if usage is None else usage.cpu_percent
    return {
        "processor": Cell(visible(row.name)),
        "state": Cell(visible(row.state), _STYLES.get(row.state, "")),
        "in/s": Cell(compact(rates.read_per_s)),
        "out/s": Cell(compact(rates.written_per_s)),
        "queue": Cell(queue),
        "restarts": Cell(f"{row.restarts}", "yellow" if row.restarts else ""),
        "batches": Cell("-" if row.batches is None else compact(row.batches)),
        "cpu": Cell("-" if percent is None else f"{percent:.0f}%"),
        "memory": Cell(format_size(usage.rss_bytes) if usage is not None and usage.rss_bytes else "-"),
        "waits for": Cell(visible(row.waiting or ""), "yellow"),
    }
