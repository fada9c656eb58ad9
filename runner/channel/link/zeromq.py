"""A link's frames over ZeroMQ: a DEALER connects to a ROUTER, with CURVE where there are keys.

ZeroMQ connects again by itself and says nothing of it. So each connection of a link has a socket of its own at the side
that connects, and with it an identity that the other side tells it by; silence is noticed by the link's pings.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.channel.link.arrived import Arrived
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
from runner.errors import RunnerError
from runner.spec.model import Network
from runner.spec.protection import curve_files

if TYPE_CHECKING:
    import zmq.asyncio

_CONNECT_S = 5.0
_HANDSHAKE_S = 10.0
_SILENT_S, _ASK_AGAIN_S, _ASKS = 15, 5, 3
"""A socket would keep a connection for ever whose other end is gone without a word: the kernel asks (tcp(7)).

ZeroMQ's own heartbeat would do it, and ends the whole process when a connection breaks while its socket is full (libzmq
4.3.5, "Assertion failed: !_io_error": https://github.com/zeromq/libzmq/issues/4767).
"""
_HELLO, _CLOSE = b"\x00connector", b"\x01close"
_QUEUED = 4
"""Messages that a socket holds in each direction; a frame is up to about 256 KiB."""
_MOST_WAITING_BYTES = 4 << 20
"""More of one connection does not wait to be received; those beside it wait as well then."""
_SEALED_BYTES = 256
"""More than what CURVE adds to a message."""
_CURVE_BYTES = 40
"""A key as text."""


class _Dealer(Connection):
    """The side that connects."""

    def __init__(self, socket: zmq.asyncio.Socket, remote: str) -> None:
        self.remote = remote
        self._socket = socket
        self._why: str | None = None
        self._broken = asyncio.Event()

    async def send(self, *parts: Buffer) -> None:
        """See `Connection`."""
        self._check_open()
        await self._unless_closed(self._socket.send_multipart([b"".join(parts)], copy=False))

    async def receive(self) -> Buffer:
        """See `Connection`."""
        self._check_open()
        frames = await self._unless_closed(self._socket.recv_multipart())
        if len(frames) != 1 or frames[0] == _CLOSE:
            self._down("it sends what is no frame" if len(frames) != 1 else "it has closed the connection")
            raise DownError(self._why or "")
        return frames[0]

    def _check_open(self) -> None:
        if self._why is not None:
            raise DownError(self._why)

    async def _unless_closed(self, acting: Awaitable[Any]) -> list[bytes]:
        act = asyncio.ensure_future(acting)
        broken = asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait((act, broken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            broken.cancel()
            if not act.done():
                act.cancel()
        if self._why is not None and (not act.done() or act.cancelled()):
            raise DownError(self._why)
        result: list[bytes] = act.result()
        return result

    def close(self, why: str) -> None:
        """See `Connection`."""
        self._down(why)
        if not self._socket.closed:
            _say(self._socket, [_CLOSE])
            self._socket.close(linger=100)

    async def finish(self) -> None:
        """See `Connection`."""
        if not self._socket.closed:
            with contextlib.suppress(DownError):
                await self._unless_closed(self._socket.send_multipart([_CLOSE]))
            self._socket.close(linger=1000)

    def _down(self, why: str) -> None:
        if self._why is None:
            self._why = why
        self._broken.set()


class _Routed(Connection):
    """One identity at the side that listens."""

    def __init__(self, listener: _Router, identity: bytes) -> None:
        self.remote = f"zeromq peer {identity.hex()}"
        self.arrived = Arrived(resume=listener.taken, most_bytes=_MOST_WAITING_BYTES)
        self._listener = listener
        self._identity = identity

    async def send(self, *parts: Buffer) -> None:
        """See `Connection`."""
        if self.arrived.why is not None:
            raise DownError(self.arrived.why)
        await self._listener.send(self._identity, b"".join(parts))

    async def receive(self) -> Buffer:
        """See `Connection`."""
        return await self.arrived.receive()

    async def hand_to(self, take: Callable[[Buffer], None]) -> None:
        """See `Connection`."""
        await self.arrived.hand_to(take)

    def put(self, frame: bytes) -> None:
        """A frame has come."""
        if frame == _CLOSE:
            self.arrived.end("it has closed the connection")
        else:
            self.arrived.put(frame)

    def close(self, why: str) -> None:
        """See `Connection`."""
        if self.arrived.why is None:
            self._listener.say(self._identity, _CLOSE)
        self.arrived.end(why)
        self._listener.forget(self._identity)

    async def finish(self) -> None:
        """See `Connection`."""
        if self.arrived.why is None:
            with contextlib.suppress(DownError):
                await self._listener.send(self._identity, _CLOSE)
        self.close("it is over")


class _Router(Listener):
    """A ROUTER socket, and who has come to it."""

    def __init__(self, socket: zmq.asyncio.Socket, gate: Gate | None, accept: Accept, bounds: Bounds) -> None:
        import zmq

        self.address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._socket = socket
        self._gate = gate
        self._accept = accept
        self._bounds = bounds
        self._connections: dict[bytes, _Routed] = {}
        self._handling: set[asyncio.Task[None]] = set()
        self._taken = asyncio.Event()
        self._closing = asyncio.Event()
        self._sending = asyncio.Lock()
        self._receiving = asyncio.get_running_loop().create_task(self._receive())

    async def _receive(self) -> None:
        while True:
            identity, *frames = await self._socket.recv_multipart()
            connection = self._connections.get(identity)
            if connection is None:
                connection = self._begin(identity, frames)
            elif len(frames) == 1:
                connection.put(frames[0])
                while connection.arrived.paused and identity in self._connections:
                    self._taken.clear()
                    await self._taken.wait()

    def _begin(self, identity: bytes, frames: list[bytes]) -> _Routed | None:
        """Whoever says hello gets a connection; anybody else is told that there is none."""
        if frames != [_HELLO] or len(self._connections) >= self._bounds.strangers or self._closing.is_set():
            if frames != [_CLOSE]:
                self.say(identity, _CLOSE)
            return None
        connection = self._connections[identity] = _Routed(self, identity)
        self.say(identity, _HELLO)
        task = asyncio.get_running_loop().create_task(self._handle(connection))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        return connection

    async def _handle(self, connection: _Routed) -> None:
        try:
            await self._accept(connection)
        finally:
            connection.close("it is over")
            if self._closing.is_set() and not self._connections:
                self._end()

    async def send(self, identity: bytes, frame: bytes) -> None:
        """To one that has come; one that has gone is not there any more. Raises DownError."""
        import zmq

        try:
            async with self._sending:
                await self._socket.send_multipart([identity, frame], copy=False)
        except zmq.ZMQError as error:
            raise DownError("it is not there any more") from error

    def say(self, identity: bytes, frame: bytes) -> None:
        """The same without waiting; lost when it cannot be sent."""
        if not self._socket.closed:
            _say(self._socket, [identity, frame])

    def taken(self) -> None:
        """Somebody has received a frame."""
        self._taken.set()

    def forget(self, identity: bytes) -> None:
        """Its connection is over."""
        self._connections.pop(identity, None)
        self._taken.set()

    async def close(self) -> None:
        """See `Listener`: the socket goes with the last of those who have come."""
        self._closing.set()
        if not self._connections:
            self._end()

    def _end(self) -> None:
        self._receiving.cancel()
        if not self._socket.closed:
            self._socket.close(linger=1000)
            if self._gate is not None:
                self._gate.close()


class ZeromqTransport(Transport):
    """See the module."""

    def __init__(self, network: Network, bounds: Bounds) -> None:
        self._bounds = bounds
        self._keys = network.keys
        host = network.host or "127.0.0.1"
        self.address = f"tcp://{f'[{host}]' if ':' in host else host}:{network.port}"

    def _socket(self, kind: int, context: zmq.asyncio.Context | None = None) -> zmq.asyncio.Socket:
        import zmq
        import zmq.asyncio

        socket = (context or zmq.asyncio.Context.instance()).socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.SNDHWM, _QUEUED)
        socket.setsockopt(zmq.RCVHWM, _QUEUED)
        socket.setsockopt(zmq.MAXMSGSIZE, self._bounds.frame_bytes + _SEALED_BYTES)
        socket.setsockopt(zmq.SNDBUF, MOST_UNSENT_BYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(_HANDSHAKE_S * 1000))
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _SILENT_S)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _ASK_AGAIN_S)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _ASKS)
        return socket

    async def connect(self) -> Connection:
        """See `Transport`."""
        import zmq

        keys = None if self._keys is None else curve_keys(self._keys, listens=False)
        socket = self._socket(zmq.DEALER)
        if keys is not None:
            keys.give(socket)
        connection = _Dealer(socket, self.address)
        try:
            socket.connect(self.address)
            async with asyncio.timeout(_CONNECT_S):
                await connection.send(_HELLO)
                answer = await connection.receive()
        except TimeoutError as error:
            connection.close("nobody answers")
            raise DownError("nobody answers" + ("" if keys is None else "; are the keys the same?")) from error
        except zmq.ZMQError as error:
            connection.close(str(error))
            raise DownError(str(error).lower()) from error
        except BaseException:
            connection.close("it was given up")
            raise
        if answer != _HELLO:
            connection.close("it is no runner")
            raise DownError("who answers is no runner")
        return connection

    async def listen(self, accept: Accept) -> Listener:
        """See `Transport`."""
        import zmq

        keys = None if self._keys is None else curve_keys(self._keys, listens=True)
        gate = None if keys is None else Gate(keys.other)
        socket = self._socket(zmq.ROUTER, None if gate is None else gate.context)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if keys is not None:
            keys.give(socket)
        try:
            socket.bind(self.address)
        except zmq.ZMQError as error:
            socket.close()
            if gate is not None:
                gate.close()
            if error.errno == zmq.EADDRINUSE:
                raise DownError("somebody else listens there") from error
            raise cannot_listen(self.address, str(error).lower()) from error
        return _Router(socket, gate, accept, self._bounds)


def _say(socket: zmq.asyncio.Socket, parts: list[bytes]) -> None:
    """Send without waiting; who is not there, or has no room, is not told."""
    import zmq

    with contextlib.suppress(zmq.ZMQError):
        zmq.Socket.shadow(socket.underlying).send_multipart(parts, flags=zmq.NOBLOCK)


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """The keys of one side: its own pair, and the other's public key."""

    public: bytes
    secret: bytes
    other: bytes
    listens: bool

    def __repr__(self) -> str:
        return "CurveKeys(…)"  # the secret one must not come out in somebody's traceback

    def give(self, socket: zmq.asyncio.Socket) -> None:
        """Let `socket` use them, before it binds or connects."""
        if self.listens:
            socket.curve_server = True
        else:
            socket.curve_serverkey = self.other
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret


def curve_keys(folder: Path, *, listens: bool) -> CurveKeys:
    """The keys of one side, from a folder in which what the other side alone needs may be missing.

    Raises RunnerError.
    """
    public, secret, other = (_curve_key(folder / name) for name in curve_files(listens=listens))
    return CurveKeys(public, secret, other, listens)


def _curve_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            key = file.read(_CURVE_BYTES + 2).strip()
    except OSError as error:
        raise RunnerError(
            f"the key {path} cannot be read: {error.strerror}", remedy="connector keys makes some"
        ) from error
    if len(key) != _CURVE_BYTES:
        raise RunnerError(f"what is in {path} is no CURVE key", remedy="connector keys makes some")
    return key


class Gate:
    """A context whose listener lets in only who has a certain key; ZeroMQ asks one such gate for each context."""

    def __init__(self, client: bytes) -> None:
        import zmq.asyncio
        from zmq.auth.asyncio import AsyncioAuthenticator

        self.context = zmq.asyncio.Context()
        self._asked = AsyncioAuthenticator(self.context)
        self._asked.start()
        self._asked.certs["*"] = {client: True}

    def close(self) -> None:
        """After its listener has been closed."""
        self._asked.stop()
        asyncio.get_running_loop().run_in_executor(None, self.context.term)  # waits for what lingers
