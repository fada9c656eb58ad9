"""From the server: each message is put into the queue once, and is the server's no more when it is safe there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from runner.channel.base import Outside, Writer
from runner.channel.nats.names import Names, Sent, StrangeError
from runner.channel.nats.server import Server, end
from runner.channel.nats.streams import ensure_stream
from runner.channel.nats.told import Told
from runner.channel.network import FarEnd, Queue, far_name
from runner.channel.plain.carried import framed
from runner.channel.positions import Position, keep_position, position_of
from runner.channel.repeats import Repeats, kind_of
from runner.codec.base import Batch
from runner.codec.unfinished import too_long
from runner.errors import CodecError
from runner.spec.model import Network
from runner.units import format_count

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

_FETCHED = 64
_FETCH_S = 1.0
_ACK_WAIT_S = 30.0
_EARLY_S = 0.2
_MOST_UNACKNOWLEDGED = 256
_LEAST_STREAM_BYTES = 64 << 20
_MOST_PAST = 100


class _From:
    """One runner that writes, and how far it was received."""

    def __init__(self, runner: str, queue: Queue) -> None:
        self.runner = runner
        self.name = far_name(runner)
        self.queue = queue
        self.writer: Writer = queue.open_writer(self.name)
        self.position: Position = position_of(queue.store, queue.name, self.name)
        self.past: list[str] = []
        self.ended = False
        if self.writer.ended_before:
            self.end()

    def move(self, position: Position) -> None:
        """Put on record how far it is."""
        if position.epoch != self.position.epoch and self.position.epoch:
            self.past = [*self.past[-_MOST_PAST:], self.position.epoch]
        self.position = position
        keep_position(self.queue.store, self.queue.name, self.name, position)

    def end(self) -> None:
        """Nothing more comes from it."""
        if not self.ended:
            self.ended = True
            self.writer.end(for_good=True)
            self.queue.ended()


class NatsReceiver(FarEnd):
    """What the stream has for this runner, from all who write; of a plain peer, whatever comes."""

    writes = True

    def __init__(self, names: Names, network: Network, queue: Queue, runners: tuple[str, ...]) -> None:
        self._names = names
        self._plain = network.plain
        self._queue = queue
        self._runners = runners if not network.plain else ("",)
        self._server = Server(network)
        self._from: dict[str, _From] = {}
        self._outside: Outside | None = None
        self._over = asyncio.Event()
        self._room = asyncio.Event()
        self._most_message_bytes = network.max_message_bytes
        self._repeats = Repeats(self._warn)
        self._strange = 0
        self._delivered = 0
        """How many deliveries of the consumer have been seen; it counts them."""
        self._consumers = 0
        """How many consumers were made; what another one brought is not acknowledged to this one."""
        self._put_back: set[str] = set()
        """The writers of which something came early from this consumer, and will come from it again, out of order."""
        self._acknowledging: set[asyncio.Task[None]] = set()

    @property
    def writers(self) -> int:
        """See `FarEnd`."""
        return len(self._runners)

    def stop(self) -> None:
        """See `FarEnd`: what the server has stays there."""
        self._over.set()

    def abandon(self) -> None:
        """See `FarEnd`."""
        self._over.set()

    async def live(self, outside: Outside) -> None:
        """See `FarEnd`."""
        self._outside = outside
        self._from = {runner: _From(runner, self._queue) for runner in self._runners}
        self._queue.on_readers_left(self._look_whether_wanted)
        telling = Told(self._server, self._queue.name, outside)
        receiving = asyncio.create_task(self._receive())
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait((receiving, over), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
            elif self._acknowledging:
                await asyncio.wait(self._acknowledging, timeout=1)
        finally:
            over.cancel()
            await end(receiving)
            telling.close()
            for each in self._from.values():
                if not each.ended:
                    each.ended = True
                    each.writer.end(for_good=False)
                    self._queue.ended()

    def _look_whether_wanted(self) -> None:
        if all(not each.writer.wanted for each in self._from.values()):
            for each in self._from.values():
                each.end()
            self._over.set()

    async def _receive(self) -> None:
        import nats.errors

        async with self._server.connected() as stream:
            subscription = await self._server.until_done(lambda: self._subscribe(stream))
            while not all(each.ended for each in self._from.values()):
                await self._until_room()
                try:
                    fetched = await subscription.fetch(_FETCHED, timeout=_FETCH_S)
                except (nats.errors.TimeoutError, TimeoutError):
                    if not await self._is_there(subscription):
                        subscription = await self._server.until_done(lambda: self._subscribe(stream))
                    continue
                except nats.errors.Error as error:
                    self._server.failed(error)
                    subscription = await self._server.until_done(lambda: self._subscribe(stream))
                    continue
                self._server.works()
                if not self._take_all(fetched):
                    subscription = await self._server.until_done(lambda: self._subscribe(stream))
            await self._queue.committed()
            while self._acknowledging:
                await asyncio.wait(self._acknowledging)

    async def _is_there(self, subscription: Any) -> bool:
        """Whether the server still has the consumer; where it is deleted, or its stream, nothing else tells."""
        import nats.errors
        from nats.js.errors import NotFoundError

        try:
            await subscription.consumer_info()
        except NotFoundError:
            return False
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self._server.failed(error)
        else:
            self._server.works()
        return True

    async def _subscribe(self, stream: JetStreamContext) -> Any:
        """A new consumer, so that all that is not acknowledged comes at once, and in order."""
        from nats.js.api import AckPolicy, ConsumerConfig
        from nats.js.errors import NotFoundError

        most_bytes = max(_LEAST_STREAM_BYTES, 16 * self._queue.capacity_bytes)
        await ensure_stream(stream, self._names, most_bytes=most_bytes, plain=self._plain)
        if not self._plain:
            with contextlib.suppress(NotFoundError):
                await stream.delete_consumer(self._names.stream, self._names.group)
        config = ConsumerConfig(
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT_S,
            max_ack_pending=_MOST_UNACKNOWLEDGED,
            filter_subject=self._names.subject,
        )
        self._delivered = 0
        self._consumers += 1
        self._put_back.clear()
        return await stream.pull_subscribe(
            self._names.subject, durable=self._names.group, stream=self._names.stream, config=config
        )

    def _take_all(self, fetched: list[Msg]) -> bool:
        """Whether none was missing: what the client gave up while it waited for more would come much too late."""
        for message in fetched:
            if message.metadata.sequence.consumer != self._delivered + 1 and not self._plain:
                return False
            self._delivered += 1
            if not self._take(message):
                return False
        return True

    async def _until_room(self) -> None:
        for each in self._from.values():
            while each.writer.full:
                self._room.clear()
                each.writer.when_room(self._room.set)
                await self._room.wait()

    # -- one message

    def _take(self, message: Msg) -> bool:
        """Whether to go on; if not, a new consumer is to bring it again, in order."""
        if self._plain:
            self._take_plain(message)
            return True
        try:
            sent = Sent.of(message.headers, message.data)
            writer = self._from.get(sent.writer) or self._from.get("")
            if writer is None:
                raise StrangeError(f"runner `{sent.writer}` does not write this channel")  # noqa: TRY301
            if self._is_early(writer, sent):
                lost = sent.kept > self._due(writer, sent)
                if lost and writer.name in self._put_back:
                    return False
                if lost:
                    self._give_up(writer, sent)
                if not lost or self._is_early(writer, sent):
                    self._put_back.add(writer.name)
                    self._acknowledge(message, self._consumers, taken=False)
                    return True
            self._take_sent(writer, sent, message.data)
        except (StrangeError, CodecError) as error:
            self._strange += 1
            if self._strange == 1:
                self._warn(f"a message at {self._names.subject} is not taken: {error}; others like it are not told")
        self._acknowledge_when_committed(message)
        return True

    def _due(self, writer: _From, sent: Sent) -> int:
        """The number that comes next."""
        return writer.position.number + 1 if sent.epoch == writer.position.epoch else sent.since

    def _give_up(self, writer: _From, sent: Sent) -> None:
        """What the server had confirmed before it got `sent`, and has not brought before that, it has no more.

        A consumer brings what is not acknowledged in the order in which the server got it; where something of this
        writer was put back that is not so, and a new consumer is needed to know.
        """
        position = writer.position
        before = position.number if sent.epoch == position.epoch else 0
        lost = sent.kept - 1 - before
        self._queue.lost(lost)
        count = format_count(lost, "message")
        self._warn(f"{count} that the server had are here no more, nor there: they count as indeterminate")
        writer.move(Position(sent.epoch, sent.kept - 1))

    def _is_early(self, writer: _From, sent: Sent) -> bool:
        """Whether what is before it has not come: it is wanted later, behind that."""
        if sent.epoch != writer.position.epoch:
            return sent.number != sent.since and sent.epoch not in writer.past
        return sent.number > writer.position.number + 1

    def _take_sent(self, writer: _From, sent: Sent, payload: bytes) -> None:
        position = writer.position
        if sent.epoch in writer.past:
            return
        if sent.epoch != position.epoch:
            position = Position(sent.epoch, sent.number - 1)
            if sent.number > 1:
                self._queue.lost(sent.number - 1)
                count = format_count(sent.number - 1, "message")
                self._warn(f"{count} that had been taken before are not here: they count as indeterminate")
            writer.move(position)
        last = sent.number + sent.count - (not sent.end)
        if last <= position.number or position.ended:
            return  # it came before
        if sent.end:
            writer.move(replace(position, number=sent.number, ended=True))
            writer.end()
            return
        batch = self._whole(payload, sent.count)
        if sent.number <= position.number:
            _, batch = self._queue.codec.skip(batch, position.number - sent.number + 1)
        writer.writer.publish(batch)
        writer.move(replace(position, number=last))

    def _whole(self, payload: bytes, count: int) -> Batch:
        decoder = self._queue.codec.decoder(len(payload) + 1)
        batch = decoder.feed(payload)
        if batch.count != count or decoder.pending_bytes:
            raise StrangeError(f"it has {batch.count:,} messages where it says {count:,}")
        return batch

    def _take_plain(self, message: Msg) -> None:
        (writer,) = self._from.values()
        try:
            writer.writer.publish(self._one(writer.writer, message.data))
        except CodecError as error:
            self._repeats.say(f"a message at {self._names.subject} is not taken: {error}", kind=kind_of(error))
        self._acknowledge_when_committed(message)

    def _one(self, writer: Writer, payload: bytes) -> Batch:
        """A message of a plain peer. Raises CodecError for what is none, which is counted."""
        try:
            if len(payload) > self._most_message_bytes:
                raise too_long(self._most_message_bytes, index=0, beginning=payload, size_bytes=len(payload))
            return framed(self._queue.codec, payload)
        except CodecError:
            writer.refuse(1)
            raise

    def _acknowledge_when_committed(self, message: Msg) -> None:
        consumer = self._consumers
        self._queue.when_committed(lambda: self._acknowledge(message, consumer))

    def _acknowledge(self, message: Msg, consumer: int, *, taken: bool = True) -> None:
        task = asyncio.get_running_loop().create_task(self._say(message, consumer, taken=taken))
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledging.discard)

    async def _say(self, message: Msg, consumer: int, *, taken: bool) -> None:
        """Not to a later consumer: a server takes the number for one of its stream, which may be another by then."""
        if consumer != self._consumers and not self._plain:
            return
        with contextlib.suppress(Exception):  # it comes again by itself then
            await (message.ack() if taken else message.nak(delay=_EARLY_S))

    def _warn(self, text: str) -> None:
        if self._outside is not None:
            self._outside.warn(f"channel `{self._queue.name}`: {text}")
