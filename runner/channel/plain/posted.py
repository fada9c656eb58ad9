"""An HTTP server that takes messages: `curl` posts them.

A POST is one message, or with a newline-delimited content type as many as it has lines; it is taken as a whole or not
at all, answered when all of it is as durable as the channel is, and taken once for each `Idempotency-Key`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from runner.channel.network import Queue
from runner.channel.plain.base import Host, Meeting
from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.channel.plain.carried import framed
from runner.channel.plain.http import MANY
from runner.channel.plain.keys import SeenKeys, mark_of
from runner.channel.plain.receiver import PlainReceiver
from runner.channel.plain.web import base_url, may, served, visitor_of
from runner.channel.repeats import kind_of
from runner.codec.base import Batch
from runner.codec.lines import LINES
from runner.errors import CodecError, RunnerError
from runner.spec.model import Network
from runner.units import format_size

if TYPE_CHECKING:
    from aiohttp import web

_LATER = {"Retry-After": "5"}


class _RefusedError(Exception):
    """What a request is told that is not taken."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class PostedMeeting(Meeting):
    """A server that takes POSTs; it has no peers that stay."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.address = base_url(network, "http") + network.path
        self.post: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def meet(self, host: Host) -> None:
        """See `Meeting`."""
        assert self.post is not None
        await served(self._network, [("POST", self._network.path, self.post)], host, self.address)


class PostedReceiver(PlainReceiver):
    """What is posted goes into the queue."""

    def __init__(self, queue: Queue, network: Network, bounds: Bounds = BOUNDS) -> None:
        meeting = PostedMeeting(network)
        super().__init__(queue, network, meeting, bounds)
        meeting.post = self._post
        self._keys = SeenKeys(queue.store, queue.name, bounds)

    async def _post(self, request: web.Request) -> web.Response:
        if (refusal := may(self.network, request)) is not None:
            return refusal
        self.tell(None)
        try:
            body = await self._body(request)
            key = request.headers.get("Idempotency-Key")
            if key is not None and not key.strip():
                raise _RefusedError(400, "the Idempotency-Key is empty")  # noqa: TRY301
            return await self._take(request.content_type, body, key)
        except CodecError as error:
            return _answer(400, error.what)
        except _RefusedError as refused:
            return _answer(refused.status, refused.text, refused.headers)

    async def _body(self, request: web.Request) -> bytes:
        """All of the request. Raises _RefusedError where it is too long, too slow, or packed."""
        packed = request.headers.get("Content-Encoding", "identity").lower() != "identity"
        if packed or request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
            raise _RefusedError(415, "a request is taken as it is, not packed")
        most = self.network.max_message_bytes
        if request.content_type in MANY:
            most = max(most, self.bounds.request_bytes)
        if (request.content_length or 0) > most:
            raise self._too_long(most)
        visitor, body = visitor_of(request), bytearray()
        try:
            async with asyncio.timeout(self.bounds.body_s):
                while data := await request.content.readany():
                    body += data
                    visitor.hold(len(body))
                    if len(body) > most:
                        raise self._too_long(most)
        except TimeoutError as error:
            self.hit(f"has sent half a request, and the rest did not come within {self.bounds.body_s:g} s")
            raise _RefusedError(408, f"the request did not come within {self.bounds.body_s:g} s") from error
        return bytes(body)

    def _too_long(self, most: int) -> _RefusedError:
        self.writer.refuse(1)
        self.warn(f"a request is refused: it is longer than {format_size(most)}")
        return _RefusedError(413, f"the request is longer than {format_size(most)}")

    async def _take(self, content_type: str, body: bytes, key: str | None) -> web.Response:
        """Once for each key. Raises CodecError and _RefusedError."""
        batch = self._batch(content_type, body)
        mark = b"" if key is None else mark_of(content_type, body)
        if key is None or self._keys.taken(key) is None:
            await self._wait_for_room()
        if self.ended:
            raise _RefusedError(503, "the channel has ended", _LATER)
        before = None if key is None else self._keys.taken(key)
        if before is None:
            self.writer.check(batch)
            self.writer.publish(batch)
            if key is not None:
                self._keys.keep(key, batch.count, mark)
        elif before.mark != mark:
            raise _RefusedError(422, "another request was taken with this Idempotency-Key")
        try:
            await self.queue.committed()
        except RunnerError as error:
            return _answer(500, error.what)
        return _answer(200, f"{batch.count} taken" if before is None else f"{before.messages} taken before")

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self.bounds.room_s):
                await self.room()
        except TimeoutError as error:
            self.hit(f"is put off: the channel had no room for {self.bounds.room_s:g} s")
            raise _RefusedError(503, "the channel is full", _LATER) from error

    def _batch(self, content_type: str, body: bytes) -> Batch:
        """The messages of a request. Raises CodecError, and counts what is no message."""
        codec = self.queue.codec
        try:
            if content_type not in MANY:
                return framed(codec, body)
            decoder = LINES.decoder(self.network.max_message_bytes)
            batches = (decoder.feed(body), decoder.finish(clean=True))
            payloads = [payload for batch in batches for payload in LINES.payloads(batch) if payload.strip()]
            return codec.batch_of(payloads)
        except CodecError as error:
            self.writer.refuse(1)
            self.warn(f"a request is refused: {error}", kind=f"refused: {kind_of(error)}")
            raise


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    from aiohttp import web

    return web.Response(status=status, text=text + "\n", headers=headers)
