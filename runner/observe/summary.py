"""The final table and the ledger as compact aligned text, from the report of a run.

It says that nothing was lost or doubled only when the report's numbers say so.
"""

from __future__ import annotations

from collections.abc import Sequence

from runner.observe.sanitize import cells, clip, visible
from runner.supervise.snapshot import ChannelReport, ProcessorReport, ReaderReport, RunReport
from runner.units import format_count, format_duration

_CAUSE_WIDTH = 120
_ALWAYS_SHOWN = frozenset({"acknowledged", "indeterminate", "dead", "dropped", "unread"})
_TERMS = ("carried", "replayed", "acknowledged", "dead", "dropped", "indeterminate", "unread")
_NOT_ACKNOWLEDGED = {
    "dead": "dead letters",
    "dropped": "dropped by a full channel",
    "indeterminate": "indeterminate (read by an instance that died: handled or not)",
    "unread": "unread",
}


def summary_lines(report: RunReport, width: int | None = None) -> list[str]:
    """The lines to leave behind: how it ended, the processors, the ledger, the verdict.

    `width`: a terminal's columns; tables that are wider become one entry per row. None: as wide as need be.
    """
    took = format_duration(report.duration_s)
    ended = f"{report.status} in {took}" + (f": {report.cause}" if report.cause else "")
    lines = ["", visible(f"{report.pipeline}: {ended}")]
    if report.processors:
        lines += ["", *_processor_lines(report.processors, width)]
    if report.channels:
        lines += ["", *_ledger_lines(report.channels, width)]
    return [*lines, "", verdict(report)]


def reader_balanced(channel: ChannelReport, reader: ReaderReport) -> bool | None:
    """Whether carried + written + replayed = acknowledged + dead + dropped + indeterminate + unread.

    None: they are not counted.
    """
    into = (reader.carried, channel.written, reader.replayed)
    out = (reader.acknowledged, reader.dead, reader.dropped, reader.indeterminate, reader.unread)
    if None in into or None in out:
        return None
    return sum(filter(None, into)) == sum(filter(None, out))


def verdict(report: RunReport) -> str:
    """The ledger in one sentence."""
    pairs = [
        (channel_name, reader_name, reader_balanced(channel, reader))
        for channel_name, channel in report.channels.items()
        for reader_name, reader in channel.readers.items()
    ]
    wrong = [f"{channel} → {reader}" for channel, reader, balanced in pairs if balanced is False]
    if wrong or not report.balanced:
        where = f" at {', '.join(wrong)}" if wrong else ""
        return f"ledger NOT balanced{where}: a bug of the runner; please report it together with the report file"
    uncounted = sorted({channel for channel, _, balanced in pairs if balanced is None})
    if len(uncounted) == len(report.channels):
        return "ledger: no channel whose messages are counted"
    besides = f"; not counted: {', '.join(uncounted)}" if uncounted else ""
    open_items = _open_items(report)
    if open_items:
        return f"ledger balanced, every message is accounted for: {', '.join(open_items)}{besides}"
    return f"ledger balanced: every message acknowledged by every reader, nothing lost or doubled{besides}"


def _open_items(report: RunReport) -> list[str]:
    """What stands between this run and "nothing lost or doubled"."""
    items = []
    for name, channel in report.channels.items():
        if channel.refused:
            items.append(f"{channel.refused:,} refused at {name}")
        for reader_name, reader in channel.readers.items():
            items += [
                f"{count:,} {words} at {name} → {reader_name}"
                for term, words in _NOT_ACKNOWLEDGED.items()
                if (count := getattr(reader, term))
            ]
    return items


def _processor_lines(processors: dict[str, ProcessorReport], width: int | None) -> list[str]:
    stray = any(processor.stray for processor in processors.values())
    left_out = any(processor.log_lines_left_out for processor in processors.values())
    headers = ["processor", "state", "restarts", "read", "written"]
    headers += ["stray"] * stray + ["log left out"] * left_out + ["cause"]
    rows = []
    for name, processor in processors.items():
        row = [name, processor.state, f"{processor.restarts:,}", _number(processor.read), _number(processor.written)]
        row += [f"{processor.stray:,}"] * stray + [f"{processor.log_lines_left_out:,}"] * left_out
        rows.append([visible(cell) for cell in [*row, clip(processor.cause, _CAUSE_WIDTH)]])
    lines = _aligned(headers, rows, left={0, 1, len(headers) - 1})
    if width is None:
        return lines
    if max(cells(line) for line in _aligned(headers[:-1], [row[:-1] for row in rows], left={0, 1})) <= width - 20:
        return [clip(line, width) for line in lines]
    return [
        clip(line, width)
        for name, processor in processors.items()
        for line in (
            visible(f"{name}: {processor.state}, {format_count(processor.restarts, 'restart')}"),
            f"  read {_number(processor.read)}, written {_number(processor.written)}",
            visible(f"  {processor.cause}"),
        )
    ]


def _ledger_lines(channels: dict[str, ChannelReport], width: int | None) -> list[str]:
    refused = any(channel.refused for channel in channels.values())
    readers = [reader for channel in channels.values() for reader in channel.readers.values()]
    terms = [term for term in _TERMS if term in _ALWAYS_SHOWN or any(getattr(reader, term) for reader in readers)]
    headers = ["channel", "written", *["refused"] * refused, "reader", *terms, "balanced"]
    rows = []
    for name, channel in channels.items():
        counts = [_number(channel.written)] + [_number(channel.refused)] * refused
        for reader_name, reader in channel.readers.items():
            numbers = [_number(getattr(reader, term)) for term in terms]
            rows.append([name, *counts, reader_name, *numbers, _yes(reader_balanced(channel, reader))])
        if not channel.readers:
            rows.append([name, *counts, "none", *["-"] * len(terms), "-"])
    lines = _aligned(headers, rows, left={0, 2 + refused})
    if width is None or max(map(cells, lines)) <= width:
        return lines
    return [
        clip(line, width)
        for row in rows
        for line in (
            f"{row[0]} → {row[2 + refused]}",
            *(f"  {header} {cell}" for header, cell in zip(headers, row, strict=True) if _tells(header, cell)),
        )
    ]


def _tells(header: str, cell: str) -> bool:
    """Whether a number is worth a line of its own on a narrow terminal."""
    return header not in {"channel", "reader"} and (cell != "0" or header in {"written", "acknowledged"})


def _aligned(headers: Sequence[str], rows: Sequence[Sequence[str]], left: set[int]) -> list[str]:
    """A table with two spaces between the columns; those in `left` are flush left, the others right."""
    table = [headers, *rows]
    widths = [max(cells(row[column]) for row in table) for column in range(len(headers))]
    lines = []
    for row in table:
        padded = []
        for column, cell in enumerate(row):
            pad = " " * (widths[column] - cells(cell))
            padded.append(cell + pad if column in left else pad + cell)
        lines.append("  ".join(padded).rstrip())
    return lines


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _yes(balanced: bool | None) -> str:
    return "-" if balanced is None else "yes" if balanced else "NO"
