"""What to do about the files of a channel: pure, from what the state says and what is on the disk.

A file is known by its inode and by a checksum of the last bytes before the committed length: inodes are used again.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

import msgspec

TAIL_BYTES = 4096


class Kept(msgspec.Struct, frozen=True):
    """What the state says of the file of a channel: up to `length_bytes` it is written, or read, and committed.

    `generation` counts the files from 1. `checksum` is the CRC-32 of the last `TAIL_BYTES` before the length.
    `begun_at_s` (since 1970) is when the first message came into it; 0: none has. `next_inode`: the file is full, and
    an empty one with this inode is about to take its place. `written`: it is a file that is written, not one that is
    read.
    """

    path: str
    generation: int
    inode: int
    length_bytes: int = 0
    checksum: int = 0
    begun_at_s: float = 0.0
    next_inode: int | None = None
    written: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is there. `same_tail`: the bytes before the committed length are the committed ones."""

    inode: int
    size_bytes: int
    same_tail: bool = True


@dataclass(frozen=True, slots=True)
class Disk:
    """What is at the three names of a file that is written; None: nothing.

    `current` at its path, `full` at the name that its generation has once it is full, `fresh` at that of the empty file
    that is about to take its place. `highest` is the largest number of a full file that is there.
    """

    current: Found | None
    full: Found | None = None
    fresh: Found | None = None
    highest: int = 0


class Step(Enum):
    """What is done to the files, in this order."""

    CUT = auto()
    """Cut the current file to the committed length: what is behind it was never committed."""
    UNNAME = auto()
    """Take the name of a full file away from the current one, which has its own as well."""
    NAME_FULL = auto()
    """Give the current file the name of a full one."""
    SWAP = auto()
    """Put the fresh file where the current one is, or was."""
    CREATE = auto()
    """Make an empty current file; there is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps`, and what the state is to say then; an `inode` of 0 is that of the file which `CREATE` makes."""

    steps: tuple[Step, ...]
    kept: Kept


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is done: `why` is about the file."""

    why: str


def plan_writing(path: str, kept: Kept | None, disk: Disk, now_s: float) -> Plan | Refusal:
    """How to go on with writing the file at `path`; `kept` None: nothing of it is on record.

    Nothing is ever lost or overwritten that was committed, or that was there before the record began. The plan of a
    disk on which it was carried out, or only a part of it, leads to the same end.
    """
    current = disk.current
    if kept is None:
        generation = disk.highest + 1
        if current is None:
            return Plan((Step.CREATE,), Kept(path, generation, 0))
        begun_at_s = now_s if current.size_bytes else 0.0
        return Plan((), Kept(path, generation, current.inode, current.size_bytes, 0, begun_at_s))
    if kept.next_inode is not None:
        return _go_on_rotating(path, kept, disk)
    if current is None and not kept.length_bytes:
        return Plan((Step.CREATE,), msgspec.structs.replace(kept, path=path, inode=0))
    wrong = _wrong(kept, current)
    if wrong is not None:
        return Refusal(wrong)
    return Plan(_cut(kept, current), msgspec.structs.replace(kept, path=path))


def _go_on_rotating(path: str, kept: Kept, disk: Disk) -> Plan | Refusal:  # noqa: PLR0911 - a case each
    """The file is full, its place is being taken: do what is left of it, or nothing yet where that cannot be."""
    current, full, fresh = disk.current, disk.full, disk.fresh
    assert kept.next_inode is not None
    done = Kept(path, kept.generation + 1, kept.next_inode)
    if current is not None and current.inode == kept.next_inode:
        return Plan(_cut(done, current), done)
    named = full is not None and full.inode == kept.inode
    waiting = fresh is not None and fresh.inode == kept.next_inode
    swap = (Step.SWAP, *_cut(done, fresh))
    if current is None and named:
        if waiting:
            return Plan(swap, done)
        return Plan((Step.CREATE,), msgspec.structs.replace(done, inode=0))
    wrong = _wrong(kept, current)
    if wrong is not None:
        return Refusal(wrong)
    cut = _cut(kept, current)
    if full is not None and not named:
        return Refusal("is full, and another file has the name that it is to get")
    if not waiting:
        given_up = msgspec.structs.replace(kept, path=path, next_inode=None)
        return Plan((*cut, Step.UNNAME) if named else cut, given_up)
    return Plan((*cut, *swap) if named else (*cut, Step.NAME_FULL, *swap), done)


def _cut(kept: Kept, current: Found | None) -> tuple[Step, ...]:
    return (Step.CUT,) if current is not None and current.size_bytes > kept.length_bytes else ()


def _wrong(kept: Kept, current: Found | None) -> str | None:
    """Why `current` is not the file that `kept` speaks of; None: it is."""
    if current is None:
        return f"is not there any more, and {kept.length_bytes:,} bytes of it are committed"
    if current.inode != kept.inode:
        done = "written" if kept.written else "read"
        return f"is another file (inode {current.inode}) than the one that was {done} (inode {kept.inode})"
    if current.size_bytes < kept.length_bytes:
        return f"has {current.size_bytes:,} bytes, and {kept.length_bytes:,} are committed"
    if not current.same_tail:
        return f"was changed: the bytes before the committed length ({kept.length_bytes:,}) are others"
    return None


def plan_reading(kept: Kept, current: Found | None) -> Refusal | None:
    """Whether a file that is read once can be read on; None: it can."""
    wrong = _wrong(kept, current)
    return None if wrong is None else Refusal(wrong)


@dataclass(frozen=True, slots=True)
class Sibling:
    """A file beside (or at) the path that is followed."""

    name: str
    inode: int
    size_bytes: int
    changed_ns: int


def after(read: Sibling, siblings: Iterable[Sibling], current: Sibling | None) -> Sibling | None:
    """Which file to read when all of `read` is read; None: it is the one that grows, or nothing else is there yet.

    `current` is what is at the path that is followed; the `siblings` have names that files get when they are full. The
    one that was changed next after `read` follows it. An empty current file is left alone: whoever writes may not have
    turned to it yet.
    """
    if current is not None and current.inode == read.inode:
        return None
    current_inode = None if current is None else current.inode
    later = [each for each in siblings if each.inode not in {read.inode, current_inode} and _age(each) > _age(read)]
    if later:
        return min(later, key=_age)
    return current if current is not None and current.size_bytes else None


def _age(one: Sibling) -> tuple[int, int]:
    """Full files in the order in which they became so; changed in the same tick of the clock, by their number.

    Ours count up, with six digits; others (logrotate) count down.
    """
    digits = re.search(r"(\d+)$", one.name)
    number = 0 if digits is None else int(digits[1])
    counts_up = digits is not None and len(digits[1]) >= FULL_DIGITS
    return one.changed_ns, number if counts_up else -number


FULL_DIGITS = 6


def full_name(name: str, generation: int) -> str:
    """What a file that was called `name` is called once it is full."""
    return f"{name}.{generation:0{FULL_DIGITS}d}"


def full_number(name: str, other: str) -> int | None:
    """The generation of the full file `other` of `name`; None: it is none."""
    head, _, digits = other.rpartition(".")
    if head != name or len(digits) < FULL_DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits)


_ROTATED = re.compile(r"[.-][0-9][0-9T_:.Z-]*", re.ASCII)


def looks_rotated(name: str, other: str) -> bool:
    """Whether `other` is a name that `name` gets when it is full: with a number, a date or a time behind."""
    return other.startswith(name) and _ROTATED.fullmatch(other[len(name) :]) is not None


def checksum_of(tail: bytes) -> int:
    """That of the last bytes before a length."""
    return zlib.crc32(tail[-TAIL_BYTES:])
