"""What is measured against the same programs on bare pipes, or against another way of the runner's own."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.measure import Ratio, Run, Taken, bare, chain, folder, interleave, program, taken

CAT = ["cat"]


@dataclass(frozen=True)
class Size:
    """How much is measured; `--quick` takes less."""

    rounds: int = 7
    small_lines: int = 20_000_000
    large_lines: int = 600_000
    age_s: float = 8.0
    runs: int = 10
    moved_bytes: int = 20_000_000_000
    kills: int = 20
    watch_s: float = 10.0
    stored_bytes: int = 2_000_000_000


QUICK = Size(3, 4_000_000, 100_000, 3.0, 3, 2_000_000_000, 5, 3.0, 200_000_000)


@dataclass(frozen=True)
class Row:
    """One line of the table. `value` is what `good` judges; `cells` are what and peer, measured, target."""

    name: str
    what: str
    peer: str
    shown: str
    target: str
    good: bool
    value: float
    detail: str = ""
    samples: dict[str, Any] = field(default_factory=dict)

    def more(self, detail: str) -> Row:
        """The same with something more to say."""
        return replace(self, detail=f"{self.detail}; {detail}")


def _ours(lines: int, size: int, *middles: list[str], kind: str = "memory", **of_middles: Any) -> Taken:
    commands = [program("source", lines, size), *middles]
    with folder() as at:
        out = at / "taken"
        processors = chain(*commands, program("sink", out), **of_middles)
        channels = {f"c{number}": {"kind": kind} for number in range(1, len(commands) + 1)}
        if kind == "pipe":
            for spec in processors.values():
                spec["restart"] = "never"
        with Run(at, processors, channels) as run:
            run.finish()
        return checked(taken(out), lines, size)


def _bare(lines: int, size: int, *middles: list[str]) -> Taken:
    with folder() as at:
        out = at / "taken"
        bare([program("source", lines, size), *middles, program("sink", out)])
        return checked(taken(out), lines, size)


def checked(found: Taken, lines: int, size: int) -> Taken:
    if (found.lines, found.bytes) != (lines, lines * size):
        raise SystemExit(f"{lines} lines of {size} bytes were due, {found.lines} of {found.bytes} bytes came")
    return found


def _lines_per_s(found: Taken) -> float:
    return found.lines / found.seconds


def row(name: str, what: str, peer: str, ratio: Ratio, least: float, unit: str, scale: float) -> Row:
    mine, other = statistics.median(ratio.ours) / scale, statistics.median(ratio.peer) / scale
    return Row(
        name=name,
        what=what,
        peer=peer,
        shown=ratio.text(),
        target=f">= {least}",
        good=ratio.median >= least,
        value=ratio.median,
        detail=f"{mine:.2f} against {other:.2f} {unit}",
        samples={"ours": ratio.ours, "peer": ratio.peer, "unit": unit, "scale": scale},
    )


def small_lines(size: Size) -> list[Row]:
    """100-byte lines through `cat`."""
    ratio = interleave(
        lambda: _lines_per_s(_ours(size.small_lines, 100, CAT)),
        lambda: _lines_per_s(_bare(size.small_lines, 100, CAT)),
        size.rounds,
    )
    return [row("small", "100-byte lines, C -> cat -> C, messages/s", "shell pipes", ratio, 0.45, "M/s", 1e6)]


def large_lines(size: Size) -> list[Row]:
    """10 KiB lines through `cat`."""
    ratio = interleave(
        lambda: _lines_per_s(_ours(size.large_lines, 10_240, CAT)) * 10_240,
        lambda: _lines_per_s(_bare(size.large_lines, 10_240, CAT)) * 10_240,
        size.rounds,
    )
    return [row("large", "10 KiB lines, C -> cat -> C, bytes/s", "shell pipes", ratio, 0.5, "GB/s", 1e9)]


def pipe_channels(size: Size) -> list[Row]:
    """`pipe` channels, both sizes of line."""
    rows = []
    for name, lines, width in (("100-byte", size.small_lines, 100), ("10 KiB", size.large_lines, 10_240)):

        def ours(lines: int = lines, width: int = width) -> float:
            found = _ours(lines, width, CAT, kind="pipe")
            return found.bytes / found.seconds

        def peer(lines: int = lines, width: int = width) -> float:
            found = _bare(lines, width, CAT)
            return found.bytes / found.seconds

        ratio = interleave(ours, peer, size.rounds)
        rows.append(row("pipe", f"`pipe` channels, {name} lines, bytes/s", "shell pipes", ratio, 0.95, "GB/s", 1e9))
    return rows


def one_to_one(size: Size) -> list[Row]:
    """The cost of the stronger contract."""
    lines = size.small_lines // 2
    ratio = interleave(
        lambda: _lines_per_s(_ours(lines, 100, CAT, contract="one-to-one")),
        lambda: _lines_per_s(_ours(lines, 100, CAT, contract="stream")),
        size.rounds,
    )
    return [row("one-to-one", "one-to-one with cat, 100-byte lines", "`stream`", ratio, 0.7, "M/s", 1e6)]


def fan_out(size: Size) -> list[Row]:
    """Four readers of one channel against one; bytes taken by all readers a second."""

    def total(readers: int) -> float:
        with folder() as at:
            files = [at / f"taken{number}" for number in range(readers)]
            lines = size.large_lines
            processors: dict[str, Any] = {"source": {"command": program("source", lines, 10_240), "writes": "c"}}
            for number, file in enumerate(files):
                processors[f"sink{number}"] = {"command": program("sink", file), "reads": "c"}
            with Run(at, processors) as run:
                run.finish()
            found = [checked(taken(file), lines, 10_240) for file in files]
            seconds = (max(each.last_ns for each in found) - min(each.first_ns for each in found)) / 1e9
            return sum(each.bytes for each in found) / seconds

    ratio = interleave(lambda: total(4), lambda: total(1), size.rounds)
    return [row("fan-out", "fan-out to 4 readers, 10 KiB lines, total bytes/s", "one reader", ratio, 1.5, "GB/s", 1e9)]


def ages(file: Path) -> list[tuple[int, int]]:
    """(sent, arrived) of each line, ns; the first half second is left out."""
    pairs = [(int(sent), int(arrived)) for sent, arrived in map(str.split, file.read_text().splitlines())]
    return [pair for pair in pairs if pair[0] > pairs[0][0] + 500_000_000]


def age(size: Size) -> list[Row]:
    """How old a line is when it arrives, at 1,000 lines a second."""
    shares = {"p50": 0.50, "p99": 0.99}
    samples: dict[str, dict[str, list[float]]] = {name: {"ours": [], "peer": []} for name in shares}

    def ours() -> None:
        with folder() as at:
            out = at / "ages"
            source, sink = program("age_source", 1000, size.age_s), program("age_sink", out)
            with Run(at, chain(source, CAT, sink)) as run:
                run.finish()
            note("ours", out)

    def peer() -> None:
        with folder() as at:
            out = at / "ages"
            bare([program("age_source", 1000, size.age_s), CAT, program("age_sink", out)])
            note("peer", out)

    def note(whose: str, file: Path) -> None:
        found = sorted(arrived - sent for sent, arrived in ages(file))
        for name, share in shares.items():
            samples[name][whose].append(found[int(len(found) * share)] / 1000)

    for _ in range(size.rounds):
        ours()
        peer()
    rows = []
    for name, most in (("p50", 4.0), ("p99", 6.0)):
        ratio = Ratio(tuple(samples[name]["ours"]), tuple(samples[name]["peer"]))
        mine, other = statistics.median(ratio.ours), statistics.median(ratio.peer)
        rows.append(
            Row(
                name="age",
                what=f"age of a line through cat at 1,000/s, {name}",
                peer="bare pipes",
                shown=ratio.text(),
                target=f"<= {most:.0f}",
                good=ratio.median <= most,
                value=ratio.median,
                detail=f"{mine:.0f} against {other:.0f} µs",
                samples={"ours": ratio.ours, "peer": ratio.peer, "unit": "µs"},
            )
        )
    return rows


RATIOS: dict[str, Callable[[Size], list[Row]]] = {
    "small": small_lines,
    "large": large_lines,
    "pipe": pipe_channels,
    "one-to-one": one_to_one,
    "age": age,
    "fan-out": fan_out,
}
