"""The store of one runner and pipeline: messages, cursors and small tables, committed together.

All of it is called on the event loop's thread, and knows nothing of processes, channels' kinds or bridges. There is one
transaction in the making: whatever one callback puts into it is committed together or not at all. With a sync it is
committed on a thread of its own, while the next one fills: the slower the disk, the larger the groups. Without, it is
committed on the loop's thread, as that is a copy into the kernel's memory; the thread gets what has to be tried again.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lmdb

from runner.errors import BugError, MachineError, RunnerError
from runner.store.book import COMMIT_KEY, Book, Head, cursor_key, head_key
from runner.store.committed import Committed
from runner.store.cursor import Cursor
from runner.store.folder import StateFolder
from runner.store.opening import Opened, new_epoch, open_store
from runner.store.placed import Placed
from runner.store.probe import Probe
from runner.store.record import KEY, Record
from runner.store.sealed import seal
from runner.store.tail import Tail
from runner.store.transaction import LARGE_BYTES, Transaction
from runner.store.walk import HEADS, TABLE, mend
from runner.store.writer import Done, Held, Job, Writer

TAIL_BYTES = 10 << 20
"""Of each channel, what was committed last stays in memory, up to here: the default capacity and what may be over."""
READ_BYTES = 256 << 10
_TURNS = 2


def _nothing() -> None:
    """Stand in for a callback that nobody has set."""


def _nothing_of(_channel: str) -> None:
    """The same, with a channel."""


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A channel: messages `first` to `last` are committed and there (none when `last` is before `first`).

    Up to `made` they have a number, those in the making among them; `held_bytes` counts these as well.
    """

    epoch: str
    first: int
    last: int
    made: int
    held_bytes: int


class Store:
    """See the module.

    `stuck` says in words why nothing can be committed for now (None: fine): everything is kept and tried again.
    `failed` is the error after which nothing will be (None: fine): what is not committed is lost with the process, and
    `flush` raises it. `on_trouble` is called when one of them has changed. `on_freed` is called with the name of a
    channel of which messages were deleted. `doubt` says why the last messages of an earlier run may be missing without
    a trace: the machine went down under a store that does not sync (None: they are not).
    """

    def __init__(self, opened_store: Opened, *, tail_bytes: int) -> None:
        self._folder: StateFolder = opened_store.folder
        self._sync = opened_store.sync
        self._environment = opened_store.environment
        self._databases = opened_store.databases
        self._held = opened_store.held
        self._pages = opened_store.pages
        mapping = threading.Lock()
        self._committed = Committed(self._folder.path, self._environment, self._databases, mapping)
        self._books: dict[str, Book] = {}
        self._tail_bytes = tail_bytes
        for name, held in self._held.items():
            self._books[name] = self._book_of(held)
        for (channel, reader), cursor in opened_store.cursors.items():
            self._books[channel].cursors[reader] = cursor
        self._writer = Writer(
            self._environment,
            self._databases,
            self._held,
            folder=self._folder.path,
            pages=self._pages,
            sync=self._sync,
            mapping=mapping,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._committing: deque[Transaction] = deque()
        """What the writer has, the oldest first: one, or with a sync two, so that it never waits for the loop."""
        self._closed = False
        self._unfreed: set[str] = set()
        self.transaction = self._fresh()
        self.stuck: str | None = None
        self.failed: RunnerError | None = None
        self.doubt = opened_store.doubt
        self.on_trouble: Callable[[], None] = _nothing
        self.on_freed: Callable[[str], None] = _nothing_of

    @classmethod
    def open(
        cls, folder: Path, *, sync: bool, capacity_bytes: Mapping[str, int], tail_bytes: int = TAIL_BYTES
    ) -> Store:
        """Open the store in `folder`, made where there is none, with at least the channels in `capacity_bytes`.

        `sync`: what is committed survives a loss of power, else a SIGKILL of the runner. The capacities only say how
        much address space is set aside. Raises MachineError (another process has it, another format, no permission, no
        room) and DamageError.
        """
        return cls(open_store(folder, sync=sync, capacity_bytes=capacity_bytes), tail_bytes=tail_bytes)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._folder.path

    def channels(self) -> tuple[str, ...]:
        """Every channel that is in it, of this pipeline or not."""
        return tuple(sorted(self._books))

    def state(self, channel: str) -> ChannelState:
        """How `channel` stands."""
        book = self._book(channel)
        return ChannelState(book.epoch, book.freed + 1, book.committed, book.made, book.held_bytes)

    def held_bytes(self, channel: str) -> int:
        """`held_bytes` of `state`, for those who ask often."""
        return self._book(channel).held_bytes

    def readers(self, channel: str) -> Mapping[str, Cursor]:
        """The cursor of every reader of `channel`, as set last; those that the pipeline no longer has among them."""
        return dict(self._book(channel).cursors)

    def forget_reader(self, channel: str, reader: str) -> None:
        """In the transaction in the making: `reader` is gone, and holds up no deletion."""
        self.transaction.forget_reader(channel, reader)

    def read(self, channel: str, number: int, most_bytes: int = READ_BYTES) -> Record | None:
        """The committed messages from a record's first on, `number` among them; None: it is not committed yet.

        The records after it come with it as long as they fit `most_bytes`. Raises DamageError when they are not what
        was committed.
        """
        book = self._book(channel)
        if number > book.committed:
            return None
        if number <= book.freed:
            raise BugError(f"message {number:,} of channel `{channel}` is read, and was deleted")
        return book.tail.find(number) or self._committed.record(book, number, most_bytes)

    def get(self, table: str, key: bytes) -> bytes | None:
        """The committed value; None where there is none. Raises DamageError."""
        return self._committed.value(table, key)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All committed entries whose key begins with `prefix`, in order; each is looked up when it is its turn.

        Raises DamageError.
        """
        return self._committed.items(table, prefix)

    async def flush(self) -> None:
        """Return when everything that was put in until now is committed. Raises what `failed` is."""
        if self.failed is not None:
            raise self.failed
        last = self.transaction if not self.transaction.empty else self._committing[-1] if self._committing else None
        if last is not None:
            waiting = asyncio.get_running_loop().create_future()
            last.waiting.append(waiting)
            await waiting

    def reset(self, channel: str | None, *, keep: Sequence[str] = ()) -> None:
        """Give up what is in `channel` (its readers too), or everything: numbers begin with 1, in a new epoch.

        The tables in `keep` stay. Only while nothing is being committed. Raises MachineError.
        """
        if self._committing or not self.transaction.empty:
            raise BugError("a store is reset while something is being committed")
        channels = self.channels() if channel is None else (channel,)
        kept = {TABLE + name.encode() for name in keep}
        tables = [name for name in self._databases if name.startswith(TABLE) and name not in kept and channel is None]
        try:
            with self._environment.begin(write=True) as transaction:
                fresh = [self._empty(transaction, self._book(name)) for name in channels]
                for table in tables:
                    transaction.drop(self._databases[table], delete=False)
                number = seal(COMMIT_KEY, KEY.pack(transaction.id()))
                transaction.put(COMMIT_KEY, number, db=self._databases[HEADS])
        except (lmdb.Error, OSError) as error:
            raise MachineError(f"the state cannot be reset: {error}", where=str(self.path)) from error
        for held in fresh:
            self._held[held.name] = held
            self._books[held.name] = self._book_of(held)

    def close(self) -> None:
        """Let go of it. A commit that is under way is finished; what is not flushed is lost."""
        if self._closed:
            return
        self._closed = True
        self._writer.stop()
        clean = self.failed is None
        try:
            if clean and not self._sync:
                self._environment.sync(True)  # noqa: FBT003 - positional only
        except lmdb.Error:
            clean = False
        self._environment.close()
        self._pages.close()
        self._folder.release(clean=clean)

    def _book_of(self, held: Held) -> Book:
        tail, probe = Tail(self._tail_bytes), Probe(self._pages, held.placed, held.last)
        return Book(held.name, held.epoch, held.freed, held.last, held.last, held.placed.data_bytes, tail, probe)

    def _book(self, channel: str) -> Book:
        book = self._books.get(channel)
        if book is None:
            raise BugError(f"the store has no channel `{channel}`")
        return book

    # Committing

    def _fresh(self) -> Transaction:
        return Transaction(self._book, self._committed.table, self._begun, self._large)

    def _begun(self) -> None:
        """The first thing was put into the transaction in the making: commit it when this callback has ended."""
        if self._closed:
            raise BugError("the store is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._writer.start(
                lambda done: self._post(lambda: self._done(done)),
                lambda why: self._post(lambda: self._set_stuck(why)),
                lambda error: self._post(lambda: self._fail(error)),
            )
        if not self._committing:
            if self._sync:
                self._loop.call_soon(self._hand_over)
            else:
                self._loop.call_soon(self._gather, _TURNS)

    def _large(self) -> None:
        """The transaction in the making is worth a sync of its own: let it wait where the writer finds it."""
        if self._sync and len(self._committing) == 1 and self._loop is not None:
            self._loop.call_soon(self._hand_over, 1)

    def _post(self, callback: Callable[[], None]) -> None:
        """Call on the loop's thread; when the loop is closed nobody wants to know."""
        assert self._loop is not None
        if not self._closed and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def _gather(self, turns: int, before_bytes: int = 0) -> None:
        """Let a few turns of the loop put into the transaction what they have, unless it is large already."""
        size_bytes = self.transaction.size_bytes
        if size_bytes < LARGE_BYTES and (turns or size_bytes > before_bytes) and self._loop is not None:
            self._loop.call_soon(self._gather, max(0, turns - 1), size_bytes)
        else:
            self._hand_over()

    def _hand_over(self, before: int = 0) -> None:
        """Give the writer what there is, unless it has more than `before`."""
        if len(self._committing) > before or self.transaction.empty or self._closed or self.failed is not None:
            return
        transaction, self.transaction = self.transaction, self._fresh()
        transaction.complete()
        self._committing.append(transaction)
        touched = {channel for channel, _ in transaction.cursors} | self._unfreed
        passed = {name: self._books[name].passed for name in touched}
        due = {name: number for name, number in passed.items() if number > self._books[name].freed}
        self._unfreed = set()
        job = Job(transaction, due)
        done = None if self._sync or self.stuck is not None else self._writer.commit_now(job)
        if done is None:
            self._writer.commit(job)
        else:
            self._done(done, at_once=True)

    def _written_down(self, done: Done) -> list[str]:
        """What is known of each channel from this commit on; those of which messages were deleted."""
        for channel, record in done.records:
            self._books[channel].tail.add(record)
        freed = []
        for channel, change in done.changes.items():
            book = self._books[channel]
            book.committed = change.last
            if change.dropped:
                book.freed = change.freed
                book.held_bytes -= change.freed_bytes
                book.tail.passed(change.freed)
                freed.append(channel)
            if change.more:
                self._unfreed.add(channel)
        return freed

    def _done(self, done: Done, *, at_once: bool = False) -> None:
        """Committed: readers may see it."""
        freed = self._written_down(done)
        self._committing.popleft()
        try:
            for channel in freed:
                self.on_freed(channel)
            for callback in done.transaction.callbacks:
                callback()  # what raises here is the loop's to report
        finally:
            for waiting in done.transaction.waiting:
                if not waiting.done():
                    waiting.set_result(None)
            if self._unfreed and not self._closed:
                self.transaction.touch()
            if not at_once:
                self._hand_over(1 if self._sync and self.transaction.size_bytes >= LARGE_BYTES else 0)

    def _set_stuck(self, why: str | None) -> None:
        self.stuck = why
        self.on_trouble()

    def _fail(self, error: RunnerError) -> None:
        self.failed = error
        for transaction in (*self._committing, self.transaction):
            for waiting in transaction.waiting:
                if not waiting.done():
                    waiting.set_exception(error)
        self.on_trouble()

    def _empty(self, transaction: lmdb.Transaction[bytes], book: Book) -> Held:
        """Reset one channel; what will be true of it with the commit."""
        held = self._held[book.name]
        for at in range(len(held.placed)):
            place = held.placed[at]
            if place.page:
                mend(self._pages, place.page, place.size_bytes)
        transaction.drop(held.database, delete=False)
        heads = self._databases[HEADS]
        for reader in book.cursors:
            transaction.delete(cursor_key(book.name, reader), db=heads)
        fresh = Held(book.name, held.database, new_epoch(), 0, 0, Placed())
        key = head_key(book.name)
        transaction.put(key, Head(fresh.epoch, 0, 0).encode(key), db=heads)
        return fresh
