"""How a link's runners reach each other over websockets (RFC 6455), with TLS and a token where they are given.

After the HTTP of the beginning it is a connection like one over `tcp`, with other heads before its frames.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from runner.channel.link.framed import CLOSE_S, FramedConnection
from runner.channel.link.reasons import named, reason
from runner.channel.link.streams import StreamListener, StreamTransport, no_answer, taken_over
from runner.channel.link.transport import Accept, Bounds, Connection, DownError, Listener, RefusedError
from runner.channel.link.upgrade import UNREFUSED, Asked, Asking, Refusal
from runner.channel.link.websocket_framing import WebsocketFraming
from runner.spec.model import Network

_CONNECT_S = 10.0
_REFUSED_FOR_GOOD = 3
_MOST_ASKING = 64
"""So many may be connected and have not asked yet; they are not heard for longer than _CONNECT_S."""
_PIECE_BYTES = 4096


class _Begun(asyncio.Protocol):
    """A connection before its frames. What comes waits to be read, and no more than one read of asyncio's."""

    def __init__(self, on_made: Callable[[_Begun], None]) -> None:
        self._on_made = on_made
        self._transport: asyncio.Transport | None = None
        self._came = b""
        self._why: str | None = None
        self._changed = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        sealed = transport.get_extra_info("sslcontext") is not None
        transport.set_write_buffer_limits(high=int(sealed), low=0)  # with TLS, 0 would be no room at all
        self._transport = transport
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._came += data
        self._changed.set()
        if self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """See asyncio."""
        self._over("it has closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._over("it has closed the connection" if exc is None else reason(exc))

    def pause_writing(self) -> None:
        """See asyncio."""
        self._written.clear()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._written.set()

    def _over(self, why: str) -> None:
        self._why = self._why or why
        self._changed.set()
        self._written.set()

    async def read(self) -> bytes:
        """Some of what comes. Raises DownError."""
        while not self._came:
            if self._why is not None or self._transport is None:
                raise DownError(self._why or "it has closed the connection")
            self._changed.clear()
            self._transport.resume_reading()
            await self._changed.wait()
        piece, self._came = self._came[:_PIECE_BYTES], self._came[_PIECE_BYTES:]
        return piece

    async def write(self, data: bytes) -> None:
        """Returns when the kernel has it. Raises DownError."""
        if self._why is None and self._transport is not None:
            self._transport.write(data)
            await self._written.wait()
        if self._why is not None:
            raise DownError(self._why)

    async def write_last(self, data: bytes) -> None:
        """Write, and wait until the other side has gone, for a moment: over what was not read it would not be heard."""
        with contextlib.suppress(DownError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.write(data)
                if self._transport is not None and self._transport.can_write_eof():
                    self._transport.write_eof()
                while True:
                    await self.read()
                    self._came = b""

    def go_on(self, framing: WebsocketFraming, behind: bytes) -> FramedConnection:
        """The connection in frames, when all that was written has got away; `behind` was read and belongs to them."""
        transport, self._transport = self._transport, None
        if transport is None or self._why is not None:
            raise DownError(self._why or "it has closed the connection")
        connection = taken_over(transport, framing)
        transport.resume_reading()
        connection.feed(behind + self._came)
        return connection

    def close(self) -> None:
        """Close it, unless it goes on in frames."""
        if self._transport is not None:
            self._transport.abort()


class _WebsocketListener(StreamListener):
    """A listening socket that answers requests, and the connections that came of them."""

    def __init__(self, network: Network, bounds: Bounds, accept: Accept) -> None:
        super().__init__()
        self._network = network
        self._bounds = bounds
        self._accept = accept
        self._asking: set[asyncio.Task[None]] = set()
        """Those of `handling` that are no websockets yet."""

    def made(self, begun: _Begun) -> None:
        """Somebody has come."""
        if len(self._asking) >= _MOST_ASKING:
            begun.close()
            return
        task = self.handle(self._handle(begun))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _handle(self, begun: _Begun) -> None:
        try:
            connection = await self._met(begun)
        except (DownError, TimeoutError):
            return
        finally:
            begun.close()
        if connection is None:
            return
        try:
            await self._accept(connection)
        finally:
            connection.close("it is over")

    async def _met(self, begun: _Begun) -> FramedConnection | None:
        """The connection that the request asks for; None: it was refused. Raises DownError, TimeoutError."""
        asked = Asked(self._network)
        async with asyncio.timeout(_CONNECT_S):
            refusal = None
            while refusal is None:
                refusal = asked.take(await begun.read())
            if refusal is UNREFUSED and len(self.handling) - len(self._asking) >= self._bounds.strangers:
                refusal = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open\n")
            if refusal is UNREFUSED:
                self._asking -= {asyncio.current_task()}
                said, behind = asked.welcome()
                await begun.write(said)
                return begun.go_on(WebsocketFraming(self._bounds.frame_bytes, listens=True), behind)
        await begun.write_last(asked.refuse(refusal))
        return None

    async def close(self) -> None:
        """See `Listener`: who has not asked yet is not answered any more."""
        await super().close()
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


class WebsocketTransport(StreamTransport):
    """See the module."""

    def __init__(self, network: Network, bounds: Bounds) -> None:
        super().__init__("ws" if network.tls is None else "wss", network, bounds)
        self.address += network.path
        self._refused = 0

    async def connect(self) -> Connection:
        """See `Transport`."""
        made: list[_Begun] = []
        refused, self._refused = self._refused, 0
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._dial(partial(_Begun, made.append))
                return await self._asked(made[0])
        except TimeoutError as error:
            raise no_answer(_CONNECT_S) from error
        except RefusedError as error:
            self._refused = refused + 1
            if self._refused < _REFUSED_FOR_GOOD:  # it ends the run, and has no checksum: it is heard more than once
                raise DownError(str(error)) from error
            raise
        finally:
            for begun in made:
                begun.close()

    async def _asked(self, begun: _Begun) -> FramedConnection:
        asking = Asking(self._network, named((self._host, self._port)))
        await begun.write(asking.request)
        behind = None
        while behind is None:
            behind = asking.take(await begun.read())
        connection = begun.go_on(WebsocketFraming(self._bounds.frame_bytes, listens=False), behind)
        connection.remote = self.address
        return connection

    async def listen(self, accept: Accept) -> Listener:
        """See `Transport`."""
        listener = _WebsocketListener(self._network, self._bounds, accept)
        await self._bind(listener, partial(_Begun, listener.made), _CONNECT_S)
        return listener
