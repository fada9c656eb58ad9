"""A link's frames over TCP with TLS.

asyncio's streams copy every byte twice more; a protocol that gives out its own buffer does not (`BufferedProtocol`).
"""

from __future__ import annotations

import asyncio
import socket

from runner.channel.link.framed import FramedConnection
from runner.channel.link.framing import Framing
from runner.channel.link.reasons import named, reason
from runner.channel.link.transport import MOST_UNSENT_BYTES
from runner.codec.base import Buffer

_READ_BYTES = 1 << 20
"""Several usual frames, so that these are copied out of it once."""


class TlsConnection(asyncio.BufferedProtocol, FramedConnection):
    """See the module. Its frames are cut out of one buffer that is read into again and again."""

    def __init__(self, framing: Framing) -> None:
        super().__init__(framing, _READ_BYTES, _READ_BYTES)
        self.remote = "somebody"
        self._transport: asyncio.Transport | None = None
        self._large: memoryview | None = None
        """A frame that is longer than the buffer, as far as it has come: `_filled` bytes."""
        self._gone = asyncio.Event()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=MOST_UNSENT_BYTES)
        self.remote = named(transport.get_extra_info("peername"))
        plain = transport.get_extra_info("socket")
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        del sizehint
        return (self._view if self._large is None else self._large)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self._received_bytes += nbytes
        self._filled += nbytes
        if self._large is None:
            self._cut()
        elif self._filled == len(self._large):
            body, self._large, self._filled = self._large, None, 0
            self._put_long((body,))

    def _begin_long(self, first: int, length: int) -> None:
        """The frame that begins at `first` does not fit: the rest of it comes into a place of its own."""
        self._large = memoryview(bytearray(length))
        here = self._filled - first
        self._large[:here] = self._view[first : self._filled]
        self._filled = here

    def feed(self, data: bytes) -> None:
        """See `FramedConnection`."""
        while data and self._arrived.why is None:
            room = self.get_buffer(-1)
            chunk, data = data[: len(room)], data[len(room) :]
            room[: len(chunk)] = chunk
            self.buffer_updated(len(chunk))

    def _read_no_more(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """See asyncio."""
        self._down("it has closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._down("the connection was closed" if exc is None else reason(exc))
        self._gone.set()

    def pause_writing(self) -> None:
        """See asyncio."""
        self._room.clear()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._has_room()

    # -- the contract

    def _write(self, pieces: tuple[Buffer, ...]) -> None:
        if self._transport is not None:
            self._transport.writelines(pieces)

    def _close_when_sent(self, why: str) -> None:
        if self._transport is None:
            self.close(why)
        else:
            self._transport.close()

    def close(self, why: str) -> None:
        """See `Connection`."""
        self._down(why)
        if self._transport is not None:
            self._transport.abort()

    async def finish(self) -> None:
        """See `Connection`."""
        await self._bid_farewell()
        if self._transport is not None:
            self._transport.close()
            await self._gone.wait()
