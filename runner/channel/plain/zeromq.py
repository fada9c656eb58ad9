"""Plain peers over ZeroMQ: this end PUSHes what is written here, or PULLs what is read; a message is one part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from runner.channel.link.transport import DownError, cannot_listen
from runner.channel.link.zeromq import Gate, curve_keys
from runner.channel.plain.base import Handle, Meeting, Peer
from runner.channel.plain.tcp import framed
from runner.codec.base import Batch, Codec
from runner.spec.model import Network

if TYPE_CHECKING:
    import zmq.asyncio

_MOST_AT_ONCE = 256


class ZeromqPeer(Peer):
    """Whoever is behind the socket; the library does not say who, or whether anybody is."""

    def __init__(self, socket: zmq.asyncio.Socket, codec: Codec, address: str) -> None:
        self.remote = address
        self._socket = socket
        self._codec = codec

    async def read(self) -> Batch | None:
        """See `Peer`."""
        import zmq

        payloads = []
        parts = await self._socket.recv_multipart()
        while True:
            if len(parts) != 1:
                raise DownError("a message of several parts is no message of a channel")
            payloads.append(parts[0])
            if len(payloads) == _MOST_AT_ONCE or not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                break
            parts = await self._socket.recv_multipart()
        if len(payloads) == 1:
            return framed(self._codec, payloads[0])
        return self._codec.batch_of(payloads)

    async def write(self, batch: Batch) -> None:
        """See `Peer`: handed over is what the library has taken; it takes nothing while nobody is there."""
        for payload in self._codec.payloads(batch):
            await self._socket.send(payload)

    async def finish(self) -> None:
        """See `Peer`."""
        self._socket.close(linger=2000)

    def close(self) -> None:
        """See `Peer`."""
        if not self._socket.closed:
            self._socket.close(linger=1000)


class ZeromqMeeting(Meeting):
    """One socket."""

    def __init__(self, network: Network, codec: Codec, *, listens: bool, writes_here: bool) -> None:
        self._network = network
        self._codec = codec
        self._listens = listens
        self._pushes = writes_here
        host = network.host or "127.0.0.1"
        self.address = f"tcp://{f'[{host}]' if ':' in host else host}:{network.port}"
        self._keys = None if network.keys is None else curve_keys(network.keys, listens=listens)

    async def meet(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        """See `Meeting`."""
        import zmq
        import zmq.asyncio

        gate = None if self._keys is None or not self._listens else Gate(self._keys.other)
        context = zmq.asyncio.Context.instance() if gate is None else gate.context
        socket = context.socket(zmq.PUSH if self._pushes else zmq.PULL)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, 16)
        socket.setsockopt(zmq.RCVHWM, 1000)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, self._network.max_message_bytes)
        if self._keys is not None:
            self._keys.give(socket)
        try:
            await self._open(socket, tell)
            tell(None)
            await handle(ZeromqPeer(socket, self._codec, self.address))
            await asyncio.get_running_loop().create_future()
        finally:
            if not socket.closed:
                socket.close(linger=1000)
            if gate is not None:
                gate.close()

    async def _open(self, socket: zmq.asyncio.Socket, tell: Callable[[str | None], None]) -> None:
        import zmq

        if not self._listens:
            socket.connect(self.address)
            return
        while True:
            try:
                socket.bind(self.address)
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise cannot_listen(self.address, str(error).lower()) from error
                tell("somebody else listens there")
                await asyncio.sleep(0.25)
            else:
                return
