"""The thread that commits: one transaction after the other, each kept until it is in the store."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import lmdb

from runner.errors import BugError, RunnerError
from runner.store.book import COMMIT_KEY, Head, cursor_key, head_key
from runner.store.damage import Damage, DamageError
from runner.store.database import Database
from runner.store.faults import Verdict, judge
from runner.store.pages import PageFile
from runner.store.placed import Placed
from runner.store.record import HEAD_BYTES, KEY, Record, checksum_of, head_of
from runner.store.sealed import seal
from runner.store.transaction import Chunk, Transaction
from runner.store.walk import HEADS, TABLE, mend

SMALL_BYTES = 16 << 10
"""Up to here a channel's last record is written anew with what comes next, so that slow channels have few records."""
MOST_FREED = 128
"""Records deleted by one transaction; more are left to the next ones."""
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0
_OVERHEAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Small:
    """The last record of a channel, while it is small."""

    first: int
    count: int
    codec: str
    data: bytes
    checksum: int


@dataclass(slots=True)
class Held:
    """What the writer knows of one channel, as of the last commit."""

    name: str
    database: Database
    epoch: str
    freed: int
    last: int
    placed: Placed
    small: Small | None = None


@dataclass(slots=True)
class Change:
    """What a transaction does to one channel; becomes true with its commit.

    `grown` is the new size of the channel's last record when messages were put to it; it is never among the `dropped`.
    """

    freed: int
    last: int
    small: Small | None
    dropped: int = 0
    freed_bytes: int = 0
    more: bool = False
    grown: int | None = None
    added: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Job:
    """A transaction that is complete, and up to which number each channel may be deleted."""

    transaction: Transaction
    passed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Done:
    """A committed job: the records it appended, and what became of each channel that it touched."""

    transaction: Transaction
    records: list[tuple[str, Record]]
    changes: Mapping[str, Change]


class Writer:
    """See the module. `post` takes results to the event loop's thread."""

    def __init__(
        self,
        environment: lmdb.Environment,
        databases: Mapping[bytes, Database],
        held: Mapping[str, Held],
        *,
        folder: Path,
        pages: PageFile,
        sync: bool,
        mapping: threading.Lock,
    ) -> None:
        self._environment = environment
        self._databases = databases
        self._held = held
        self._folder = folder
        self._pages = pages
        self._sync = sync
        self._mapping = mapping
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed_before: Exception | None = None
        self._on_done: Callable[[Done], None]
        self._on_stuck: Callable[[str | None], None]
        self._on_failed: Callable[[RunnerError], None]

    def start(
        self,
        on_done: Callable[[Done], None],
        on_stuck: Callable[[str | None], None],
        on_failed: Callable[[RunnerError], None],
    ) -> None:
        """Begin; all three are called on the writer's thread."""
        self._on_done, self._on_stuck, self._on_failed = on_done, on_stuck, on_failed
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._thread.start()

    def commit(self, job: Job) -> None:
        """Commit `job`, after those before it."""
        self._jobs.put(job)

    def commit_now(self, job: Job) -> Done | None:
        """Commit `job` on the caller's thread while the writer's own has nothing to do; None: not at once, `commit` it.

        Without a sync this is a copy into the kernel's memory: less work than to wake another thread.
        """
        try:
            return self._try(job)
        except (lmdb.Error, OSError) as error:
            self._failed_before = error  # what to do about it takes time: the writer's own thread has that
            return None

    def stop(self) -> None:
        """End the thread: a commit that is under way is finished, one that waits to be tried again is given up."""
        if self._thread is not None:
            self._stop.set()
            self._jobs.put(None)
            self._thread.join()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stop.is_set():
            try:
                done = self._keep_trying(job)
            except RunnerError as error:
                self._on_failed(error)
                return
            except Exception as error:  # noqa: BLE001 - a bug here must not leave everybody waiting
                self._on_failed(BugError(f"the store's writer failed: {error!r}"))
                return
            if done is None:
                return
            self._on_done(done)

    def _keep_trying(self, job: Job) -> Done | None:
        """`job`, committed; None: stopped before it could be. Raises RunnerError when it never can be."""
        wait_s = FIRST_WAIT_S
        stuck: str | None = None
        while True:
            try:
                failed, self._failed_before = self._failed_before, None
                if failed is not None:
                    raise failed
                done = self._try(job)
            except (lmdb.Error, OSError) as error:
                size_bytes = job.transaction.size_bytes + _OVERHEAD_BYTES
                verdict, why = judge(error, self._folder, size_bytes, sync=self._sync)
                if verdict is Verdict.END:
                    raise self._given_up(why) from error
                if verdict is Verdict.GROW:
                    self._grow(size_bytes)
                    continue
                if why != stuck:
                    stuck = why
                    self._on_stuck(why)
                if self._stop.wait(wait_s):
                    return None
                wait_s = min(LONGEST_WAIT_S, wait_s * 2)
            else:
                if stuck is not None:
                    self._on_stuck(None)
                return done

    def _given_up(self, why: str) -> RunnerError:
        return RunnerError(
            f"the store cannot be trusted any more: {why}",
            where=str(self._folder),
            remedy="look at the disk, then start again: the state is checked, and goes on from what was committed",
        )

    def _grow(self, size_bytes: int) -> None:
        """Twice the address space, and room for what is to be written at least."""
        with self._mapping:
            size = self._environment.info()["map_size"]
            self._environment.set_mapsize(size * 2 + 4 * size_bytes)

    def _try(self, job: Job) -> Done:
        transaction = self._environment.begin(write=True, buffers=True)
        try:
            changes: dict[str, Change] = {}
            chunks = job.transaction.chunks
            records = [(chunk.book.name, self._append(transaction, chunk, changes)) for chunk in chunks]
            for channel, passed in job.passed.items():
                self._free(transaction, self._held[channel], self._change(channel, changes), passed)
            self._small_things(transaction, job.transaction, changes)
            transaction.commit()
        except BaseException:
            with contextlib.suppress(lmdb.Error):
                transaction.abort()
            raise
        self._remember(changes)
        return Done(job.transaction, records, changes)

    def _change(self, channel: str, changes: dict[str, Change]) -> Change:
        change = changes.get(channel)
        if change is None:
            held = self._held[channel]
            change = changes[channel] = Change(held.freed, held.last, held.small)
        return change

    def _append(self, transaction: lmdb.Transaction, chunk: Chunk, changes: dict[str, Change]) -> Record:
        name = chunk.book.name
        held, change = self._held[name], self._change(name, changes)
        stored, checksum = chunk.result()
        record = chunk.record(stored)
        # Only the first chunk can join: within one transaction they are as long as they get.
        small = _joined(None if change.added else change.small, chunk, record, checksum)
        if small is not None and small.first != chunk.first:
            head = head_of(chunk.book.name_bytes, small.first, small.count, small.codec, small.checksum, joins=True)
            transaction.put(KEY.pack(small.first), head + small.data, db=held.database)
            change.grown = len(head) + len(small.data)
        else:
            if not transaction.put(KEY.pack(chunk.first), stored, append=True, db=held.database):
                raise DamageError(str(self._folder), [Damage("there is a later one already", name, chunk.first)])
            change.added.append((chunk.first, len(stored)))
        change.small = small
        change.last = record.last
        return record

    def _free(self, transaction: lmdb.Transaction, held: Held, change: Change, passed: int) -> None:
        """Delete the records that end at or before `passed`, the oldest first; some are left when they are many."""
        placed = held.placed
        while change.dropped < len(placed):
            place = placed[change.dropped]
            if change.dropped + 1 < len(placed):
                end = placed[change.dropped + 1].first - 1
            else:
                end = change.added[0][0] - 1 if change.added else change.last
            if end > passed:
                return
            if change.dropped == MOST_FREED:
                change.more = True
                return
            if place.page:
                mend(self._pages, place.page, place.size_bytes)
            if not transaction.delete(KEY.pack(place.first), db=held.database):
                raise DamageError(str(self._folder), [Damage("it is not there", held.name, place.first, end)])
            change.freed_bytes += place.size_bytes - HEAD_BYTES
            change.dropped += 1
            change.freed = end
            if change.small is not None and change.small.first == place.first:
                change.small = None

    def _small_things(self, transaction: lmdb.Transaction, made: Transaction, changes: Mapping[str, Change]) -> None:
        """Tables, cursors, heads, and the number of this commit."""
        for (table, key), value in made.tables.items():
            database = self._databases[TABLE + table.encode()]
            if value is None:
                transaction.delete(key, db=database)
            else:
                transaction.put(key, seal(key, value), db=database)
        heads = self._databases[HEADS]
        for (channel, reader), cursor in made.cursors.items():
            key = cursor_key(channel, reader)
            if cursor is None:
                transaction.delete(key, db=heads)
            else:
                transaction.put(key, cursor.encode(key), db=heads)
        for channel, change in changes.items():
            key = head_key(channel)
            head = Head(self._held[channel].epoch, change.freed, change.last)
            transaction.put(key, head.encode(key), db=heads)
        transaction.put(COMMIT_KEY, seal(COMMIT_KEY, KEY.pack(transaction.id())), db=heads)

    def _remember(self, changes: Mapping[str, Change]) -> None:
        """It is committed."""
        for channel, change in changes.items():
            held = self._held[channel]
            if change.grown is not None:
                held.placed.grow_last(change.grown)
            held.placed.drop(change.dropped)
            for first, size_bytes in change.added:
                held.placed.add(first, size_bytes)
            held.freed, held.last, held.small = change.freed, change.last, change.small


def _joined(small: Small | None, chunk: Chunk, record: Record, checksum: int) -> Small | None:
    """The channel's last record after `chunk`, if it is small: with the one before, or by itself."""
    if not chunk.joins or chunk.size_bytes > SMALL_BYTES:
        return None
    if small is not None and small.codec == chunk.codec and len(small.data) + chunk.size_bytes <= SMALL_BYTES:
        data = small.data + bytes(record.data)
        return Small(
            small.first, small.count + chunk.count, chunk.codec, data, checksum_of([record.data], small.checksum)
        )
    return Small(chunk.first, chunk.count, chunk.codec, bytes(record.data), checksum)
