"""The `durable` channel: messages in the runner's store, which outlive it, and cursors that say how far each reader is.

A batch is published into the store's transaction in the making, together with whatever the same callback acknowledges;
readers see it once that is committed. Messages are kept in the framing of who wrote them and converted for the reader.
"""

from __future__ import annotations

from collections.abc import Callable

from runner.channel.base import Reader, Writer
from runner.channel.durable_keys import ENDS, NOTES, key_of, left_key, written_key
from runner.channel.durable_reader import CLAIM_BYTES, DurableReader
from runner.channel.queued import QueuedChannel
from runner.codec.base import Batch, Codec
from runner.codec.convert import converter
from runner.errors import CodecError
from runner.spec.model import Channel as ChannelSpec
from runner.store.cursor import Cursor
from runner.store.store import ChannelState, Store
from runner.store.transaction import Transaction

_MOST_CLAIM_BYTES = 4 << 20
_AHEAD_BYTES = 4 << 20


class DurableWriter(Writer):
    """Puts batches into the store's transaction in the making."""

    durable = True

    def __init__(self, channel: DurableChannel, processor: str, codec: Codec) -> None:
        self.codec = codec
        self._channel = channel
        self._end_key = key_of(channel.name, processor)
        self._written_key = written_key(channel.name, processor)
        self.carried = int(channel.store.get(NOTES, self._written_key) or b"0")
        self.ended_before = channel.store.get(ENDS, self._end_key) is not None
        self._written = self.carried
        self._ended = False
        names = {reader.codec.name: reader.codec for reader in channel.durable_readers}
        found = (converter(codec, wanted) for wanted in names.values())
        self._conversions = [convert for convert in found if convert is not None]

    def publish(self, batch: Batch) -> None:
        """See `Writer`."""
        if not batch.count:
            return
        channel = self._channel
        try:
            self._convert(batch)
        except CodecError as error:
            good, _ = self.codec.skip(batch, error.index)
            self.publish(good)
            raise channel.refuse_one(channel.made + 1, error) from error
        transaction = channel.store.transaction
        if not channel.forsaken:
            transaction.append(channel.name, batch.parts, batch.count, self.codec.name, joins=self.codec.framed)
        self._written += batch.count
        transaction.put(NOTES, self._written_key, b"%d" % self._written)
        channel.published(batch.count)

    def check(self, batch: Batch) -> None:
        """See `Writer`."""
        try:
            self._convert(batch)
        except CodecError as error:
            raise self._channel.refuse_one(self._channel.made + error.index + 1, error) from error

    def refuse(self, messages: int) -> None:
        """See `Writer`; it is on record that its program has written them."""
        self._channel.refused += messages
        self._written += messages
        self._channel.store.transaction.put(NOTES, self._written_key, b"%d" % self._written)

    def _convert(self, batch: Batch) -> None:
        """What a reader could not be given is refused here, where it can be told to the writer. Raises CodecError."""
        for convert in self._conversions:
            convert(batch)

    @property
    def full(self) -> bool:
        """See `Writer`."""
        return self._channel.full

    @property
    def ahead(self) -> bool:
        """See `Writer`: readers that keep up find in memory what was stored last."""
        return self._channel.store.held_bytes(self._channel.name) >= _AHEAD_BYTES

    @property
    def blocked_by(self) -> tuple[Reader, ...]:
        """See `Writer`."""
        return self._channel.slowest if self._channel.full and self.trouble is None else ()

    @property
    def trouble(self) -> str | None:
        """See `Writer`."""
        return self._channel.trouble

    def when_room(self, callback: Callable[[], None]) -> None:
        """See `Writer`."""
        self._channel.when_room(callback)

    @property
    def wanted(self) -> bool:
        """See `Writer`; for a reader that comes back with the next run it is kept, as long as there is room."""
        return self._channel.wanted

    def end(self, *, for_good: bool = False) -> None:
        """See `Writer`; for good: it is on record, and a run that goes on here does not start this processor again."""
        if self._ended:
            return
        self._ended = True
        if for_good:
            self._channel.store.transaction.put(ENDS, self._end_key, b"%d" % self._written)
        self._channel.writer_ended(for_good=for_good)


class DurableChannel(QueuedChannel):
    """See the module."""

    kind = "durable"

    def __init__(self, spec: ChannelSpec, store: Store) -> None:
        super().__init__(spec)
        self.most_claim_bytes = max(CLAIM_BYTES, min(_MOST_CLAIM_BYTES, spec.capacity_bytes // 4))
        self.store = store
        self.made = store.state(spec.name).last
        """The number of the last message that was published."""
        self.durable_readers: list[DurableReader] = []
        self._holds_up = True
        self._told: Transaction | None = None

    @property
    def readers(self) -> tuple[Reader, ...]:
        """See `Channel`."""
        return tuple(self.durable_readers)

    @property
    def state(self) -> ChannelState:
        """What the store has of it."""
        return self.store.state(self.name)

    @property
    def full(self) -> bool:
        """Whether writers should wait: for the readers, or for a store that cannot write."""
        if not self._holds_up:
            return False
        return self.store.stuck is not None or (
            self._at_capacity and any(not each.left for each in self.durable_readers)
        )

    @property
    def trouble(self) -> str | None:
        """Why writers wait where no reader makes them; None: nothing but readers does."""
        return self.store.stuck

    @property
    def _at_capacity(self) -> bool:
        return self.store.held_bytes(self.name) >= self.capacity_bytes

    @property
    def forsaken(self) -> bool:
        """Whether all readers have left for good: nothing is stored for nobody."""
        for reader in self.durable_readers:  # noqa: SIM110 - asked for each batch
            if not reader.gone:
                return False
        return True

    @property
    def wanted(self) -> bool:
        """Whether somebody reads it: now, or what fits in the next run."""
        if any(not reader.left for reader in self.durable_readers):
            return True
        return not self._at_capacity and any(not reader.gone for reader in self.durable_readers)

    def hold_up_nobody(self) -> None:
        """The run is ended at once: nobody waits for room any more."""
        self._holds_up = False
        self.room()

    @property
    def slowest(self) -> tuple[Reader, ...]:
        """The readers that have the most before them."""
        most = max((reader.queued_messages for reader in self.durable_readers), default=0)
        return tuple(reader for reader in self.durable_readers if not reader.left and reader.queued_messages == most)

    def open_reader(self, processor: str, codec: Codec) -> DurableReader:
        """See `Channel`."""
        cursor = self.store.readers(self.name).get(processor)
        left = self.store.get(NOTES, left_key(self.name, processor)) is not None
        if cursor is None or left:
            cursor = Cursor(base=self.made if left else self.state.first - 1)
        reader = DurableReader(self, processor, codec, cursor, left_before=left)
        self.durable_readers.append(reader)
        return reader

    def open_writer(self, processor: str, codec: Codec) -> DurableWriter:
        """See `Channel`."""
        self._open_writers += 1
        return DurableWriter(self, processor, codec)

    def expected_writer(self, name: str, codec: Codec) -> DurableWriter:
        """The writer that was expected; what is kept of it is under `name`."""
        return DurableWriter(self, name, codec)

    def published(self, messages: int) -> None:
        """So many messages more are in the transaction in the making."""
        self.written += messages
        for reader in self.durable_readers:
            reader.published(messages)
        if self.forsaken:
            return
        self.made += messages
        if self._at_capacity and all(reader.left for reader in self.durable_readers):
            self._unwanted()
        transaction = self.store.transaction
        if self._told is not transaction:
            self._told = transaction
            transaction.on_committed(self._committed)

    def _committed(self) -> None:
        for reader in self.durable_readers:
            reader.on_data()

    def close(self) -> None:
        """See `Channel`; the store is the run's."""
