"""Plain peers over websockets: one message is one message there, text where it is UTF-8, else binary."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

from runner.channel import tls
from runner.channel.link.reasons import reason
from runner.channel.link.transport import DownError, RefusedError
from runner.channel.link.upgrade import answered
from runner.channel.plain.base import Host, Meeting, Peer, dial
from runner.channel.plain.bounds import Bounds
from runner.channel.plain.carried import framed
from runner.channel.plain.door import Visitor
from runner.channel.plain.frames import Frames
from runner.channel.plain.http import socket_of
from runner.channel.plain.line import Line
from runner.channel.plain.web import base_url, may, served, visitor_of
from runner.codec.base import Batch, Codec
from runner.errors import CodecError, RunnerError
from runner.spec.model import Network
from runner.units import format_size

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientWebSocketResponse, web

_BEAT_S = 20.0
"""Whoever is between closes connections on which nothing is said. aiohttp's own pings want an answer, which is not read
while the channel is full."""
_TOO_BIG, _UNSUPPORTED = 1009, 1003  # RFC 6455, 7.4.1
_IN_ORDER = {1000, 1001, 1005, 0}
"""Normal, going away, none given (which aiohttp calls 0)."""
_MOST_REASON_BYTES = 120


class WebsocketPeer(Peer):
    """One websocket, of either side."""

    def __init__(
        self,
        websocket: ClientWebSocketResponse | web.WebSocketResponse,
        codec: Codec,
        remote: str,
        network: Network,
        host: Host,
        *,
        visitor: Visitor | None = None,
        session: ClientSession | None = None,
    ) -> None:
        self.remote = remote
        self._websocket = websocket
        self._codec = codec
        self._most_message_bytes = network.max_message_bytes
        self._host = host
        self._visitor = visitor
        self._session = session
        self._closing: asyncio.Task[Any] | None = None
        self._finishing = False
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    async def read(self) -> Batch | None:
        """See `Peer`."""
        from aiohttp import WSMsgType

        message = await self._websocket.receive()
        if message.type is WSMsgType.TEXT:
            return framed(self._codec, message.data.encode())
        if message.type is WSMsgType.BINARY:
            return framed(self._codec, message.data)
        code = getattr(message.data, "code", None) if message.type is WSMsgType.ERROR else self._websocket.close_code
        if message.type is WSMsgType.ERROR and code == _TOO_BIG:
            most = format_size(self._most_message_bytes)
            raise CodecError(f"a message is longer than max_message ({most}): {message.data}".lower())
        if message.type is WSMsgType.ERROR:
            raise DownError(reason(message.data))
        if code in _IN_ORDER:
            return None
        raise DownError(f"it was closed with status {code}")

    async def write(self, batch: Batch, number: int) -> None:
        """See `Peer`, message by message."""
        del number
        try:
            for payload in self._codec.payloads(batch):
                if self._websocket.closed:
                    raise DownError("it has closed the connection")
                try:
                    text = payload.decode()
                except UnicodeDecodeError:
                    self.handed += 1
                    await self._websocket.send_bytes(payload)
                else:
                    self.handed += 1
                    await self._websocket.send_str(text)
                if self._visitor is not None:
                    await self._visitor.flushed()
        except (OSError, RuntimeError) as error:
            raise DownError(reason(error)) from error

    async def gone(self) -> None:
        """See `Peer`."""
        from aiohttp import WSMsgType

        ends = {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR}
        while (await self._websocket.receive()).type not in ends:
            pass
        if self._finishing:
            await asyncio.get_running_loop().create_future()  # `finish` does the rest

    async def _beat(self) -> None:
        """Say now and then that somebody is there."""
        while True:
            await asyncio.sleep(_BEAT_S)
            with contextlib.suppress(OSError, RuntimeError):
                await self._websocket.ping()

    async def finish(self) -> None:
        """See `Peer`."""
        self._finishing = True
        await self._websocket.close()
        if self._session is not None:
            await self._session.close()

    def reject(self, error: CodecError) -> None:
        """See `Peer`."""
        self.close(error)

    def close(self, error: CodecError | None = None) -> None:
        """See `Peer`."""
        self._beating.cancel()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(error))

    async def ended(self) -> None:
        """See `Peer`."""
        if self._closing is not None:
            await self._closing

    async def _close(self, error: CodecError | None) -> None:
        code, why = (1000, b"") if error is None else (_UNSUPPORTED, error.what.encode()[:_MOST_REASON_BYTES])
        closing = asyncio.ensure_future(self._websocket.close(code=code, message=_whole_text(why)))
        hurrying = asyncio.ensure_future(self._host.abandoned.wait())
        close_s = self._host.bounds.close_s
        await asyncio.wait({closing, hurrying}, timeout=close_s, return_when=asyncio.FIRST_COMPLETED)
        if self._visitor is not None:
            self._visitor.abort()
        elif not closing.done() and (transport := _transport(self._websocket)) is not None:
            transport.abort()  # else it would wait for the peer to take what was written
        for each in (closing, hurrying):
            each.cancel()
        await asyncio.gather(closing, hurrying, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def waits(self, *, for_us: bool) -> None:
        """See `Peer`."""
        if self._visitor is not None:
            self._visitor.busy = for_us
            assert isinstance(self._visitor.pending, _Pending)
            self._visitor.pending.look(again=True)


class _Pending:
    """Half a message of who came is bounded in bytes and time; not while he waits for us."""

    def __init__(self, visitor: Visitor, bounds: Bounds) -> None:
        self._visitor = visitor
        self._bounds = bounds
        self._frames = Frames()
        self._began_s: float | None = None
        """When his message began; None: all that came is whole."""

    def __call__(self, data: bytes) -> int:
        """See `Visitor.pending`."""
        self._frames.feed(data)
        self.look()
        return self._frames.pending_bytes

    def look(self, *, again: bool = False) -> None:
        """Bound how long the rest may take; `again`: from now on."""
        if not self._frames.begun:
            return  # that is the request's time
        now_s = asyncio.get_running_loop().time()
        if self._frames.whole or self._visitor.busy:
            self._visitor.expect(None)
            self._began_s = None
            return
        if self._began_s is None or again:
            self._began_s = now_s
        within_s, why = self._bounds.rest_of_message(self._began_s, now_s)
        self._visitor.expect(within_s, f"is let go: {why}")


class WebsocketMeeting(Meeting):
    """A server with one path, or a client of one."""

    def __init__(self, network: Network, codec: Codec, *, listens: bool, writes_here: bool) -> None:
        self._network = network
        self._codec = codec
        self._listens = listens
        self._writes_here = writes_here
        self.address = base_url(network, "ws") + network.path

    async def meet(self, host: Host) -> None:
        """See `Meeting`."""
        if not self._listens:
            await dial(lambda: self._connect(host), host)
            return
        route = ("GET", self._network.path, partial(self._accept, host=host))

        def came(line: Line) -> None:
            assert isinstance(line, Visitor)
            line.pending = _Pending(line, host.bounds)

        await served(self._network, [route], host, self.address, came)

    async def _accept(self, request: web.Request, host: Host) -> web.StreamResponse:
        from aiohttp import web

        if (refusal := may(self._network, request)) is not None:
            return refusal
        websocket = web.WebSocketResponse(
            max_msg_size=self._network.max_message_bytes + 1,
            compress=False,
            timeout=host.bounds.close_s,
        )
        if not websocket.can_prepare(request).ok:
            return web.Response(status=426, text="a websocket is spoken here\n", headers={"Upgrade": "websocket"})
        visitor = visitor_of(request)
        await websocket.prepare(request)
        peer = WebsocketPeer(websocket, self._codec, visitor.remote, self._network, host, visitor=visitor)
        peer.waits(for_us=self._writes_here)
        try:
            await host.handle(peer)
        finally:
            peer.close()
            await peer.ended()
        return websocket

    async def _connect(self, host: Host) -> Peer:
        import aiohttp

        network, bounds = self._network, host.bounds
        headers = {} if network.token is None else {"Authorization": f"Bearer {network.token}"}
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, socket_factory=socket_of))
        try:
            async with asyncio.timeout(bounds.connect_s):
                websocket = await session.ws_connect(
                    self.address,
                    headers=headers,
                    max_msg_size=network.max_message_bytes + 1,
                    timeout=aiohttp.ClientWSTimeout(ws_close=bounds.close_s),
                    ssl=True if network.tls is None else tls.connecting(network.tls),
                    server_hostname=None if network.tls is None else network.tls.name,
                )
        except BaseException as error:
            await session.close()
            down = _not_connected(error, bounds)
            if isinstance(down, RefusedError):
                raise RunnerError(f"{self.address} cannot be joined: {down}") from error
            raise down from error
        _flush_each(websocket)
        return WebsocketPeer(websocket, self._codec, self.address, network, host, session=session)


def _not_connected(error: BaseException, bounds: Bounds) -> BaseException:
    """What an attempt to connect came to."""
    import aiohttp

    if isinstance(error, TimeoutError):
        return DownError(f"no answer within {bounds.connect_s:.0f} s")
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return answered(error.status)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return DownError(reason(error.certificate_error))
    if isinstance(error, aiohttp.ClientConnectorError):
        return DownError(reason(error.os_error))
    if isinstance(error, OSError | ssl.SSLError | aiohttp.ClientError):
        return DownError(reason(error))
    return error


def _flush_each(websocket: ClientWebSocketResponse) -> None:
    """Let each message wait until the kernel has it: aiohttp's client waits after 64 KiB, whatever one sets."""
    websocket._writer._limit = 0  # noqa: SLF001
    if (transport := _transport(websocket)) is not None:
        sealed = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=int(sealed), low=0)


def _transport(websocket: ClientWebSocketResponse | web.WebSocketResponse) -> asyncio.Transport | None:
    """What a client's websocket is written to, as long as it is open."""
    response = getattr(websocket, "_response", None)
    connection = None if response is None else response.connection
    return None if connection is None else connection.transport


def _whole_text(data: bytes) -> bytes:
    """Without the half of a character at its end."""
    return data.decode(errors="ignore").encode()
