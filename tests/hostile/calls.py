"""Builds syscalls.c, the program of attempts at system calls, by whichever compiler builds the shim."""

from __future__ import annotations

import platform
from pathlib import Path

from runner.launch.shim import build

SOURCE = Path(__file__).with_name("syscalls.c")


def build_attempt(folder: Path) -> Path:
    """The static program `attempt` in `folder`; see its source for what it is told and says."""
    return build._make(platform.machine(), folder / "attempt", build.FLAGS, [SOURCE], static=True)
