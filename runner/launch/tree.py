"""Descendants that lost their shim: found below the runner, and ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_S = 5.0
_PAUSE_S = 0.001
_MOST_DOUBTS = 50


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


def shows_nothing(pid: int) -> bool:
    """Whether `pid` lives and has no environment to be known by.

    So is one that is dying, whose children are about to become somebody else's, and one in the middle of an exec; both
    for a moment. One that was started with an empty environment is so for ever.
    """
    try:
        return not Path(f"/proc/{pid}/environ").read_bytes() and _state(pid) not in {"Z", ""}
    except OSError:
        return False


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def end_orphans(is_ours: Callable[[int], bool], known: Iterable[int] = ()) -> int:
    """SIGKILL and reap every child of this process for which `is_ours`, with all below it; how many were reaped.

    `known` are ours whatever they show. A killed parent's children become ours in turn, so it goes round until none is
    left; what cannot be killed (a program of another user) is given up after `_LONGEST_S`.
    """
    ours = set(known)
    ended = 0
    deadline = time.monotonic() + _LONGEST_S
    doubts = _MOST_DOUBTS
    while time.monotonic() < deadline:
        children = children_of(os.getpid())
        orphans = [pid for pid in children if pid in ours or is_ours(pid)]
        if not orphans:
            doubts -= 1
            if not doubts or not any(shows_nothing(pid) for pid in children):
                break
        family = set(orphans).union(*(descendants_of(pid) for pid in orphans))
        ours |= family
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in family:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        ended += sum(_reap(pid) for pid in ours)
        if not family or any(pid in children_of(os.getpid()) for pid in family):
            time.sleep(_PAUSE_S)  # it is the kernel's turn
    return ended


def _reap(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False
