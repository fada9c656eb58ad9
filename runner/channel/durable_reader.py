"""The reading end of a `durable` channel: how far its cursor is, and what is on record before anybody gets it."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import TYPE_CHECKING

from runner.channel.base import Account, Reader
from runner.channel.durable_keys import NOTES, left_key
from runner.codec.base import Batch, Codec
from runner.codec.convert import converter
from runner.codec.registry import codec_named
from runner.store.cursor import Cursor
from runner.store.ranges import Ranges, total

if TYPE_CHECKING:
    from runner.channel.durable import DurableChannel

CLAIM_BYTES = 512 << 10
_READ_BYTES = 256 << 10


def _nothing() -> None:
    """Stand in for a callback that nobody has set."""


class DurableReader(Reader):
    """Reads committed messages in order, from where its cursor is."""

    def __init__(
        self, channel: DurableChannel, processor: str, codec: Codec, cursor: Cursor, *, left_before: bool
    ) -> None:
        self.channel = channel.name
        self.processor = processor
        self.codec = codec
        self.epoch = channel.state.epoch
        self.account = Account()
        self.on_data: Callable[[], None] = _nothing
        self._home = channel
        self._cursor = cursor.after_crash()
        self._left = False
        self.left_before = left_before
        self._forgotten = left_before
        self.before = self._cursor.base
        self._position = self._cursor.base + 1
        """The number of the next message that nobody was given."""
        self._done: Ranges = self._cursor.done
        """What had an outcome before this run, beyond the position."""
        self._head: Batch | None = None
        """What was read of the store and is not taken; its first message is that at the position."""
        self._claimed: tuple[Batch, int] | None = None
        """What is claimed and committed, or on its way to it, and not taken."""
        self._claims_made = 0
        self._claims_committed = 0
        self._claim_bytes = CLAIM_BYTES
        """How much is claimed at once; more while the program waits for commits, as it does for a slow disk."""
        self._awaited = False
        self._returned: list[tuple[int, Batch]] = []
        """What came back unread, by number."""
        self.account.indeterminate = cursor.handed_out + cursor.read
        self.account.carried = total(cursor.open_ranges(channel.made)) + cursor.read
        self._queued = self.account.carried - self.account.indeterminate
        self._move(self._cursor)

    @property
    def queued_messages(self) -> int:
        """See `Reader`; those that are not committed yet are among them."""
        return self._queued

    @property
    def queued_bytes(self) -> int:
        """See `Reader`: as many bytes as that share of the channel's messages has on average."""
        state = self._home.state
        held = self._home.made - state.first + 1
        return state.held_bytes * self._queued // held if held else 0

    @property
    def ended(self) -> bool:
        """See `Reader`."""
        return self._home.ended

    @property
    def left(self) -> bool:
        """See `Reader`."""
        return self._left

    @property
    def gone(self) -> bool:
        """Whether it has left for good."""
        return self._left and self._forgotten

    def published(self, messages: int) -> None:
        """So many more are on their way into the channel."""
        if self._left:
            self.account.unread += messages
        else:
            self._queued += messages

    def take(
        self, *, most_bytes: int | None = None, most_messages: int | None = None, never_over: int | None = None
    ) -> Batch | None:
        """See `Reader`."""
        if self._left:
            return None
        if self.claims:
            return self._take_claimed(most_bytes, most_messages, never_over)
        batch = self._next(most_bytes, most_messages, never_over)
        if batch is not None:
            self._queued -= batch.count
        return batch

    def _next(self, most_bytes: int | None, most_messages: int | None, never_over: int | None) -> Batch | None:
        """The next messages within the bounds; `number` is their first, and the position is behind them."""
        head = self._head if self._head is not None else self._read()
        if head is None:
            return None
        batch, rest = self._cut(head, most_bytes, most_messages)
        if never_over is not None and batch.size_bytes > never_over:
            self._head = head
            return None
        self._head = rest if rest.count else None
        self.number = self._position
        self._position += batch.count
        return batch

    def _cut(self, batch: Batch, most_bytes: int | None, most_messages: int | None) -> tuple[Batch, Batch]:
        if (most_bytes is None or batch.size_bytes <= most_bytes) and (
            most_messages is None or batch.count <= most_messages
        ):
            return batch, Batch((), 0, 0)
        return self.codec.cut(
            batch,
            most_bytes=batch.size_bytes if most_bytes is None else most_bytes,
            most_messages=batch.count if most_messages is None else most_messages,
        )

    def _read(self) -> Batch | None:
        """What the store has at the position, in the reader's framing, up to what had an outcome before."""
        while self._done and self._position >= self._done[0][0]:
            self._position = max(self._position, self._done[0][1] + 1)
            self._done = self._done[1:]
        home = self._home
        record = home.store.read(home.name, self._position, _READ_BYTES)
        if record is None:
            return None  # not committed yet
        same = record.codec == self.codec.name
        codec = self.codec if same else codec_named(record.codec)
        batch = Batch((record.data,), record.count, len(record.data))
        if record.first < self._position:
            _, batch = codec.skip(batch, self._position - record.first)
        if self._done and self._position + batch.count > self._done[0][0]:
            batch, _ = codec.skip(batch, self._done[0][0] - self._position)
        convert = None if same else converter(codec, self.codec)
        return batch if convert is None else convert(batch)

    # -- contract stream: on record as handed out before anybody gets it

    def _take_claimed(self, most_bytes: int | None, most_messages: int | None, never_over: int | None) -> Batch | None:
        if self._claimed is None:
            self._claim(most_bytes, most_messages)
            return None
        if self._claims_committed < self._claims_made:
            self._awaited = True
            return None
        whole, number = self._claimed
        batch, rest = self._cut(whole, most_bytes, most_messages)
        if never_over is not None and batch.size_bytes > never_over:
            return None
        self._claimed = (rest, number + batch.count) if rest.count else None
        self.number = number
        self._queued -= batch.count
        if self._claimed is None:
            self._claim(most_bytes, most_messages)  # what comes next is on its way while this is written
            self.number = number
        return batch

    def _claim(self, most_bytes: int | None, most_messages: int | None) -> None:
        batch = self._again() or self._next_records(most_bytes, most_messages)
        if batch is None:
            return
        self._claimed = (batch, self.number)
        self._claims_made += 1
        self._move(self._cursor.claim(self.number, batch.count))
        self._home.store.transaction.on_committed(self._claim_committed)

    def _next_records(self, most_bytes: int | None, most_messages: int | None) -> Batch | None:
        """As `_next`; without bounds of several records that follow each other, for fewer commits."""
        batch = self._next(most_bytes, most_messages, None)
        if batch is None or most_bytes is not None or most_messages is not None:
            return batch
        number, parts, count, size_bytes = self.number, batch.parts, batch.count, batch.size_bytes
        while size_bytes < self._claim_bytes and not self._done and (more := self._next(None, None, None)) is not None:
            parts += more.parts
            count += more.count
            size_bytes += more.size_bytes
        self.number = number
        return Batch(parts, count, size_bytes)

    def _again(self) -> Batch | None:
        """The first of what came back."""
        if not self._returned:
            return None
        self.number, batch = self._returned.pop(0)
        return batch

    def came_back(self, number: int, batch: Batch) -> bool:
        """See `Reader`."""
        if not self.claims or self._left:
            if self.claims:
                self._move(self._cursor.unclaim(number, batch.count))
            return False
        self._put_back(number, batch)
        self._queued += batch.count
        if self._claimed is not None and self._claimed[1] > number:  # what came back is before what is claimed
            self.let_go()
        return True

    def let_go(self) -> None:
        """See `Reader`."""
        if self._claimed is not None:
            claimed, first = self._claimed
            self._claimed = None
            self._put_back(first, claimed)

    def _put_back(self, number: int, batch: Batch) -> None:
        self._move(self._cursor.unclaim(number, batch.count))
        bisect.insort(self._returned, (number, batch), key=_number)

    def _claim_committed(self) -> None:
        self._claims_committed += 1
        self._fit_claims()
        if not self._left:
            self.on_data()

    def _fit_claims(self) -> None:
        """Larger claims when a full one was waited for, smaller ones when none was."""
        awaited, self._awaited = self._awaited, False
        if not awaited:
            self._claim_bytes = max(CLAIM_BYTES, self._claim_bytes // 2)
        elif self._claimed is not None and self._claimed[0].size_bytes >= self._claim_bytes:
            self._claim_bytes = min(self._home.most_claim_bytes, self._claim_bytes * 2)

    # -- outcomes

    def acknowledge(self, number: int, messages: int) -> None:
        """See `Reader`; it is committed with whatever the same callback publishes."""
        if messages:
            super().acknowledge(number, messages)
            if number > 0:
                self._move(self._cursor.acknowledge(number, messages))

    def die(self, number: int) -> None:
        """See `Reader`; it is committed with whatever the same callback keeps of it."""
        super().die(number)
        if number > 0:
            self._move(self._cursor.mark_dead(number, 1))

    def passed(self, number: int, messages: int) -> None:
        """See `Reader`. It frees the store of them; what became of them is told when their program has ended."""
        self._move(self._cursor.mark_read(number, messages))

    def was_read(self, messages: int, *, handled: bool) -> None:
        """See `Reader`."""
        super().was_read(messages, handled=handled)
        if messages:
            self._move(self._cursor.settle_read(messages, handled=handled))

    def _move(self, cursor: Cursor) -> None:
        self._cursor = cursor
        if not self._forgotten:
            self._home.store.transaction.cursor(self.channel, self.processor, cursor)

    def leave(self, *, for_good: bool = False) -> None:
        """See `Reader`; unless it is for good, what is left stays for the next run."""
        if self._left:
            return
        self._left = True
        self.account.unread += self._queued
        if self._claimed is not None:
            batch, number = self._claimed
            self._move(self._cursor.unclaim(number, batch.count))
        self._queued = 0
        self._head = self._claimed = None
        self._returned.clear()
        if for_good:
            self._forgotten = True  # whatever comes of what is on its way holds up no deletion
            transaction = self._home.store.transaction
            transaction.forget_reader(self.channel, self.processor)
            transaction.put(NOTES, left_key(self.channel, self.processor), b"1")
        self._home.reader_left()


def _number(returned: tuple[int, Batch]) -> int:
    return returned[0]
