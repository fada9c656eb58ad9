"""Plain peers over ZeroMQ: this end PUSHes what is written here, or PULLs what is read; a message is one part."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from runner.channel.link.transport import DownError, cannot_listen
from runner.channel.link.zeromq import Gate, curve_keys
from runner.channel.plain.base import Host, Meeting, Peer
from runner.channel.plain.carried import leading
from runner.codec.base import EMPTY, Batch, Codec
from runner.codec.unfinished import too_long
from runner.errors import CodecError
from runner.spec.model import Network

if TYPE_CHECKING:
    import zmq.asyncio

_MOST_AT_ONCE, _MOST_AT_ONCE_BYTES = 256, 1 << 20
_QUEUED_BYTES = 256 << 20
_LEAST_QUEUED, _MOST_QUEUED = 16, 1000
_SENT_QUEUED = 16
_LOOK_AGAIN_S = 0.25


class PulledPeer(Peer):
    """Whoever pushes to the socket; the library does not say who."""

    goes_on = True

    def __init__(self, socket: zmq.asyncio.Socket, codec: Codec, address: str, most_message_bytes: int) -> None:
        self.remote = address
        self._socket = socket
        self._codec = codec
        self._most_message_bytes = most_message_bytes
        self._waiting: deque[list[bytes]] = deque()

    async def read(self) -> Batch | None:
        """See `Peer`."""
        import zmq

        if not self._waiting:
            size_bytes = 0
            while True:
                parts = await self._socket.recv_multipart()
                self._waiting.append(parts)
                size_bytes += sum(map(len, parts))
                full = len(self._waiting) >= _MOST_AT_ONCE or size_bytes >= _MOST_AT_ONCE_BYTES
                if full or not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                    break
        return self._good()

    def _good(self) -> Batch:
        """The waiting messages before the first bad one; when that is the first it is left out. Raises CodecError."""
        payloads: list[bytes] = []
        for parts in self._waiting:
            error = self._wrong(parts)
            if error is not None and not payloads:
                self._waiting.popleft()
                raise error
            if error is not None:
                break
            payloads.append(parts[0])
        try:
            batch = leading(self._codec, payloads)
        except CodecError:
            self._waiting.popleft()
            raise
        for _ in range(batch.count):
            self._waiting.popleft()
        return batch

    def _wrong(self, parts: list[bytes]) -> CodecError | None:
        if len(parts) != 1:
            return CodecError(f"it has {len(parts)} parts, and a message of a channel has one")
        if len(parts[0]) > self._most_message_bytes:
            return too_long(self._most_message_bytes, index=0, beginning=parts[0], size_bytes=len(parts[0]))
        return None

    async def finish(self) -> None:
        """See `Peer`: the meeting closes the socket."""

    def close(self) -> None:
        """See `Peer`: the meeting closes the socket."""


class PushedPeer(Peer):
    """Whoever pulls from the socket, as long as anybody is connected to it."""

    patient = True

    def __init__(self, socket: zmq.asyncio.Socket, codec: Codec, address: str, nobody: asyncio.Event) -> None:
        self.remote = address
        self._socket = socket
        self._codec = codec
        self._nobody = nobody

    async def read(self) -> Batch | None:
        """See `Peer`: nothing comes."""
        return EMPTY

    async def write(self, batch: Batch, number: int) -> None:
        """See `Peer`: handed over is what the library has taken."""
        del number
        gone = asyncio.ensure_future(self._nobody.wait())
        sending: asyncio.Future[Any] | None = None
        try:
            for payload in self._codec.payloads(batch):
                sending = asyncio.ensure_future(self._socket.send(payload))
                if not sending.done():
                    await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    raise DownError("nobody is connected any more")
                await sending
                self.handed += 1
        finally:
            gone.cancel()
            if sending is not None and not sending.done():
                sending.cancel()  # then the library does not get it

    async def gone(self) -> None:
        """See `Peer`."""
        await self._nobody.wait()

    async def finish(self) -> None:
        """See `Peer`: the meeting closes the socket, which sends what it has for a moment more."""

    def close(self) -> None:
        """See `Peer`: the meeting closes the socket."""


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

    async def meet(self, host: Host) -> None:
        """See `Meeting`."""
        import zmq
        import zmq.asyncio

        gate = None if self._keys is None or not self._listens else Gate(self._keys.other)
        context = zmq.asyncio.Context.instance() if gate is None else gate.context
        socket = context.socket(zmq.PUSH if self._pushes else zmq.PULL)
        self._set_options(socket, host)
        try:
            if self._pushes:
                await self._push(socket, host)
            else:
                await self._open(socket, host)
                host.tell(None)
                await host.handle(PulledPeer(socket, self._codec, self.address, self._network.max_message_bytes))
        finally:
            socket.close(linger=round(1000 * host.bounds.close_s))
            if gate is not None:
                gate.close()

    async def _push(self, socket: zmq.asyncio.Socket, host: Host) -> None:
        """A peer for as long as anybody is connected, again and again."""
        import zmq
        from zmq.utils.monitor import parse_monitor_message

        came, went = zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED, zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
        monitor = socket.get_monitor_socket(came | went)
        there, nobody, connected = asyncio.Event(), asyncio.Event(), set[int]()

        async def watch() -> None:
            while True:
                seen = parse_monitor_message(await monitor.recv_multipart())
                (connected.add if seen["event"] & came else connected.discard)(seen["value"])
                (there.set if connected else there.clear)()
                (nobody.clear if connected else nobody.set)()

        try:
            await self._open(socket, host)
            async with asyncio.TaskGroup() as group:
                group.create_task(watch())
                while True:
                    await there.wait()
                    host.tell(None)
                    await host.handle(PushedPeer(socket, self._codec, self.address, nobody))
                    host.tell("nobody is connected")
        finally:
            socket.disable_monitor()
            monitor.close(linger=0)

    def _set_options(self, socket: zmq.asyncio.Socket, host: Host) -> None:
        """The library counts messages, not bytes: so fewer, the longer they may be."""
        import zmq

        most = self._network.max_message_bytes
        if self._pushes:  # who pulls would lose with it what has come, as soon as its sender has gone
            socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, _SENT_QUEUED)
        socket.setsockopt(zmq.RCVHWM, max(_LEAST_QUEUED, min(_MOST_QUEUED, _QUEUED_BYTES // most)))
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * most)
        socket.setsockopt(zmq.RECONNECT_IVL, round(1000 * host.bounds.first_wait_s))
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, round(1000 * host.bounds.longest_wait_s))
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(1000 * host.bounds.handshake_s))
        if self._keys is not None:
            self._keys.give(socket)

    async def _open(self, socket: zmq.asyncio.Socket, host: Host) -> None:
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
                host.tell("somebody else listens there")
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
                host.listening(int(bound.rpartition(":")[2]))
                host.tell("nobody has come yet")
                return
