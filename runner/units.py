"""Durations, sizes and rates as the pipeline file writes them, and the same for people to read."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` things in `per_s` seconds."""

    count: int
    per_s: float

    def __str__(self) -> str:
        return f"{self.count} in {format_duration(self.per_s)}"


def parse_duration(text: str) -> float:
    """Seconds of "250ms", "30s", "5m", "1h". Raises ValueError with a sentence for people."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if match is None:
        raise ValueError(f'"{text}" is not a duration; write a number and a unit, such as "250ms", "30s", "5m" or "1h"')
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(value: str | int) -> int:
    """Bytes of "64KiB", "8MiB", "2GiB" or a plain number. Raises ValueError with a sentence for people."""
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is negative; a size is a number of bytes")
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|TiB)?", value)
    if match is None:
        hint = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGTkmgt])[iI]?[bB]?", value)
        better = f'"{hint[1]}{hint[2].upper()}iB"' if hint else '"64KiB", "8MiB" or "2GiB"'
        raise ValueError(f'"{value}" is not a size; write {better}, or a plain number of bytes')
    return int(float(match[1]) * _BYTES[match[2] or ""])


def parse_rate(text: str) -> Rate:
    """A rate such as "5 in 60s". Raises ValueError with a sentence for people."""
    match = re.fullmatch(r"(\d+) in (\S+)", text)
    if match is None:
        raise ValueError(f'"{text}" is not a rate; write how many in which time, such as "5 in 60s"')
    return Rate(int(match[1]), parse_duration(match[2]))


def format_size(size_bytes: float) -> str:
    """`size_bytes` for people: "0 B", "12 KiB", "8.0 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 10 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def format_duration(seconds: float) -> str:
    """`seconds` for people: "250ms", "3.2s", "5m", "2m5s", "1h3m"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if minutes else f"{hours}h"


def format_count(count: int, noun: str) -> str:
    """`count` with its noun: "1 message", "1,234 messages"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
