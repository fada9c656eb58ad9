"""How a link's runners reach each other over TCP, with TLS where there are certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from runner.channel.link.framing import Lengths
from runner.channel.link.streams import StreamListener, StreamTransport, no_answer, taken_over
from runner.channel.link.transport import Accept, Bounds, Connection, Listener
from runner.spec.model import Network

_HANDSHAKE_S = 10.0
_CONNECT_S = 10.0


class _Met(asyncio.Protocol):
    """A connection is made."""

    def __init__(self, bounds: Bounds, on_made: Callable[[Connection], None]) -> None:
        self._bounds = bounds
        self._on_made = on_made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._on_made(taken_over(transport, Lengths(self._bounds.frame_bytes)))


class _TcpListener(StreamListener):
    """A listening socket, and the connections that came by it."""

    def __init__(self, bounds: Bounds, accept: Accept) -> None:
        super().__init__()
        self._bounds = bounds
        self._accept = accept

    def made(self, connection: Connection) -> None:
        """Somebody has come."""
        if len(self.handling) >= self._bounds.strangers:
            connection.close("too many connections are open")
        else:
            self.handle(self._handle(connection))

    async def _handle(self, connection: Connection) -> None:
        try:
            await self._accept(connection)
        finally:
            connection.close("it is over")


class TcpTransport(StreamTransport):
    """See the module."""

    def __init__(self, network: Network, bounds: Bounds) -> None:
        super().__init__("tcp", network, bounds)

    async def connect(self) -> Connection:
        """See `Transport`."""
        made: list[Connection] = []
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._dial(partial(_Met, self._bounds, made.append))
        except TimeoutError as error:
            raise no_answer(_CONNECT_S) from error
        except asyncio.CancelledError:
            for connection in made:
                connection.close("nobody waits for it any more")
            raise
        return made[0]

    async def listen(self, accept: Accept) -> Listener:
        """See `Transport`."""
        listener = _TcpListener(self._bounds, accept)
        await self._bind(listener, partial(_Met, self._bounds, listener.made), _HANDSHAKE_S)
        return listener
