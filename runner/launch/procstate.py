"""What a running program waits for, as far as the kernel tells (/proc/PID/task/TID/syscall, see proc(5))."""

from __future__ import annotations

import platform
from enum import IntEnum
from pathlib import Path

from runner.launch.tree import descendants_of

_READS = {"x86_64": frozenset({0, 19}), "aarch64": frozenset({63, 65})}.get(platform.machine(), frozenset())


class Waits(IntEnum):
    """How sure it is that a tree of processes waits for input on one of some pipes."""

    NO = 0
    MAYBE = 1
    """It is asleep, in poll or the like, or the kernel does not say in what."""
    SURELY = 2
    """A thread is blocked in a read of such a pipe, and none is running."""


def waits_for_pipes(pid: int, inodes: frozenset[int]) -> tuple[Waits, frozenset[int]]:
    """Whether the tree below and with `pid` waits for input on pipes with these inode numbers, and on which.

    Those are the ones that a read is blocked in when it is sure, and all of them when it is not.
    """
    blocked: set[int] = set()
    for member in (pid, *descendants_of(pid)):
        try:
            tasks = list(Path(f"/proc/{member}/task").iterdir())
        except OSError:
            continue
        for task in tasks:
            inode = _read_inode(member, task)
            if inode is None:
                return Waits.NO, frozenset()
            blocked.add(inode)
    found = frozenset(blocked & inodes)
    return (Waits.SURELY, found) if found else (Waits.MAYBE, inodes)


def _read_inode(pid: int, task: Path) -> int | None:
    """The inode that a thread is blocked in a read of; 0 when it sleeps in something else, None when it runs."""
    try:
        status = (task / "stat").read_text().rpartition(")")[2].split()[0]
        if status == "R":
            return None
        words = (task / "syscall").read_text().split()
    except OSError:
        return 0
    if len(words) < 2 or not words[0].isdigit() or int(words[0]) not in _READS:
        return 0
    try:
        return Path(f"/proc/{pid}/fd/{int(words[1], 16)}").stat().st_ino
    except (OSError, ValueError):
        return 0


def cpu_ticks(pid: int) -> int:
    """Clock ticks of CPU time that the tree of `pid` has used, without its dead; 0 when it is gone."""
    total = 0
    for member in (pid, *descendants_of(pid)):
        try:
            words = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(words[11]) + int(words[12])
    return total


def peak_rss_bytes() -> int:
    """The largest resident set of this process in bytes: VmHWM of proc(5).

    Not getrusage(2): its figure lives on over exec, so it may be that of whoever started this process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
