"""Descendants that lost their shim: found below the runner, and ended."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 1000


def become_subreaper() -> None:
    """Make orphans below this process its children (prctl(2)), so that what a killed shim leaves can be found."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def children_of(pid: int) -> set[int]:
    """The living children of `pid`, of all its threads; empty when it is gone."""
    found: set[int] = set()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.update(int(word) for word in (task / "children").read_text().split())
    except OSError:
        return found
    return found


def descendants_of(pid: int) -> set[int]:
    """All living descendants of `pid`."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in children_of(waiting.pop()) - found:
            found.add(child)
            waiting.append(child)
    return found


def carries_mark(pid: int, mark: bytes) -> bool:
    """Whether the environment that `pid` was started with has `mark` (NAME=value)."""
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def end_orphans(is_ours: Callable[[int], bool]) -> int:
    """SIGKILL and reap every child of this process for which `is_ours`, with all below it; how many were ended.

    A killed parent's children become ours in turn, so it goes round until none is left.
    """
    ended = 0
    for _ in range(_ROUNDS):
        orphans = [pid for pid in children_of(os.getpid()) if is_ours(pid)]
        if not orphans:
            break
        family = set(orphans).union(*(descendants_of(pid) for pid in orphans))
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in family:
                try:
                    os.kill(pid, number)
                except (ProcessLookupError, PermissionError):
                    continue
        for pid in orphans:
            try:
                os.waitpid(pid, 0)
                ended += 1
            except ChildProcessError:
                continue
    return ended
