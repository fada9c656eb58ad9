"""Resources as rlimits (setrlimit(2)). What rlimits cannot hold (cpus, disk) is a warning of `check`."""

from __future__ import annotations

import resource

from runner.spec.model import Resources


def rlimits(resources: Resources) -> dict[int, int]:
    """RLIMIT_* numbers to values.

    Memory is RLIMIT_DATA, never RLIMIT_AS: Node and Java reserve address space far beyond what they use.
    """
    limits: dict[int, int] = {}
    if resources.memory_bytes is not None:
        limits[resource.RLIMIT_DATA] = resources.memory_bytes
    if resources.pids is not None:
        limits[resource.RLIMIT_NPROC] = resources.pids
    if resources.files is not None:
        limits[resource.RLIMIT_NOFILE] = resources.files
    return limits
