"""The `memory` channel: a queue of batches per reader, in the runner's memory, bounded in bytes.

Readers share the bytes: fan-out costs one reference for each reader. Framing is converted on the way in, once for each
framing that readers want, so that what waits is already in the reader's own framing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from runner.channel.base import Account, Reader, Writer
from runner.channel.queued import QueuedChannel
from runner.codec.base import MERGED_BYTES, Batch, Codec
from runner.codec.convert import converter
from runner.errors import CodecError
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import OnFull

_AHEAD_BYTES = 512 << 10


def _nothing() -> None:
    """Stand in for a callback that nobody has set."""


class MemoryReader(Reader):
    """A queue of batches."""

    def __init__(self, channel: MemoryChannel, processor: str, codec: Codec) -> None:
        self.channel = channel.name
        self.processor = processor
        self.codec = codec
        self.account = Account()
        self.on_data: Callable[[], None] = _nothing
        self._home = channel
        self._batches: deque[Batch] = deque()
        self._queued_messages = 0
        self._queued_bytes = 0
        self._taken = 0
        self._left = False

    @property
    def queued_messages(self) -> int:
        """See `Reader`."""
        return self._queued_messages

    @property
    def queued_bytes(self) -> int:
        """See `Reader`."""
        return self._queued_bytes

    @property
    def ended(self) -> bool:
        """See `Reader`."""
        return self._home.ended

    @property
    def left(self) -> bool:
        """See `Reader`."""
        return self._left

    @property
    def full(self) -> bool:
        """Whether it holds up the writers."""
        home = self._home
        return self._queued_bytes >= home.capacity_bytes and home.blocks and not self._left

    def offer(self, batch: Batch) -> None:
        """Queue `batch`, or do what `on_full` says."""
        if self._left:
            self.account.unread += batch.count
            return
        home = self._home
        if not home.blocks and home.on_full is OnFull.DROP_NEWEST:
            batch = self._keep_what_fits(batch, home.capacity_bytes - self._queued_bytes)
            if not batch.count:
                return
        last = self._batches[-1] if self._batches else None
        if last is not None and last.size_bytes + batch.size_bytes <= MERGED_BYTES:
            self._batches[-1] = self.codec.merge(last, batch)
        else:
            self._batches.append(batch)
        self._queued_messages += batch.count
        self._queued_bytes += batch.size_bytes
        if not home.blocks and home.on_full is OnFull.DROP_OLDEST and self._queued_bytes > home.capacity_bytes:
            self._drop_oldest(self._queued_bytes - home.capacity_bytes)
        self.on_data()

    def _keep_what_fits(self, batch: Batch, room_bytes: int) -> Batch:
        if batch.size_bytes <= room_bytes:
            return batch
        messages, _ = self.codec.locate(batch, max(0, room_bytes))
        if not messages and not self._batches:
            messages = 1  # a message longer than the whole capacity still passes through an empty channel
        kept, dropped = self.codec.skip(batch, messages)
        self.account.dropped += dropped.count
        return kept

    def _drop_oldest(self, excess_bytes: int) -> None:
        while excess_bytes > 0 and self._queued_messages > 1:
            oldest = self._batches.popleft()
            messages = oldest.count
            if oldest.size_bytes > excess_bytes:
                whole, end_bytes = self.codec.locate(oldest, excess_bytes)
                messages = whole if end_bytes >= excess_bytes else whole + 1
            if not self._batches:
                messages = min(messages, oldest.count - 1)  # the newest message always stays
            gone, kept = self.codec.skip(oldest, messages)
            if kept.count:
                self._batches.appendleft(kept)
            self.account.dropped += gone.count
            self._queued_messages -= gone.count
            self._queued_bytes -= gone.size_bytes
            excess_bytes -= gone.size_bytes

    def take(
        self, *, most_bytes: int | None = None, most_messages: int | None = None, never_over: int | None = None
    ) -> Batch | None:
        """See `Reader`."""
        if not self._batches:
            return None
        batch = self._batches.popleft()
        over_bytes = most_bytes is not None and batch.size_bytes > most_bytes
        over_messages = most_messages is not None and batch.count > most_messages
        if over_bytes or over_messages:
            batch, rest = self.codec.cut(
                batch,
                most_bytes=batch.size_bytes if most_bytes is None else most_bytes,
                most_messages=batch.count if most_messages is None else most_messages,
            )
            if rest.count:
                self._batches.appendleft(rest)
            if never_over is not None and batch.size_bytes > never_over:
                self._batches.appendleft(batch)
                return None
        was_full = self._queued_bytes >= self._home.capacity_bytes
        self._queued_messages -= batch.count
        self._queued_bytes -= batch.size_bytes
        self.number = self._taken + 1
        self._taken += batch.count
        if was_full:
            self._home.room()
        return batch

    def leave(self, *, for_good: bool = False) -> None:
        """See `Reader`."""
        del for_good
        if self._left:
            return
        self._left = True
        self.account.unread += sum(batch.count for batch in self._batches)
        self._batches.clear()
        self._queued_messages = 0
        self._queued_bytes = 0
        self._home.reader_left()


class MemoryWriter(Writer):
    """Converts on the way in and hands to every reader."""

    def __init__(self, channel: MemoryChannel, codec: Codec) -> None:
        self.codec = codec
        self._channel = channel
        self._ended = False
        self._conversions: dict[str, Callable[[Batch], Batch]] = {}
        for reader in channel.memory_readers:
            convert = converter(codec, reader.codec)
            if convert is not None:
                self._conversions[reader.codec.name] = convert

    def publish(self, batch: Batch) -> None:
        """See `Writer`."""
        if not batch.count:
            return
        channel = self._channel
        if not self._conversions:
            channel.written += batch.count
            for reader in channel.memory_readers:
                reader.offer(batch)
            return
        try:
            converted = self._converted(batch)
        except CodecError as error:
            good, _ = self.codec.skip(batch, error.index)
            self.publish(good)
            raise channel.refuse_one(channel.written + 1, error) from error
        channel.written += batch.count
        for reader in channel.memory_readers:
            reader.offer(converted.get(reader.codec.name, batch))

    def check(self, batch: Batch) -> None:
        """See `Writer`."""
        try:
            self._converted(batch)
        except CodecError as error:
            raise self._channel.refuse_one(self._channel.written + error.index + 1, error) from error

    def refuse(self, messages: int) -> None:
        """See `Writer`."""
        self._channel.refused += messages

    def _converted(self, batch: Batch) -> dict[str, Batch]:
        """The same in every framing that a reader wants and it does not have. Raises CodecError."""
        if not self._conversions:
            return {}
        wanted = {reader.codec.name for reader in self._channel.memory_readers if not reader.left}
        return {name: convert(batch) for name, convert in self._conversions.items() if name in wanted}

    @property
    def full(self) -> bool:
        """See `Writer`."""
        return self._channel.full

    @property
    def ahead(self) -> bool:
        """See `Writer`."""
        for reader in self._channel.memory_readers:  # noqa: SIM110 - asked after every read, as `full`
            if reader.queued_bytes >= _AHEAD_BYTES:
                return True
        return False

    @property
    def blocked_by(self) -> tuple[Reader, ...]:
        """See `Writer`."""
        if self.trouble is not None:
            return ()
        return tuple(reader for reader in self._channel.memory_readers if reader.full)

    @property
    def trouble(self) -> str | None:
        """See `Writer`."""
        return self._channel.trouble if self._channel.full else None

    def when_room(self, callback: Callable[[], None]) -> None:
        """See `Writer`."""
        self._channel.when_room(callback)

    @property
    def wanted(self) -> bool:
        """See `Writer`."""
        return any(not reader.left for reader in self._channel.memory_readers)

    def end(self, *, for_good: bool = False) -> None:
        """See `Writer`."""
        if not self._ended:
            self._ended = True
            self._channel.writer_ended(for_good=for_good)


class MemoryChannel(QueuedChannel):
    """See the module."""

    kind = "memory"

    def __init__(self, spec: ChannelSpec) -> None:
        super().__init__(spec)
        self.on_full = spec.on_full
        self.blocks = spec.on_full is OnFull.BLOCK
        self.memory_readers: list[MemoryReader] = []

    @property
    def trouble(self) -> str | None:
        """Why writers wait where no reader here makes them; None: nothing but readers does."""
        return None

    @property
    def readers(self) -> tuple[Reader, ...]:
        """See `Channel`."""
        return tuple(self.memory_readers)

    @property
    def full(self) -> bool:
        """Whether any reader holds up the writers."""
        for reader in self.memory_readers:  # noqa: SIM110 - asked after every read, as in Outlet.full
            if reader.full:
                return True
        return False

    def open_reader(self, processor: str, codec: Codec) -> MemoryReader:
        """See `Channel`."""
        reader = MemoryReader(self, processor, codec)
        self.memory_readers.append(reader)
        return reader

    def open_writer(self, processor: str, codec: Codec) -> MemoryWriter:
        """See `Channel`."""
        del processor  # a memory channel does not care who writes
        self._open_writers += 1
        return MemoryWriter(self, codec)

    def expected_writer(self, name: str, codec: Codec) -> MemoryWriter:
        """The writer that was expected."""
        del name
        return MemoryWriter(self, codec)

    def close(self) -> None:
        """See `Channel`; there is nothing to let go of."""
