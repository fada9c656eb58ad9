"""Reads what is committed: messages that are not in memory any more, and the entries of tables."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import lmdb

from runner.errors import BugError
from runner.store.book import Book
from runner.store.damage import Damage, DamageError
from runner.store.database import Database
from runner.store.record import KEY, Record, opened
from runner.store.sealed import SealError, unseal
from runner.store.walk import MESSAGES, TABLE


class Committed:
    """What is in the environment of the store at `path`. `mapping` is held while something is read of its mapping."""

    def __init__(
        self, path: Path, environment: lmdb.Environment, databases: Mapping[bytes, Database], mapping: threading.Lock
    ) -> None:
        self._path = path
        self._environment = environment
        self._databases = databases
        self._mapping = mapping

    def record(self, book: Book, number: int, most_bytes: int) -> Record:
        """The record with message `number`, with those behind it as long as they fit. Raises DamageError."""
        database = self._databases[MESSAGES + book.name_bytes]
        if not book.probe.readable(number):
            first, last = book.probe.span(number) or (number, number)
            raise DamageError(str(self._path), [Damage("the disk cannot read the record", book.name, first, last)])
        try:
            with (
                self._mapping,
                self._environment.begin(db=database, buffers=True) as transaction,
                transaction.cursor() as cursor,
            ):
                record = self._found(book, cursor, number)
                return _with_next(record, book, cursor, most_bytes)
        except lmdb.Error as error:
            raise DamageError(str(self._path), [Damage(f"LMDB: {error}", book.name, number, number)]) from error

    def _found(self, book: Book, cursor: lmdb.Cursor[memoryview], number: int) -> Record:
        """The record with message `number`; `cursor` is there then."""
        span = book.probe.span(number)
        key = KEY.pack(number if span is None else span[0])  # the one behind it may not be readable
        beyond = not cursor.set_range(key)
        there = cursor.last() if beyond else bytes(cursor.key()) == key or cursor.prev()
        if not there:
            raise self._lost(book, cursor, number, "they are not there")
        first = KEY.unpack(cursor.key())[0]
        record = opened(book.name_bytes, first, cursor.value())
        if record is None:
            raise self._lost(book, cursor, first, "the record is damaged")
        if record.last < number:
            raise self._lost(book, cursor, record.last + 1, "they are not there")
        return record

    def _lost(self, book: Book, cursor: lmdb.Cursor[memoryview], first: int, why: str) -> DamageError:
        """Messages from `first` on up to the next record."""
        span = book.probe.span(first)
        if span is not None:
            return DamageError(str(self._path), [Damage(why, book.name, max(first, book.freed + 1), span[1])])
        behind = KEY.unpack(cursor.key())[0] if cursor.set_range(KEY.pack(first + 1)) else book.committed + 1
        return DamageError(str(self._path), [Damage(why, book.name, max(first, book.freed + 1), behind - 1)])

    def value(self, table: str, key: bytes) -> bytes | None:
        """The committed value; None where there is none. Raises DamageError."""
        with self._mapping, self._environment.begin(db=self.table(table), buffers=True) as transaction:
            stored = transaction.get(key)
            return None if stored is None else self._unsealed(table, key, stored)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All committed entries whose key begins with `prefix`, in order; each is looked up when it is its turn.

        Raises DamageError.
        """
        key = prefix
        database = self.table(table)
        while True:
            with (
                self._mapping,
                self._environment.begin(db=database, buffers=True) as transaction,
                transaction.cursor() as cursor,
            ):
                if not cursor.set_range(key) or not bytes(cursor.key()).startswith(prefix):
                    return
                key = bytes(cursor.key())
                value = self._unsealed(table, key, cursor.value())
            yield key, value
            key += b"\0"

    def table(self, table: str) -> Database:
        """The database of that table."""
        database = self._databases.get(TABLE + table.encode())
        if database is None:
            raise BugError(f"the store has no table `{table}`")
        return database

    def _unsealed(self, table: str, key: bytes, stored: memoryview) -> bytes:
        try:
            return unseal(key, stored)
        except SealError as error:
            raise DamageError(str(self._path), [Damage(f"entry {key!r} of table `{table}` is damaged")]) from error


def _with_next(record: Record, book: Book, cursor: lmdb.Cursor[memoryview], most_bytes: int) -> Record:
    """`record` and those behind it in `cursor`, as long as they are whole, fit and may be put together."""
    parts, size_bytes, count = [record.data], len(record.data), record.count
    while record.joins and size_bytes < most_bytes and book.probe.readable(record.first + count) and cursor.next():
        first = record.first + count
        if KEY.unpack(cursor.key())[0] != first or size_bytes + len(cursor.value()) > most_bytes:
            break
        following = opened(book.name_bytes, first, cursor.value())
        if following is None or not following.joins or following.codec != record.codec:
            break
        parts.append(following.data)
        size_bytes += len(following.data)
        count += following.count
    if len(parts) == 1:
        return record
    return Record(record.first, count, record.codec, record.joins, b"".join(parts))
