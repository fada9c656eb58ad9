"""Finds the shim's binary for this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from runner.errors import MachineError


def shim_path() -> Path:
    """The shim's binary: `CONNECTOR_SHIM` when set, else the one that came with the package.

    Raises MachineError when it is not there or not executable.
    """
    chosen = os.environ.get("CONNECTOR_SHIM")
    arch = platform.machine()
    path = Path(chosen) if chosen else Path(__file__).with_name("bin") / f"connector-shim-{arch}"
    remedy = (
        "CONNECTOR_SHIM names it; correct or unset that variable"
        if chosen
        else f"install a package built for {arch}, or build it: python -m runner.launch.shim.build"
    )
    if not path.is_file():
        raise MachineError(f"the shim {path} is not there", remedy=remedy)
    if not os.access(path, os.X_OK):
        raise MachineError(f"the shim {path} is not executable", remedy=remedy)
    return path.absolute()
