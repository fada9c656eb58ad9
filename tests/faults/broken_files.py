"""A runner with its files broken on purpose: what was never committed is not cut off.

The negative control of the kills of runners that write files: run in place of `python -m runner`, messages must be
found twice.
"""

from __future__ import annotations

import importlib
import os
import sys

import msgspec

from runner.channel import file_disk
from runner.channel.file_plan import Disk, Kept, Plan, Refusal, Step, plan_writing


def break_it() -> None:
    """Go on behind whatever is there."""

    def plan(path: str, kept: Kept | None, disk: Disk, now_s: float) -> Plan | Refusal:
        planned = plan_writing(path, kept, disk, now_s)
        if isinstance(planned, Refusal) or disk.current is None or Step.CUT not in planned.steps:
            return planned
        steps = tuple(step for step in planned.steps if step is not Step.CUT)
        return Plan(steps, msgspec.structs.replace(planned.kept, length_bytes=disk.current.size_bytes))

    file_disk.plan_writing = plan  # type: ignore[attr-defined]


def commit_late() -> None:
    """Put a moment between what is written and what is on record, so that a kill comes between them."""
    original = os.pwrite

    def pwrite(descriptor: int, data: bytes, at: int) -> int:
        written = original(descriptor, data, at)
        importlib.import_module("time").sleep(0.02)
        return written

    os.pwrite = pwrite  # type: ignore[assignment]


if __name__ == "__main__":
    break_it()
    commit_late()
    sys.exit(importlib.import_module("runner.cli").main())
