"""A link's frames over TCP, each after its length, with TLS where there are certificates.

asyncio's streams copy every byte twice more; a protocol that gives out its own buffer does not (`BufferedProtocol`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable

from runner.channel import tls
from runner.channel.link.transport import (
    MOST_UNSENT_BYTES,
    Accept,
    Bounds,
    Connection,
    DownError,
    Listener,
    Transport,
    cannot_listen,
)
from runner.codec.base import Buffer
from runner.spec.model import Network

_LENGTH_BYTES = 4
_READ_BYTES = 1 << 20
"""Several usual frames, so that these are copied out of it once."""
_MOST_WAITING_BYTES = 1 << 20
"""More than this is not read while frames wait to be received."""
_HANDSHAKE_S = 10.0
_CONNECT_S = 10.0
_BUSY = {errno.EADDRINUSE}


class TcpConnection(asyncio.BufferedProtocol, Connection):
    """See the module. Its frames are cut out of one buffer that is read into again and again."""

    def __init__(self, bounds: Bounds, on_made: Callable[[TcpConnection], None] = lambda _made: None) -> None:
        self.remote = "somebody"
        self._bounds = bounds
        self._on_made = on_made
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large: bytearray | None = None
        """A frame that is longer than the buffer, as far as it has come: `_filled` bytes."""
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._reading = True
        self._why: str | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._gone = asyncio.Event()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=MOST_UNSENT_BYTES)
        self.remote = _named(transport.get_extra_info("peername"))
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
        self._filled += nbytes
        if self._large is None:
            self._cut()
        elif self._filled == len(self._large):
            frame, self._large, self._filled = bytes(self._large), None, 0
            self._put(frame)

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
            self._put(bytes(self._view[first : first + length]))
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

    def _put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._waiting_bytes += len(frame)
        self._arrived.set()
        if self._reading and self._waiting_bytes > _MOST_WAITING_BYTES and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

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
        if self._why is not None or self._transport is None:
            raise DownError(self._why or "it is not connected")
        length = sum(map(len, parts))
        self._transport.writelines((length.to_bytes(_LENGTH_BYTES, "big"), *parts))
        if not self._room.is_set():
            await self._room.wait()
            if self._why is not None:
                raise DownError(self._why)

    async def receive(self) -> Buffer:
        """See `Connection`: what came before the connection went down is still given out."""
        while not self._frames:
            if self._why is not None:
                raise DownError(self._why)
            self._arrived.clear()
            await self._arrived.wait()
        frame = self._frames.popleft()
        self._waiting_bytes -= len(frame)
        if not self._reading and self._waiting_bytes <= _MOST_WAITING_BYTES // 2 and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        return frame

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
        if self._why is None:
            self._why = why
        self._arrived.set()
        self._room.set()


class _TcpListener(Listener):
    """A listening socket, and the connections that came by it."""

    def __init__(self, bounds: Bounds, accept: Accept, scheme: str) -> None:
        self.address = ""
        self._bounds = bounds
        self._accept = accept
        self._scheme = scheme
        self._handling: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Bind the address."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: TcpConnection(self._bounds, self._made),
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_S if context is not None else None,
            reuse_address=True,
        )
        self.address = f"{self._scheme}://{_named(self._server.sockets[0].getsockname())}"

    def _made(self, connection: TcpConnection) -> None:
        if len(self._handling) >= self._bounds.strangers:
            connection.close("too many connections are open")
            return
        task = asyncio.get_running_loop().create_task(self._handle(connection))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, connection: TcpConnection) -> None:
        try:
            await self._accept(connection)
        finally:
            connection.close("it is over")

    async def close(self) -> None:
        """See `Listener`."""
        if self._server is not None:
            self._server.close()


class TcpTransport(Transport):
    """See the module."""

    scheme = "tcp"

    def __init__(self, network: Network, bounds: Bounds) -> None:
        self._host = network.host or "127.0.0.1"
        self._port = network.port
        self._tls = network.tls
        self._bounds = bounds
        self.address = f"{self.scheme}://{_named((self._host, self._port))}"
        self._client = None if network.tls is None else tls.connecting(network.tls)

    async def connect(self) -> Connection:
        """See `Transport`."""
        loop = asyncio.get_running_loop()
        name = None if self._tls is None else self._tls.name or self._host
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: TcpConnection(self._bounds),
                    self._host,
                    self._port,
                    ssl=self._client,
                    server_hostname=name,
                )
        except TimeoutError as error:
            raise DownError(f"no answer within {_CONNECT_S:.0f} s") from error
        except (OSError, ssl.SSLError) as error:
            hint = "; does it speak TLS?" if self._tls is not None and isinstance(error, ConnectionError) else ""
            raise DownError(reason(error) + ("" if isinstance(error, ConnectionRefusedError) else hint)) from error
        return connection

    async def listen(self, accept: Accept) -> Listener:
        """See `Transport`."""
        listener = _TcpListener(self._bounds, accept, self.scheme)
        try:
            await listener.open(self._host, self._port, None if self._tls is None else tls.listening(self._tls))
        except OSError as error:
            if error.errno in _BUSY:
                raise DownError("somebody else listens there") from error
            raise cannot_listen(self.address, reason(error), _remedy(error)) from error
        return listener


def reason(error: BaseException) -> str:
    """Why a connection is no more, or never was, in words that end a sentence."""
    if isinstance(error, ssl.SSLError):
        return tls.why_not(error)
    if isinstance(error, socket.gaierror):
        return "its host's name is not known"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno is not None else _last_reason(str(error))
    return str(error) or type(error).__name__


def _last_reason(text: str) -> str:
    """Of what asyncio says when it has tried several addresses."""
    return "connection refused" if "refused" in text else text.lower()


def _remedy(error: OSError) -> str | None:
    if error.errno == errno.EADDRNOTAVAIL:
        return "a runner listens at an address of its own machine"
    if error.errno == errno.EACCES:
        return "take a port from 1024 on"
    return None


def _named(address: tuple[object, ...] | None) -> str:
    if not address:
        return "somebody"
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
