"""The transaction in the making: what callbacks on the event loop's thread want committed together."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence

from runner.codec.base import Buffer
from runner.errors import BugError
from runner.store.book import Book
from runner.store.cursor import Cursor
from runner.store.record import MOST_CODEC_BYTES, RECORD_BYTES, Record, checksum_of, head_of

LARGE_BYTES = 1 << 20
"""A transaction of that size is worth a commit of its own."""
_MOST_KEY_BYTES = 400


class Chunk:
    """Consecutive messages of one channel on their way into a record."""

    __slots__ = ("book", "codec", "count", "first", "joins", "made", "parts", "size_bytes")

    def __init__(self, book: Book, first: int, codec: str, *, joins: bool) -> None:
        self.book = book
        self.first = first
        self.codec = codec
        self.joins = joins
        self.count = 0
        self.size_bytes = 0
        self.parts: list[Buffer] = []
        self.made: tuple[bytes, int] | None = None

    def add(self, parts: Sequence[Buffer], count: int, size_bytes: int) -> None:
        """More messages."""
        self.parts += parts
        self.count += count
        self.size_bytes += size_bytes

    def stored(self) -> tuple[bytes, int]:
        """The record as it is stored, and the checksum of its bytes alone. Any thread, once the chunk is complete."""
        checksum = checksum_of(self.parts)
        head = head_of(self.book.name_bytes, self.first, self.count, self.codec, checksum, joins=self.joins)
        return b"".join((head, *self.parts)), checksum

    def result(self) -> tuple[bytes, int]:
        """`stored`, made once, however often it is asked for: a commit may have to be tried again."""
        if self.made is None:
            self.made = self.stored()
        return self.made

    def record(self, stored: bytes) -> Record:
        """What readers get of it."""
        data = memoryview(stored)[len(stored) - self.size_bytes :]
        return Record(self.first, self.count, self.codec, self.joins, data)


class Transaction:
    """See the module. Made by the store; all calls on the event loop's thread.

    Everything that is put into it between two returns to the loop is committed together or not at all.
    """

    def __init__(
        self,
        books: Callable[[str], Book],
        known_table: Callable[[str], object],
        begun: Callable[[], None],
        large: Callable[[], None],
    ) -> None:
        self._books = books
        self._known_table = known_table
        self._begun = begun
        self._large = large
        self._open: dict[str, Chunk] = {}
        self.empty = True
        self.size_bytes = 0
        self.chunks: list[Chunk] = []
        self.cursors: dict[tuple[str, str], Cursor | None] = {}
        self.tables: dict[tuple[str, bytes], bytes | None] = {}
        self.callbacks: list[Callable[[], None]] = []
        self.waiting: list[Future[None]] = []

    def append(self, channel: str, parts: Sequence[Buffer], count: int, codec_name: str, *, joins: bool = True) -> int:
        """Append `count` whole messages, framed by the codec, in `parts` that are never changed; the first's number.

        `joins` False keeps them in a record of their own (`raw`: a chunk is a message, so one message per call).
        """
        if count < 1 or len(codec_name.encode()) > MOST_CODEC_BYTES:
            raise BugError(f"{count} messages of codec `{codec_name}` cannot be stored")
        self.touch()
        book = self._books(channel)
        first = book.made + 1
        book.made += count
        size_bytes = sum(map(len, parts))
        book.held_bytes += size_bytes
        if self.size_bytes < LARGE_BYTES <= self.size_bytes + size_bytes:
            self._large()
        self.size_bytes += size_bytes
        chunk = self._open.get(channel)
        if chunk is not None and not (
            joins and chunk.codec == codec_name and chunk.size_bytes + size_bytes <= RECORD_BYTES
        ):
            self._complete(chunk)
            chunk = None
        if chunk is None:
            chunk = Chunk(book, first, codec_name, joins=joins)
            self.chunks.append(chunk)
            self._open[channel] = chunk
        chunk.add(parts, count, size_bytes)
        if not joins or chunk.size_bytes >= RECORD_BYTES:
            self._complete(chunk)
        return first

    def cursor(self, channel: str, reader: str, cursor: Cursor) -> None:
        """Set the cursor of `reader`. Its base tells what may be deleted once all readers have passed it."""
        if cursor.base > self._books(channel).committed:
            raise BugError(f"`{reader}` is ahead of what is committed in channel `{channel}`")
        self.touch()
        self._books(channel).cursors[reader] = cursor
        self.cursors[channel, reader] = cursor

    def forget_reader(self, channel: str, reader: str) -> None:
        """Delete the cursor of `reader`; it holds up no deletion any more."""
        self.touch()
        self._books(channel).cursors.pop(reader, None)
        self.cursors[channel, reader] = None

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set the value of `key` in `table`, one of `runner.store.inspection.TABLES`."""
        if not 1 <= len(key) <= _MOST_KEY_BYTES:
            raise BugError(f"a key of {len(key)} bytes cannot be stored")
        self._known_table(table)
        self.touch()
        self.size_bytes += len(value)
        self.tables[table, key] = value

    def delete(self, table: str, key: bytes) -> None:
        """Delete `key` from `table`, if it is there."""
        self._known_table(table)
        self.touch()
        self.tables[table, key] = None

    def on_committed(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop when all of this is committed at the store's durability."""
        self.touch()
        self.callbacks.append(callback)

    def touch(self) -> None:
        """There is something to commit."""
        if self.empty:
            self.empty = False
            self._begun()

    def complete(self) -> None:
        """Nothing more comes."""
        self._open.clear()

    def _complete(self, chunk: Chunk) -> None:
        """No message comes to `chunk` any more: its record is made while its bytes are in the processor's cache."""
        del self._open[chunk.book.name]
        chunk.result()
