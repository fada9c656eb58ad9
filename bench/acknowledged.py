"""What contract `acknowledged` carries through the Python SDK: each message answered by one output and an `ack`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

from bench.durable import PROCESS
from bench.measure import HERE, Run, chain, folder, program, taken
from bench.ratios import Row, Size, checked

ANSWER = [sys.executable, str(HERE / "programs" / "answer.py")]
LEAST = 100_000


def _rate(lines: int, channel: dict[str, Any]) -> float:
    """Messages a second from a source through the program to a sink."""
    with folder() as at:
        out = at / "taken"
        processors = chain(program("source", lines, 100), ANSWER, program("sink", out), contract="acknowledged")
        with Run(at, processors, {"c1": channel, "c2": channel}) as run:
            run.finish()
        found = checked(taken(out), lines, 100)
        return found.lines / found.seconds


def acknowledged(size: Size) -> list[Row]:
    """100-byte messages over `memory` and over `durable` channels."""
    rows = []
    for name, channel, least in (("memory", {"kind": "memory"}, LEAST), ("durable process", PROCESS, 0)):
        rates = [_rate(size.small_lines // 20, channel) for _ in range(size.rounds + 1)][1:]
        middle = statistics.median(rates)
        rows.append(
            Row(
                name="acknowledged",
                what=f"100-byte messages through the Python SDK, {name} channels, messages/s",
                peer="",
                shown=f"{middle:,.0f} [{min(rates):,.0f}-{max(rates):,.0f}]",
                target=f">= {least:,}",
                good=middle >= least,
                value=middle,
                samples={"values": rates},
            )
        )
    return rows


ACKNOWLEDGED: dict[str, Callable[[Size], list[Row]]] = {"acknowledged": acknowledged}
