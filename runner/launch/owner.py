"""This process as an owner of what outlives it, and a look at whether others live."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from runner.plan.owners import Owner

_BOOT_LETTERS = 8


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:_BOOT_LETTERS]


def this_owner() -> Owner:
    """Who this process is."""
    pid = os.getpid()
    return Owner(_boot(), Path("/proc/self/ns/pid").stat().st_ino, pid, started(pid) or 0)


def started(pid: int) -> int | None:
    """When the living process `pid` was started, in ticks since boot; None when there is none (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])
