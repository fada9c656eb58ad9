"""To the server: what it has not confirmed is kept, and sent again from the first such on.

The server keeps what comes, in whatever order; the reader takes numbers in order only. So when one publication fails,
all that came after it are sent again as well, whatever became of them.
"""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.channel.base import Outside, Reader
from runner.channel.nats.names import Names, Sent
from runner.channel.nats.room import Room, stored_bytes
from runner.channel.nats.server import FullError, Server, end
from runner.channel.nats.streams import HEADERS_BYTES, ensure_stream, limit, most_stored_bytes, refuse_unfit
from runner.channel.nats.told import Told
from runner.channel.network import FarEnd, Here, Queue, far_name
from runner.errors import RunnerError
from runner.spec.model import Network

if TYPE_CHECKING:
    from nats.js import JetStreamContext

_FRAME_BYTES = 256 << 10
_LEAST_FRAME_BYTES = 4096
_MOST_UNCONFIRMED_BYTES = 4 << 20
_MOST_UNCONFIRMED = 256
_STREAM_FACTOR = 16
"""The stream at the server holds so many times what the channel holds here."""
_LEAST_STREAM_BYTES = 64 << 20
_STOP_S = 2.0
_LOOK_FOR_ROOM_S = 0.25


class _Unconfirmed:
    """One publication: its bytes, what stands beside it, the task that waits for the server, what is stored there."""

    __slots__ = ("payload", "sent", "size_bytes", "task")

    def __init__(self, sent: Sent, payload: bytes, size_bytes: int) -> None:
        self.sent = sent
        self.payload = payload
        self.size_bytes = size_bytes
        self.task: asyncio.Task[object] | None = None

    @property
    def last(self) -> int:
        return self.sent.number + self.sent.count - 1


class NatsSender(FarEnd):
    """Everything for one reading runner, or (plain) for whoever reads the subject."""

    writes = False

    def __init__(
        self, names: Names, network: Network, queue: Queue, here: Here, runner: str, *, senders: int = 1
    ) -> None:
        self._names = names
        self._plain = network.plain
        self._queue = queue
        self._here = here
        self._server = Server(network)
        self._reader: Reader = queue.open_reader(far_name(runner))
        self._wake = asyncio.Event()
        self._reader.on_data = self._wake.set
        self._epoch = self._reader.epoch or secrets.token_hex(8)
        self._unconfirmed: deque[_Unconfirmed] = deque()
        self._unconfirmed_bytes = 0
        self._on_way = 0
        """How many of them, from the first on, wait for the server."""
        self._next_number = self._reader.before + 1
        self._since = self._next_number
        self._confirmed = False
        self._end_sent = False
        self._over = asyncio.Event()
        self._stopping = False
        self._most_payload = _FRAME_BYTES
        self._most_message = 0
        self._room = Room(senders)
        self._looking: asyncio.Task[None] | None = None
        """A look at how full the stream is, while messages are sent."""

    @property
    def trouble(self) -> str | None:
        """See `FarEnd`."""
        return self._server.trouble

    def stop(self) -> None:
        """See `FarEnd`."""
        self._stopping = True
        self._wake.set()

    def abandon(self) -> None:
        """See `FarEnd`."""
        self._over.set()
        self._wake.set()

    async def live(self, outside: Outside) -> None:
        """See `FarEnd`."""
        telling = Told(self._server, self._queue.name, outside)
        sending = asyncio.create_task(self._send())
        try:
            over = asyncio.create_task(self._given_up())
            await asyncio.wait((sending, over), return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
            if sending.done():
                sending.result()
        finally:
            await end(sending)
            if self._looking is not None:
                await end(self._looking)
            telling.close()
            for each in self._unconfirmed:
                if each.task is not None:
                    each.task.cancel()
            self._reader.account.unread += self._reader.held
            self._reader.held = 0
            self._reader.leave()

    async def _given_up(self) -> None:
        """Until it is to end at once; in a stop also when the server has not been there for a while."""
        while not self._over.is_set():
            waiting = asyncio.ensure_future(self._over.wait())
            await asyncio.wait([waiting], timeout=_STOP_S)
            waiting.cancel()
            if self._stopping and self._reader.ended and self._server.trouble is not None:
                return

    async def _send(self) -> None:
        async with self._server.connected() as stream:
            await self._server.until_done(lambda: self._look(stream))
            while True:
                self._wake.clear()
                self._publish_more(stream)
                self._look_beside(stream)
                if self._unconfirmed and not self._on_way:
                    await self._server.until_done(lambda: self._until_room(stream), _LOOK_FOR_ROOM_S)
                elif self._unconfirmed:
                    await self._confirm_first(stream)
                elif self._at_end():
                    await self._queue.committed()
                    if self._end_sent or self._plain:
                        return
                    self._end_sent = True
                    self._keep(
                        Sent(
                            self._here.runner, self._epoch, self._next_number, 0, zlib.crc32(b""), self._since, end=True
                        ),
                        b"",
                    )
                elif self._stopping and self._reader.ended and not self._reader.queued_messages:
                    return
                else:
                    await self._wake.wait()

    def _at_end(self) -> bool:
        reader = self._reader
        return reader.ended and not reader.queued_messages and self._queue.finished

    # -- publishing

    def _publish_more(self, stream: JetStreamContext) -> None:
        """What the server has room for; no more is taken from the queue than one that it has no room for."""
        while self._next is not None or self._takes_one_more():
            each = self._next
            if each is None or not self._room.allows(each.size_bytes):
                break
            if self._on_way and not self._confirmed:
                break  # what comes first is there before anything that comes behind it
            self._room.sent(each.size_bytes)
            each.task = asyncio.ensure_future(self._publish(stream, each))
            self._on_way += 1

    @property
    def _next(self) -> _Unconfirmed | None:
        """The publication that is to be sent next; None: none was taken."""
        return self._unconfirmed[self._on_way] if len(self._unconfirmed) > self._on_way else None

    def _takes_one_more(self) -> bool:
        """Whether one more was taken."""
        within = self._unconfirmed_bytes < _MOST_UNCONFIRMED_BYTES and len(self._unconfirmed) < _MOST_UNCONFIRMED
        return within and self._take_more()

    def _take_more(self) -> bool:
        """Whether there was more to take from the queue."""
        codec, reader = self._queue.codec, self._reader
        one_by_one = self._plain or not codec.framed
        batch = reader.take(most_bytes=self._most_payload, most_messages=1 if one_by_one else None)
        if batch is None:
            return False
        number = reader.number
        reader.held += batch.count
        self._next_number = number + batch.count
        payload = codec.payloads(batch)[0] if self._plain else batch.joined()
        if len(payload) > self._most_payload:
            self._refuse_too_large(number, len(payload))
        self._keep(Sent(self._here.runner, self._epoch, number, batch.count, zlib.crc32(payload), self._since), payload)
        return True

    def _refuse_too_large(self, number: int, size_bytes: int) -> None:
        if size_bytes > self._most_message:
            raise RunnerError(
                f"message {number:,} has {size_bytes:,} bytes, and the server's stream {self._names.stream} takes "
                f"{self._most_message:,}",
                remedy="raise max_payload of the server, or max_bytes or max_msg_size of its stream",
            )

    def _keep(self, sent: Sent, payload: bytes) -> None:
        headers = None if self._plain else replace(sent, kept=sent.number).headers()
        size_bytes = stored_bytes(self._names.subject, payload, headers)
        self._unconfirmed.append(_Unconfirmed(sent, payload, size_bytes))
        self._unconfirmed_bytes += len(payload)

    async def _publish(self, stream: JetStreamContext, each: _Unconfirmed) -> object:
        headers = None if self._plain else replace(each.sent, kept=self._unconfirmed[0].sent.number).headers()
        return await stream.publish(self._names.subject, each.payload, headers=headers)

    async def _confirm_first(self, stream: JetStreamContext) -> None:
        """Wait for the first; what is confirmed is acknowledged, what is not is sent again with all behind it."""
        first = self._unconfirmed[0]
        assert first.task is not None
        waking = asyncio.ensure_future(self._wake.wait())
        await asyncio.wait((first.task, waking), return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()
        if not first.task.done():
            return
        try:
            first.task.result()
        except Exception as error:  # noqa: BLE001 - the client raises many kinds, `failed` raises what stays
            self._server.failed(error)
            await self._again(stream)
            return
        self._server.works()
        self._confirmed = True
        self._unconfirmed.popleft()
        self._on_way -= 1
        self._unconfirmed_bytes -= len(first.payload)
        self._room.confirmed(first.size_bytes)
        if not first.sent.end:
            self._reader.acknowledge(first.sent.number, first.sent.count)
            self._reader.held -= first.sent.count

    async def _again(self, stream: JetStreamContext) -> None:
        """All that is not confirmed is sent once more, in order, when the server has what comes first."""
        tasks = [each.task for each in self._unconfirmed if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._on_way:
            self._on_way -= 1
            each = self._unconfirmed[self._on_way]
            each.task = None
            self._room.failed(each.size_bytes)
        first = self._unconfirmed[0]
        await self._server.until_done(lambda: self._publish_first(stream, first), _LOOK_FOR_ROOM_S)
        first.task = asyncio.ensure_future(_nothing())
        self._on_way = 1

    async def _publish_first(self, stream: JetStreamContext, first: _Unconfirmed) -> None:
        await self._until_room(stream)
        self._room.sent(first.size_bytes)
        try:
            await self._publish(stream, first)
        except BaseException:
            self._room.failed(first.size_bytes)
            raise

    # -- room in the stream

    def _look_beside(self, stream: JetStreamContext) -> None:
        """While messages are sent, so that none waits for it. Raises RunnerError for a stream that is fit no more."""
        if self._looking is not None and self._looking.done():
            looking, self._looking = self._looking, None
            looking.result()
        if self._looking is None and self._room.low and self._unconfirmed:
            self._looking = asyncio.create_task(self._look_and_wake(stream))

    async def _look_and_wake(self, stream: JetStreamContext) -> None:
        try:
            await self._look(stream)
        except RunnerError:
            raise
        except Exception:  # noqa: BLE001 - it is looked again, with what is said of that, when nothing more may be sent
            self._room.full = True
        finally:
            self._wake.set()

    async def _until_room(self, stream: JetStreamContext) -> None:
        """Look, with nothing on its way. Raises FullError where what comes next has no room."""
        if self._looking is not None:
            await end(self._looking)
            self._looking = None
        await self._look(stream)
        if self._room.full:
            raise FullError("its stream is full")

    async def _look(self, stream: JetStreamContext) -> None:
        """How full the stream is; where it is there no more it is made again."""
        from nats.js.errors import NotFoundError

        self._room.asked()
        try:
            found = await stream.stream_info(self._names.stream)
        except NotFoundError:
            await self._ensure(stream)
            self._room.asked()
            found = await stream.stream_info(self._names.stream)
        refuse_unfit(found.config, self._names, plain=self._plain)
        next_bytes = 0 if self._next is None else self._next.size_bytes
        self._room.seen(found.state.bytes, most_stored_bytes(found.config), next_bytes)
        self._bound_messages(limit(found.config.max_msg_size))

    def _bound_messages(self, most_message: int | None) -> None:
        """By what the server takes, and its stream; and a batch by what may be sent between two looks."""
        assert self._server.client is not None
        headers = 0 if self._plain else HEADERS_BYTES
        taken = [each - headers for each in (self._server.client.max_payload, most_message) if each is not None]
        if self._room.most_bytes is not None:
            taken.append(self._room.most_bytes - max(headers, stored_bytes(self._names.subject, b"", None)))
        self._most_message = max(0, min(taken))
        window = max(_LEAST_FRAME_BYTES, self._room.window_bytes - HEADERS_BYTES)
        self._most_payload = min(_FRAME_BYTES, self._most_message, window)

    async def _ensure(self, stream: JetStreamContext) -> None:
        most_bytes = max(_LEAST_STREAM_BYTES, _STREAM_FACTOR * self._queue.capacity_bytes)
        await ensure_stream(stream, self._names, most_bytes=most_bytes, plain=self._plain)


async def _nothing() -> None:
    """It is done already."""
