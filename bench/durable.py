"""What durability costs: chains over `durable` channels against the same chains over `memory` channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.measure import Run, Taken, chain, folder, interleave, program, taken
from bench.ratios import CAT, Row, Size, checked, row


def _through(lines: int, width: int, channel: dict[str, Any], **of_middles: Any) -> float:
    """Bytes a second through one `cat`, over two channels like this one."""
    with folder() as at:
        out = at / "taken"
        processors = chain(program("source", lines, width), CAT, program("sink", out), **of_middles)
        with Run(at, processors, {"c1": channel, "c2": channel}) as run:
            run.finish()
        found: Taken = checked(taken(out), lines, width)
        return found.bytes / found.seconds


PROCESS = {"kind": "durable", "durability": "process"}
DISK = {"kind": "durable", "durability": "disk"}


def durable(size: Size) -> list[Row]:
    """100-byte lines and 10 KiB lines."""
    rows = []
    for name, lines, width, channel, contract, least in (
        ("process: 100-byte lines", size.small_lines // 4, 100, PROCESS, "stream", 0.5),
        ("process: 100-byte lines, one-to-one", size.small_lines // 4, 100, PROCESS, "one-to-one", 0.5),
        ("process: 10 KiB lines", size.large_lines // 4, 10_240, PROCESS, "stream", 0.0),
        ("disk: 100-byte lines", size.small_lines // 4, 100, DISK, "stream", 0.0),
    ):

        def rate(channel: dict[str, Any], lines: int = lines, width: int = width, contract: str = contract) -> float:
            return _through(lines, width, channel, contract=contract)

        ratio = interleave(
            lambda rate=rate, channel=channel: rate(channel),  # type: ignore[misc]
            lambda rate=rate: rate({"kind": "memory"}),  # type: ignore[misc]
            size.rounds,
        )
        rows.append(row("durable", f"durable {name}, bytes/s", "`memory`", ratio, least, "MB/s", 1e6))
    return rows


DURABLE: dict[str, Callable[[Size], list[Row]]] = {"durable": durable}
