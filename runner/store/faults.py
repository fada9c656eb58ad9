"""What a failed commit means: wait for room, make the map larger, try again, or trust nothing any more."""

from __future__ import annotations

import errno
import os
from enum import Enum
from pathlib import Path

import lmdb

_ERRNOS = {os.strerror(number): number for number in errno.errorcode}
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Verdict(Enum):
    """What to do about it."""

    WAIT = "try again, after a while"
    GROW = "make the map larger, and try again"
    END = "give up: what is on the disk is not known"


def errno_of(error: Exception) -> int | None:
    """The number of the system's error; None when it is LMDB's own."""
    if isinstance(error, OSError):
        return error.errno
    return _ERRNOS.get(str(error).rpartition(": ")[2])


def judge(error: Exception, folder: Path, size_bytes: int, *, sync: bool) -> tuple[Verdict, str]:
    """What to do about `error`, raised by a commit of `size_bytes`, and why in words.

    A transaction that failed is written anew as a whole, so a failed write harms nothing. A failed sync is another
    matter: the kernel may have dropped pages and call the next sync a success. LMDB does not say which of the two it
    was, and calls a write that was cut short by a full disk an input/output error as well; so room is asked for.
    """
    number = errno_of(error)
    if isinstance(error, lmdb.MapFullError):
        return Verdict.GROW, "the map is full"
    if number in _NO_ROOM or isinstance(error, lmdb.DiskError) or (number == errno.EIO and _full(folder, size_bytes)):
        return Verdict.WAIT, f"no room on the disk: {folder}"
    if number == errno.EIO and sync:
        return Verdict.END, "the disk failed to write or sync (input/output error)"
    if number is not None or isinstance(error, (lmdb.BadTxnError, lmdb.MemoryError)):
        return Verdict.WAIT, f"cannot write to {folder}: {os.strerror(number) if number else error}"
    return Verdict.END, f"LMDB cannot go on: {error}"


def _full(folder: Path, size_bytes: int) -> bool:
    """Whether a file of `size_bytes` finds no room."""
    try:
        scratch = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return error.errno in _NO_ROOM
    try:
        os.posix_fallocate(scratch, 0, size_bytes)
    except OSError as error:
        return error.errno in _NO_ROOM
    finally:
        os.close(scratch)
    return False
