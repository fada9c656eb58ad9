"""What tcp and websockets have in common: asyncio finds the address and connects, or accepts, with TLS or without."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from runner.channel import tls
from runner.channel.link.framed import FramedConnection
from runner.channel.link.framing import Framing
from runner.channel.link.reasons import named, reason
from runner.channel.link.tcp_socket import SocketConnection
from runner.channel.link.tcp_tls import TlsConnection
from runner.channel.link.transport import Bounds, DownError, Listener, Transport, cannot_listen
from runner.spec.model import Network


def taken_over(transport: asyncio.Transport, framing: Framing) -> FramedConnection:
    """A connection in place of the protocol that `transport` had, of which nothing may wait to be sent.

    Without TLS the socket is taken from it, and it closes only its own descriptor. Nothing is read before this returns.
    """
    if transport.get_extra_info("sslcontext") is not None:
        sealed = TlsConnection(framing)
        transport.set_protocol(sealed)
        sealed.connection_made(transport)
        return sealed
    theirs = transport.get_extra_info("socket")
    ours = socket.socket(fileno=os.dup(theirs.fileno()))
    ours.settimeout(0)
    transport.abort()
    return SocketConnection(ours, framing)


class StreamListener(Listener):
    """A listening socket. Whatever comes by it is handled in a task of its own."""

    def __init__(self) -> None:
        self.address = ""
        self.server: asyncio.Server | None = None
        self.handling: set[asyncio.Task[None]] = set()

    def handle(self, handling: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """In a task that is this listener's until it is done."""
        task = asyncio.get_running_loop().create_task(handling)
        self.handling.add(task)
        task.add_done_callback(self.handling.discard)
        return task

    async def close(self) -> None:
        """See `Listener`."""
        if self.server is not None:
            self.server.close()


class StreamTransport(Transport):
    """Of an address that is a host and a port."""

    def __init__(self, scheme: str, network: Network, bounds: Bounds) -> None:
        self._host = network.host or "127.0.0.1"
        self._port = network.port
        self._network = network
        self._bounds = bounds
        self._client = None if network.tls is None else tls.connecting(network.tls)
        self.address = f"{scheme}://{named((self._host, self._port))}"

    async def _dial(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Connect; `protocol` is called once and gets the connection. Raises DownError."""
        name = None if self._network.tls is None else self._network.tls.name or self._host
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(protocol, self._host, self._port, ssl=self._client, server_hostname=name)
        except TimeoutError:
            raise
        except (OSError, ssl.SSLError) as error:
            hint = "; does it speak TLS?" if self._client is not None and isinstance(error, ConnectionError) else ""
            raise DownError(reason(error) + ("" if isinstance(error, ConnectionRefusedError) else hint)) from error

    async def _bind(
        self, listener: StreamListener, protocol: Callable[[], asyncio.BaseProtocol], handshake_s: float
    ) -> None:
        """Let `listener` listen. Raises as `Transport.listen` does."""
        context = None if self._network.tls is None else tls.listening(self._network.tls)
        try:
            listener.server = await asyncio.get_running_loop().create_server(
                protocol,
                self._host,
                self._port,
                ssl=context,
                ssl_handshake_timeout=None if context is None else handshake_s,
                reuse_address=True,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise DownError("somebody else listens there") from error
            raise cannot_listen(self.address, reason(error), _remedy(error)) from error
        here = named(listener.server.sockets[0].getsockname())
        listener.address = self.address.replace(named((self._host, self._port)), here, 1)


def no_answer(connect_s: float) -> DownError:
    """Nobody has answered."""
    return DownError(f"no answer within {connect_s:.0f} s")


def _remedy(error: OSError) -> str | None:
    if error.errno == errno.EADDRNOTAVAIL:
        return "a runner listens at an address of its own machine"
    if error.errno == errno.EACCES:
        return "take a port from 1024 on"
    return None
