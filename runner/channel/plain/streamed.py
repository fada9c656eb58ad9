"""An HTTP server that streams what is written to whoever GETs, a message a line or as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import re
from functools import partial
from typing import TYPE_CHECKING

from runner.channel.link.reasons import reason
from runner.channel.link.transport import DownError
from runner.channel.plain.base import Host, Meeting, Peer
from runner.channel.plain.door import Visitor
from runner.channel.plain.http import EVENTS, MANY
from runner.channel.plain.web import base_url, may, served, visitor_of
from runner.codec.base import EMPTY, Batch, Codec
from runner.codec.lines import LINES
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import web

_KEEPALIVE_S = 15.0
_LINE_END = re.compile(rb"\r\n|\r|\n")
"""What ends a line of an event: HTML, 9.2.5."""


class StreamedMeeting(Meeting):
    """See the module."""

    def __init__(self, network: Network, codec: Codec) -> None:
        self._network = network
        self._codec = codec
        self.address = base_url(network, "http") + network.path

    async def meet(self, host: Host) -> None:
        """See `Meeting`."""
        route = ("GET", self._network.path, partial(self._stream, host=host))
        await served(self._network, [route], host, self.address)

    async def _stream(self, request: web.Request, host: Host) -> web.StreamResponse:
        from aiohttp import web

        if (refusal := may(self._network, request)) is not None:
            return refusal
        events = EVENTS in request.headers.get("Accept", "")
        if not events and self._codec.name != LINES.name:
            text = f"messages here are no lines: ask for them with Accept: {EVENTS}\n"
            return web.Response(status=406, text=text)
        response = web.StreamResponse(
            headers={"Content-Type": EVENTS if events else MANY[0], "Cache-Control": "no-store"}
        )
        response.force_close()
        visitor = visitor_of(request)
        await response.prepare(request)
        peer = StreamedPeer(response, self._codec, visitor, host.bounds.piece_bytes, events=events)
        beating = asyncio.create_task(peer.beat()) if events else None
        try:
            await host.handle(peer)
        finally:
            if beating is not None:
                beating.cancel()
        return response


class StreamedPeer(Peer):
    """One GET that is being answered."""

    def __init__(
        self, response: web.StreamResponse, codec: Codec, visitor: Visitor, piece_bytes: int, *, events: bool
    ) -> None:
        self.remote = visitor.remote
        self._response = response
        self._codec = codec
        self._visitor = visitor
        self._piece_bytes = piece_bytes
        self._events = events
        self._over = asyncio.Event()

    async def read(self) -> Batch | None:
        """See `Peer`: nothing comes."""
        return EMPTY

    async def write(self, batch: Batch, number: int) -> None:
        """See `Peer`, piece by piece: handed over is what the kernel has taken."""
        rest = batch
        while rest.count:
            if self._visitor.lost.is_set():
                raise DownError(self._visitor.why)
            piece, rest = self._codec.cut(rest, most_bytes=self._piece_bytes, most_messages=rest.count)
            first = number + self.handed
            self.handed += piece.count
            framed = (self._framed(payload, first + i) for i, payload in enumerate(self._codec.payloads(piece)))
            await self._write(b"".join(framed))

    def _framed(self, payload: bytes, number: int) -> bytes:
        if not self._events:
            return payload + b"\n"
        lines = b"".join(b"data: " + line + b"\n" for line in _LINE_END.split(payload))
        return b"id: %d\n" % number + lines + b"\n"

    async def _write(self, data: bytes) -> None:
        try:
            await self._response.write(data)
            await self._visitor.flushed()
        except (OSError, RuntimeError) as error:
            raise DownError(reason(error)) from error

    async def beat(self) -> None:
        """Say now and then that somebody is there, for whoever is between."""
        while True:
            await asyncio.sleep(_KEEPALIVE_S)
            with contextlib.suppress(DownError):
                await self._write(b": there\n\n")

    async def gone(self) -> None:
        """See `Peer`: the request is cancelled when its connection is lost."""
        await self._over.wait()

    async def finish(self) -> None:
        """See `Peer`."""
        with contextlib.suppress(OSError, RuntimeError):
            await self._response.write_eof()
        self._over.set()
        await self._visitor.lost.wait()

    def close(self) -> None:
        """See `Peer`."""
        if not self._over.is_set():
            self._visitor.abort()
        self._over.set()
