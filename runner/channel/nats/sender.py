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
from runner.channel.nats.server import Server, end, ensure_stream
from runner.channel.network import FarEnd, Here, Queue, far_name
from runner.channel.repeats import Absence
from runner.codec.base import Batch
from runner.errors import RunnerError
from runner.spec.model import Network

if TYPE_CHECKING:
    from nats.js import JetStreamContext

_FRAME_BYTES = 256 << 10
_HEADERS_BYTES = 2048
_MOST_UNCONFIRMED_BYTES = 4 << 20
_MOST_UNCONFIRMED = 256
_STREAM_FACTOR = 16
"""The stream at the server holds so many times what the channel holds here."""
_LEAST_STREAM_BYTES = 64 << 20
_STOP_S = 2.0
_LOOK_FOR_ROOM_S = 0.25


class _Unconfirmed:
    """One publication: its bytes, what stands beside it, and the task that waits for the server."""

    __slots__ = ("payload", "sent", "task")

    def __init__(self, sent: Sent, payload: bytes) -> None:
        self.sent = sent
        self.payload = payload
        self.task: asyncio.Task[object] | None = None

    @property
    def last(self) -> int:
        return self.sent.number + self.sent.count - 1


class NatsSender(FarEnd):
    """Everything for one reading runner, or (plain) for whoever reads the subject."""

    writes = False

    def __init__(self, names: Names, network: Network, queue: Queue, here: Here, runner: str) -> None:
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
        self._next_number = self._reader.before + 1
        self._since = self._next_number
        self._confirmed = False
        self._end_sent = False
        self._over = asyncio.Event()
        self._stopping = False
        self._most_payload = _FRAME_BYTES

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
            await self._server.until_done(lambda: self._ensure(stream))
            assert self._server.client is not None
            self._most_payload = min(_FRAME_BYTES, self._server.client.max_payload - _HEADERS_BYTES)
            while True:
                self._wake.clear()
                self._publish_more(stream)
                if self._unconfirmed:
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
        while self._unconfirmed_bytes < _MOST_UNCONFIRMED_BYTES and len(self._unconfirmed) < _MOST_UNCONFIRMED:
            if not self._take_more():
                break
        for each in self._unconfirmed:
            if each.task is None:
                each.task = asyncio.ensure_future(self._publish(stream, each))
            if not self._confirmed:
                break  # what comes first is there before anything that comes behind it

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
            assert self._server.client is not None
            most = self._server.client.max_payload - _HEADERS_BYTES
            if len(payload) > most:
                raise RunnerError(
                    f"message {number:,} has {len(payload):,} bytes, and the server takes {most:,}",
                    remedy="raise max_payload of the server",
                )
        self._keep(Sent(self._here.runner, self._epoch, number, batch.count, zlib.crc32(payload), self._since), payload)
        return True

    def _keep(self, sent: Sent, payload: bytes) -> None:
        self._unconfirmed.append(_Unconfirmed(sent, payload))
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
        self._unconfirmed_bytes -= len(first.payload)
        if not first.sent.end:
            self._reader.acknowledge(first.sent.number, first.sent.count)
            self._reader.held -= first.sent.count

    async def _again(self, stream: JetStreamContext) -> None:
        """All that is not confirmed is sent once more, in order, when the server has what comes first."""
        for each in self._unconfirmed:
            if each.task is not None:
                each.task.cancel()
        await asyncio.gather(*(each.task for each in self._unconfirmed if each.task), return_exceptions=True)
        first = self._unconfirmed[0]
        await self._server.until_done(lambda: self._publish_first(stream, first), _LOOK_FOR_ROOM_S)
        for each in self._unconfirmed:
            each.task = None
        first.task = asyncio.ensure_future(_nothing())

    async def _publish_first(self, stream: JetStreamContext, first: _Unconfirmed) -> None:
        """Where the stream is there no more it is made again."""
        from nats.js.errors import NoStreamResponseError

        try:
            await self._publish(stream, first)
        except NoStreamResponseError:
            await self._ensure(stream)
            await self._publish(stream, first)

    async def _ensure(self, stream: JetStreamContext) -> None:
        most_bytes = max(_LEAST_STREAM_BYTES, _STREAM_FACTOR * self._queue.capacity_bytes)
        await ensure_stream(stream, self._names, most_bytes=most_bytes, plain=self._plain)


async def _nothing() -> None:
    """It is done already."""


class Told:
    """Tells a person when the server is not there for a while, why, how often it was tried, and when it is back."""

    def __init__(self, server: Server, channel: str, outside: Outside, patience_s: float = 1.0) -> None:
        self._server = server
        self._channel = channel
        self._outside = outside
        self._patience_s = patience_s
        self._absence = Absence(self._tell)
        self._waiting: asyncio.TimerHandle | None = None
        server.on_trouble = self._changed
        self._changed()

    def _changed(self) -> None:
        self._stop_waiting()
        if self._server.trouble is not None:
            self._waiting = asyncio.get_running_loop().call_later(self._patience_s, self._look)
        else:
            self._absence.look(None, f"{self._server.shown} is there again")

    def _look(self) -> None:
        """Now and then, for as long as the trouble stays."""
        self._absence.look(f"waits: {self._server.trouble}; it is tried again", "", self._server.tries)
        self._waiting = asyncio.get_running_loop().call_later(self._patience_s, self._look)

    def _tell(self, text: str) -> None:
        self._outside.warn(f"channel `{self._channel}`: {text}")

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def close(self) -> None:
        """Tell no more."""
        self._server.on_trouble = lambda: None
        self._stop_waiting()


def batch_of(payload: bytes, count: int) -> Batch:
    """Messages as they came, in one piece."""
    return Batch((payload,), count, len(payload))
