"""Looks at a store that is at rest, before LMDB is let at it: what is in it, and what is damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from runner.store.book import COMMIT_KEY, Head
from runner.store.cursor import Cursor
from runner.store.damage import Damage
from runner.store.folder import StateFolder, unusable
from runner.store.pages import BrokenError, Meta, Node, PageFile
from runner.store.placed import Placed
from runner.store.record import KEY, Record, opened
from runner.store.sealed import SealError, unseal
from runner.store.walk import MESSAGES, TABLE, Found, Walk, newest

TABLES = ("runs", "ends", "states", "files", "links", "dead-letters", "notes")
"""The small tables that every store has."""

EachRecord = Callable[[str, Record], None]


@dataclass(slots=True)
class Inspection:
    """What is in a store. Without `damages` LMDB may have it; records are only verified by a deep one."""

    transaction: int = 0
    heads: dict[str, Head] = field(default_factory=dict)
    cursors: dict[tuple[str, str], Cursor] = field(default_factory=dict)
    placed: dict[str, Placed] = field(default_factory=dict)
    databases: set[bytes] = field(default_factory=set)
    damages: list[Damage] = field(default_factory=list)
    size_bytes: int = 0
    entries: int = 0
    files: dict[bytes, bytes] = field(default_factory=dict)
    """What is in the table of files."""


def inspect(
    folder: StateFolder, file: PageFile, *, deep: bool = False, each_record: EachRecord | None = None
) -> Inspection:
    """Everything of the store. `deep`: every record is read and verified, the whole ones are given to `each_record`.

    Raises MachineError when the file cannot be read.
    """
    if each_record is None and deep:
        each_record = _nobody
    try:
        meta = newest(file, lax=folder.lost_power)
    except BrokenError as error:
        return _of_older(file, str(error), each_record)
    except OSError as error:
        raise unusable(folder.path, error) from error
    try:
        return _Look(file, meta, each_record).run()
    except OSError as error:
        raise unusable(folder.path, error) from error


def open_pages(folder: StateFolder, page_bytes: int) -> PageFile:
    """The store's file, for looking at it. Raises MachineError."""
    try:
        return PageFile(os.open(folder.data, os.O_RDWR | os.O_CLOEXEC), page_bytes)
    except OSError as error:
        raise unusable(folder.path, error) from error


def _nobody(_channel: str, _record: Record) -> None:
    """Want no records."""


def _of_older(file: PageFile, why: str, each_record: EachRecord | None) -> Inspection:
    """What is there when one of the two meta pages is damaged: whatever the last commit brought may not be."""
    for number in (0, 1):
        try:
            meta = file.meta(number)
            if _Look(file, meta, None).run().damages:
                continue
        except (BrokenError, OSError):
            continue
        seen = _Look(file, meta, each_record).run()
        lost = (Damage("the last commit may be lost", name, head.last + 1) for name, head in seen.heads.items())
        seen.damages[:0] = [Damage(why), *lost]
        return seen
    return Inspection(damages=[Damage(f"{why}; nothing can be said of its messages")])


class _Look:
    """One inspection."""

    def __init__(self, file: PageFile, meta: Meta, each_record: EachRecord | None) -> None:
        self._file = file
        self._meta = meta
        self._each_record = each_record
        self._next: dict[str, int] = {}
        self._seen = Inspection(meta.transaction)
        self._broken: dict[str, int] = {}

    def run(self) -> Inspection:
        found = Walk(self._file, self._meta, self._entry, records=self._each_record is not None).run()
        seen = self._seen
        seen.placed, seen.databases, seen.size_bytes = found.placed, found.databases, found.most_bytes
        seen.damages += found.damages
        for key, stored in found.heads.items():
            self._head(key, stored)
        self._agree(found)
        return seen

    def _entry(self, database: bytes, node: Node) -> None:
        """One entry of a database, in order."""
        if database.startswith(MESSAGES):
            self._verify(database.removeprefix(MESSAGES).decode(), node)
            return
        if database.startswith(TABLE):
            self._seen.entries += 1
            if node.page and self._each_record is None:
                return  # long values are verified when they are read
            try:
                value = unseal(node.key, self._file.value(node))
                if database == TABLE + b"files":
                    self._seen.files[node.key] = value
            except SealError:
                self._damage(f"entry {node.key!r} of table {database.removeprefix(TABLE).decode()!r} is damaged")

    def _verify(self, channel: str, node: Node) -> None:
        """Read a record; what is damaged is told with the next whole one, when it is known how far it goes."""
        assert self._each_record is not None
        first = KEY.unpack(node.key)[0]
        try:
            record = opened(channel.encode(), first, self._file.value(node))
        except BrokenError:
            record = None
        if record is None:
            self._broken.setdefault(channel, self._next.get(channel, first))
            return
        self._missing(channel, first)
        self._next[channel] = record.last + 1
        self._each_record(channel, record)

    def _missing(self, channel: str, behind: int) -> None:
        """Say what is not whole before message `behind`."""
        broken = self._broken.pop(channel, None)
        if broken is not None:
            self._damage("the record is damaged", channel, broken, behind - 1)
        elif self._next.get(channel, behind) < behind:
            self._damage("they are not there", channel, self._next[channel], behind - 1)

    def _head(self, key: bytes, stored: bytes) -> None:
        name, _, reader = (part.decode(errors="replace") for part in key[1:].partition(b"\0"))
        try:
            if key == COMMIT_KEY and KEY.unpack(unseal(key, stored))[0] != self._meta.transaction:
                self._damage("its parts are of different commits")
            elif key[:1] == b"c":
                self._seen.heads[name] = Head.decode(key, stored)
            elif key[:1] == b"r":
                self._seen.cursors[name, reader] = Cursor.decode(key, stored)
            elif key != COMMIT_KEY:
                self._damage(f"nobody knows the entry {key!r}")
        except SealError:
            what = f"how far reader `{reader}` has come" if reader else "how far it goes"
            self._damage(f"{what} is not known any more", name or None)

    def _agree(self, found: Found) -> None:
        """Whether the heads, the records and the databases are of one story."""
        seen = self._seen
        if COMMIT_KEY not in found.heads:
            self._damage("nothing says of which commit it is")
        for channel in sorted(seen.heads.keys() | found.placed.keys()):
            head, placed = seen.heads.get(channel), found.placed.get(channel)
            if head is None:
                self._damage("nothing says how far it goes", channel)
            elif placed is None:
                self._damage("its database is not there", channel, head.freed + 1, head.last)
            else:
                self._complete(channel, head, placed)
                self._missing(channel, head.last + 1)
        for (channel, reader), cursor in seen.cursors.items():
            head = seen.heads.get(channel)
            if head is None or cursor.base > head.last:
                self._damage(f"reader `{reader}` is ahead of it", channel)
        unknown = found.databases - {TABLE + table.encode() for table in TABLES}
        for name in sorted(unknown):
            if name.startswith(TABLE):
                self._damage(f"nobody knows the table {name!r}")

    def _complete(self, channel: str, head: Head, placed: Placed) -> None:
        if any(damage.channel == channel for damage in self._seen.damages):
            return  # what is missing has been said
        first = placed[0].first if len(placed) else head.last + 1
        if first > head.freed + 1:
            self._damage("they are not there", channel, head.freed + 1, min(first - 1, head.last))
        if len(placed) and not head.freed < placed[len(placed) - 1].first <= head.last:
            self._damage("there are records that its head does not know", channel)

    def _damage(self, why: str, channel: str | None = None, first: int | None = None, last: int | None = None) -> None:
        self._seen.damages.append(Damage(why, channel, first, last))
