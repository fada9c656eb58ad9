"""A one-to-one processor: answers each flight, a JSON line, with one line that says more about it.

It adds `scheduled_departure` and `departed_at` (ISO 8601, New York time), `delay_class`, `distance_km` and
`speed_mph`. Needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timedelta
from typing import Any

READ_BYTES = 1 << 16
KM_PER_MILE = 1.609344


def enrich(flight: dict[str, Any]) -> dict[str, Any]:
    """One flight with what follows from it; what is not known is None."""
    scheduled = datetime(flight["year"], flight["month"], flight["day"], flight["hour"], flight["minute"])  # noqa: DTZ001 - the data is in local time
    delay = flight["dep_delay"]
    air_time = flight["air_time"]
    return flight | {
        "scheduled_departure": scheduled.isoformat(),
        "departed_at": None if delay is None else (scheduled + timedelta(minutes=delay)).isoformat(),
        "delay_class": delay_class(delay),
        "distance_km": round(flight["distance"] * KM_PER_MILE, 1),
        "speed_mph": round(flight["distance"] / (air_time / 60), 1) if air_time else None,
    }


def delay_class(minutes: float | None) -> str:
    """A word for a delay at departure; a flight without one did not leave."""
    if minutes is None:
        return "cancelled"
    for below, name in ((0, "early"), (15, "on time"), (60, "late")):
        if minutes < below:
            return name
    return "very late"


def answer(line: bytes) -> bytes:
    return json.dumps(enrich(json.loads(line)), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def main() -> None:
    # Whatever has come is answered and flushed before more is waited for, so no answer lies in a buffer meanwhile.
    torn = b""
    while chunk := os.read(sys.stdin.fileno(), READ_BYTES):
        *lines, torn = (torn + chunk).split(b"\n")
        sys.stdout.buffer.write(b"".join(map(answer, lines)))
        sys.stdout.buffer.flush()
    if torn:
        sys.stdout.buffer.write(answer(torn))


if __name__ == "__main__":
    main()
