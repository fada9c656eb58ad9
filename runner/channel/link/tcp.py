"""How a link's runners reach each other over TCP, with TLS where there are certificates."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial

from runner.channel import tls
from runner.channel.link.reasons import named, reason
from runner.channel.link.tcp_socket import SocketConnection
from runner.channel.link.tcp_tls import TlsConnection
from runner.channel.link.transport import Accept, Bounds, Connection, DownError, Listener, Transport, cannot_listen
from runner.spec.model import Network

__all__ = ["TcpTransport", "reason"]

_HANDSHAKE_S = 10.0
_CONNECT_S = 10.0
_BUSY = {errno.EADDRINUSE}


class _Taken(asyncio.Protocol):
    """asyncio finds the address and connects, or accepts; the socket is then taken from it."""

    def __init__(self, bounds: Bounds, on_made: Callable[[Connection], None]) -> None:
        self._bounds = bounds
        self._on_made = on_made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio. Nothing is read before this returns, and the transport closes only its own descriptor."""
        assert isinstance(transport, asyncio.Transport)
        theirs = transport.get_extra_info("socket")
        ours = socket.socket(fileno=os.dup(theirs.fileno()))
        ours.settimeout(0)
        transport.abort()
        self._on_made(SocketConnection(ours, self._bounds))


def _protocol(protected: bool, bounds: Bounds, on_made: Callable[[Connection], None]) -> asyncio.BaseProtocol:
    return TlsConnection(bounds, on_made) if protected else _Taken(bounds, on_made)


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
            partial(_protocol, context is not None, self._bounds, self._made),
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_S if context is not None else None,
            reuse_address=True,
        )
        self.address = f"{self._scheme}://{named(self._server.sockets[0].getsockname())}"

    def _made(self, connection: Connection) -> None:
        if len(self._handling) >= self._bounds.strangers:
            connection.close("too many connections are open")
            return
        task = asyncio.get_running_loop().create_task(self._handle(connection))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, connection: Connection) -> None:
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
        self.address = f"{self.scheme}://{named((self._host, self._port))}"
        self._client = None if network.tls is None else tls.connecting(network.tls)

    async def connect(self) -> Connection:
        """See `Transport`."""
        loop = asyncio.get_running_loop()
        name = None if self._tls is None else self._tls.name or self._host
        made: list[Connection] = []
        protocol = partial(_protocol, self._tls is not None, self._bounds, made.append)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await loop.create_connection(protocol, self._host, self._port, ssl=self._client, server_hostname=name)
        except TimeoutError as error:
            raise DownError(f"no answer within {_CONNECT_S:.0f} s") from error
        except (OSError, ssl.SSLError) as error:
            hint = "; does it speak TLS?" if self._tls is not None and isinstance(error, ConnectionError) else ""
            raise DownError(reason(error) + ("" if isinstance(error, ConnectionRefusedError) else hint)) from error
        except asyncio.CancelledError:
            for connection in made:
                connection.close("nobody waits for it any more")
            raise
        return made[0]

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


def _remedy(error: OSError) -> str | None:
    if error.errno == errno.EADDRNOTAVAIL:
        return "a runner listens at an address of its own machine"
    if error.errno == errno.EACCES:
        return "take a port from 1024 on"
    return None
