"""The protocol between a socket and whoever speaks on it: it knows when the kernel has taken what was written.

With TLS it is asyncio's TLS layer that has taken it, which holds up to 64 KiB more.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from runner.channel.link.reasons import reason
from runner.channel.link.transport import DownError

_KEEP_ALIVE = (
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 15),
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_USER_TIMEOUT, 120_000),
)
"""Who is gone without a word is known to be so after two minutes, whether anything was sent or not (tcp(7))."""


def keep_alive(connection: socket.socket) -> None:
    """Let the kernel find out about a peer that is gone without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


Make = Callable[["Line"], asyncio.BaseProtocol]
"""Makes the protocol that speaks on a line."""


class Line(asyncio.Protocol):
    """See the module. Everything goes on to the protocol that `make` makes when the connection is there."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self.inner: asyncio.Protocol | None = None
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()
        self.failed = False
        """Whether it has come to another end than one in order."""
        self.ended = False
        """Whether the other side has ended it; to who reads, a connection that we cut looks the same."""
        self.why = "the connection was closed"
        self._flushed = asyncio.Event()
        self._flushed.set()

    @property
    def remote(self) -> str:
        """Who is at the other end, for people."""
        address = None if self.transport is None else self.transport.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if address else "somebody"

    async def flushed(self) -> None:
        """Wait until the kernel has taken all that was written. Raises DownError."""
        await self._flushed.wait()
        if self.lost.is_set() or self.transport is None or self.transport.is_closing():
            raise DownError(self.why)

    def abort(self) -> None:
        """End it at once; asyncio's `abort` fails where a connection is closed already that had something to send."""
        if self.transport is not None and not self.lost.is_set():
            self.transport.abort()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        below = transport.get_extra_info("socket")
        if below is not None:
            keep_alive(below)
        made = self._make(self)
        assert isinstance(made, asyncio.Protocol)
        self.inner = made
        made.connection_made(transport)
        sealed = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=int(sealed), low=0)  # asyncio's TLS waits at the limit, not beyond it

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        assert self.inner is not None
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        """See asyncio."""
        assert self.inner is not None
        self.ended = True
        return self.inner.eof_received()

    def pause_writing(self) -> None:
        """See asyncio."""
        assert self.inner is not None
        self._flushed.clear()
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        assert self.inner is not None
        self._flushed.set()
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if exc is not None:
            self.failed = True
            self.why = reason(exc)
        self.lost.set()
        self._flushed.set()
        if self.inner is not None:
            self.inner.connection_lost(exc)
