"""Resources of an instance: what is asked for, and what rlimits (setrlimit(2)) can do for it."""

from __future__ import annotations

import resource
from collections.abc import Collection

from runner.spec.model import Resources


def asked(resources: Resources) -> frozenset[str]:
    """The resources with a limit, by their names in the file."""
    values = {
        "memory": resources.memory_bytes,
        "cpus": resources.cpus,
        "pids": resources.pids,
        "files": resources.files,
        "disk": resources.disk_bytes,
    }
    return frozenset(name for name, value in values.items() if value is not None)


def rlimits(resources: Resources, held: Collection[str] = ()) -> dict[int, int]:
    """RLIMIT_* numbers to values, for what is not `held` by something better (a control group, a sized filesystem).

    Memory is RLIMIT_DATA, never RLIMIT_AS: Node and Java reserve address space far beyond what they use.
    """
    limits: dict[int, int] = {}
    if resources.memory_bytes is not None and "memory" not in held:
        limits[resource.RLIMIT_DATA] = resources.memory_bytes
    if resources.pids is not None and "pids" not in held:
        limits[resource.RLIMIT_NPROC] = resources.pids
    if resources.files is not None:
        limits[resource.RLIMIT_NOFILE] = resources.files
    if resources.disk_bytes is not None and "disk" not in held:
        limits[resource.RLIMIT_FSIZE] = resources.disk_bytes
    return limits
