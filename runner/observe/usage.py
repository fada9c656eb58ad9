"""CPU and memory of the processes behind an instance: its own and all below them, as they are now."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from runner.clock import Clock, monotonic

MOST_PROCESSES = 256
"""At most so many processes are looked at per sample, so that a fork bomb does not slow the runner down."""


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """What a tree of processes uses: `cpu_percent` of one core, None before the second sample; resident bytes."""

    cpu_percent: float | None
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    cpu_s: dict[tuple[int, float], float]


class UsageMeter:
    """Measures one processor's trees; each `sample` gives the CPU since the one before. Costs about 50 µs a process."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._before: _Sample | None = None
        self._known: dict[int, psutil.Process] = {}

    def sample(self, pids: Iterable[int]) -> TreeUsage:
        """What `pids` and all their descendants use now. Processes that vanish meanwhile are left out."""
        now = _Sample(self._clock(), {})
        known: dict[int, psutil.Process] = {}
        rss_bytes = 0
        for pid in tree(pids):
            try:
                process = self._known.get(pid)
                if process is None or not process.is_running():  # another process may have the number by now
                    process = psutil.Process(pid)
                with process.oneshot():
                    times, resident_bytes = process.cpu_times(), process.memory_info().rss
            except psutil.Error:
                continue
            known[pid] = process
            rss_bytes += resident_bytes
            now.cpu_s[pid, process.create_time()] = times.user + times.system
        percent = self._percent(now)
        self._before, self._known = now, known
        return TreeUsage(percent, rss_bytes)

    def _percent(self, now: _Sample) -> float | None:
        before = self._before
        if before is None or now.at_s <= before.at_s:
            return None
        # A process that was not there before has used all its time since.
        used_s = sum(max(0.0, cpu_s - before.cpu_s.get(key, 0.0)) for key, cpu_s in now.cpu_s.items())
        return 100 * used_s / (now.at_s - before.at_s)


def tree(pids: Iterable[int]) -> list[int]:
    """`pids` and all their descendants, at most MOST_PROCESSES."""
    found = dict.fromkeys(pids)
    queue = list(found)
    while queue and len(found) < MOST_PROCESSES:
        for child in children(queue.pop()):
            if child not in found:
                found[child] = None
                queue.append(child)
    return list(found)[:MOST_PROCESSES]


def children(pid: int) -> list[int]:
    """The children of a process; none when it is gone.

    From /proc/PID/task/TID/children (proc(5)), since psutil's own way reads all of /proc for every call.
    """
    if not _has_children_files():
        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.Error:
            return []
    found: list[int] = []
    for thread in _threads(pid):
        with contextlib.suppress(OSError):  # the thread or the process has ended
            found += map(int, (thread / "children").read_bytes().split())
    return found


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


@functools.cache
def _has_children_files() -> bool:
    """Whether this kernel has them (CONFIG_PROC_CHILDREN; gVisor has not)."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").exists()
