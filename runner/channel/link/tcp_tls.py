"""A link's frames over TCP with TLS, each after its length.

asyncio's streams copy every byte twice more; a protocol that gives out its own buffer does not (`BufferedProtocol`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from runner.channel.link.arrived import Arrived
from runner.channel.link.reasons import named, reason
from runner.channel.link.transport import MOST_UNSENT_BYTES, Bounds, Connection, DownError, PromptConnection
from runner.codec.base import Buffer

_LENGTH_BYTES = 4
_READ_BYTES = 1 << 20
"""Several usual frames, so that these are copied out of it once."""


class TlsConnection(asyncio.BufferedProtocol, PromptConnection):
    """See the module. Its frames are cut out of one buffer that is read into again and again."""

    def __init__(self, bounds: Bounds, on_made: Callable[[Connection], None]) -> None:
        self.remote = "somebody"
        self._bounds = bounds
        self._on_made = on_made
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._received_bytes = 0
        self._large: bytearray | None = None
        """A frame that is longer than the buffer, as far as it has come: `_filled` bytes."""
        self._arrived = Arrived(self._read_no_more, self._read_on)
        self._room = asyncio.Event()
        self._room.set()
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
        self._on_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        del sizehint
        if self._large is not None:
            return memoryview(self._large)[self._filled :]
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self._received_bytes += nbytes
        self._filled += nbytes
        if self._large is None:
            self._cut()
        elif self._filled == len(self._large):
            frame, self._large, self._filled = bytes(self._large), None, 0
            self._arrived.put(frame)

    def _cut(self) -> None:
        """Take the whole frames out of the buffer; what is left of it goes to its beginning."""
        start, filled, buffer = 0, self._filled, self._buffer
        while filled - start >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
            if length > self._bounds.frame_bytes:
                self.close(f"it sends a frame of {length:,} bytes, and {self._bounds.frame_bytes:,} are allowed")
                return
            first = start + _LENGTH_BYTES
            if filled - first < length:
                if length + _LENGTH_BYTES > len(buffer):
                    self._begin_large(first, length)
                    return
                break
            self._arrived.put(bytes(self._view[first : first + length]))
            start = first + length
        rest = filled - start
        if start and rest:
            self._view[:rest] = self._view[start:filled]
        self._filled = rest

    def _begin_large(self, first: int, length: int) -> None:
        """The frame that begins at `first` does not fit: the rest of it comes into a place of its own."""
        self._large = bytearray(length)
        here = self._filled - first
        self._large[:here] = self._view[first : self._filled]
        self._filled = here

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
        self._room.set()

    # -- the contract

    async def send(self, *parts: Buffer) -> None:
        """See `Connection`."""
        self._opened()
        self.send_now(*parts)
        if not self._room.is_set():
            await self._room.wait()
            self._opened()

    @property
    def ready(self) -> bool:
        """See `PromptConnection`."""
        return self._room.is_set() and self._arrived.why is None

    def send_now(self, *parts: Buffer) -> None:
        """See `PromptConnection`."""
        length = sum(map(len, parts))
        self._opened().writelines((length.to_bytes(_LENGTH_BYTES, "big"), *parts))

    def _opened(self) -> asyncio.Transport:
        if self._arrived.why is not None or self._transport is None:
            raise DownError(self._arrived.why or "it is not connected")
        return self._transport

    async def receive(self) -> Buffer:
        """See `Connection`."""
        return await self._arrived.receive()

    async def hand_to(self, take: Callable[[Buffer], None]) -> None:
        """See `Connection`."""
        await self._arrived.hand_to(take)

    def progress(self) -> int:
        """See `Connection`."""
        return self._received_bytes

    def close(self, why: str) -> None:
        """See `Connection`."""
        self._down(why)
        if self._transport is not None:
            self._transport.abort()

    async def finish(self) -> None:
        """See `Connection`."""
        if self._transport is not None:
            self._transport.close()
            await self._gone.wait()

    def _down(self, why: str) -> None:
        self._arrived.end(why)
        self._room.set()
