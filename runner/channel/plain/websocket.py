"""Plain peers over websockets: one message is one message there, text where it is UTF-8, else binary."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runner.channel import tls
from runner.channel.link.tcp import reason
from runner.channel.link.transport import DownError, RefusedError
from runner.channel.link.websocket import not_connected
from runner.channel.plain.base import Handle, Meeting, Peer, dial
from runner.channel.plain.tcp import framed
from runner.channel.plain.web import base_url, may, served
from runner.codec.base import Batch, Codec
from runner.errors import RunnerError
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientWebSocketResponse, web

_CONNECT_S = 10.0
_CLOSE_S = 2.0
_HEARTBEAT_S = 20.0


class WebsocketPeer(Peer):
    """One websocket, of either side."""

    def __init__(
        self,
        websocket: ClientWebSocketResponse | web.WebSocketResponse,
        codec: Codec,
        remote: str,
        session: ClientSession | None = None,
    ) -> None:
        self.remote = remote
        self._websocket = websocket
        self._codec = codec
        self._session = session
        self._closing: asyncio.Task[Any] | None = None

    async def read(self) -> Batch | None:
        """See `Peer`."""
        from aiohttp import WSMsgType

        message = await self._websocket.receive()
        if message.type is WSMsgType.TEXT:
            return framed(self._codec, message.data.encode())
        if message.type is WSMsgType.BINARY:
            return framed(self._codec, message.data)
        if message.type is WSMsgType.ERROR:
            raise DownError(reason(message.data))
        if self._websocket.close_code in {1000, 1001, 1005}:  # RFC 6455, 7.4.1: normal, going away, none given
            return None
        raise DownError(f"it was closed with status {self._websocket.close_code}")

    async def write(self, batch: Batch) -> None:
        """See `Peer`."""
        if self._websocket.closed:
            raise DownError("it has closed the connection")
        try:
            for payload in self._codec.payloads(batch):
                try:
                    text = payload.decode()
                except UnicodeDecodeError:
                    await self._websocket.send_bytes(payload)
                else:
                    await self._websocket.send_str(text)
        except (OSError, RuntimeError) as error:
            raise DownError(reason(error)) from error

    async def finish(self) -> None:
        """See `Peer`."""
        await self._websocket.close()
        if self._session is not None:
            await self._session.close()

    def close(self) -> None:
        """See `Peer`."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._websocket.close()
        if self._session is not None:
            await self._session.close()


class WebsocketMeeting(Meeting):
    """A server with one path, or a client of one."""

    def __init__(self, network: Network, codec: Codec, *, listens: bool, writes_here: bool) -> None:
        self._network = network
        self._codec = codec
        self._listens = listens
        self._writes_here = writes_here
        self.address = base_url(network, "ws") + network.path

    async def meet(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        """See `Meeting`."""
        if not self._listens:
            await dial(self._connect, handle, tell)
            return
        await served(self._network, [("GET", self._network.path, lambda request: self._accept(request, handle))], tell)

    async def _accept(self, request: web.Request, handle: Handle) -> web.StreamResponse:
        from aiohttp import web

        if (refusal := may(self._network, request)) is not None:
            return refusal
        websocket = web.WebSocketResponse(
            max_msg_size=self._network.max_message_bytes, heartbeat=_HEARTBEAT_S, compress=False
        )
        if not websocket.can_prepare(request).ok:
            return web.Response(status=426, text="a websocket is spoken here\n", headers={"Upgrade": "websocket"})
        await websocket.prepare(request)
        peer = WebsocketPeer(websocket, self._codec, str(request.remote))
        listening = asyncio.create_task(_until_closed(websocket)) if self._writes_here else None
        try:
            handling = asyncio.ensure_future(handle(peer))
            await asyncio.wait([handling, *([listening] if listening else [])], return_when=asyncio.FIRST_COMPLETED)
            if not handling.done():
                handling.cancel()
                await asyncio.gather(handling, return_exceptions=True)
        finally:
            if listening is not None:
                listening.cancel()
            with contextlib.suppress(OSError, RuntimeError):
                await websocket.close()
        return websocket

    async def _connect(self) -> Peer:
        import aiohttp

        network = self._network
        headers = {} if network.token is None else {"Authorization": f"Bearer {network.token}"}
        session = aiohttp.ClientSession()
        try:
            async with asyncio.timeout(_CONNECT_S):
                websocket = await session.ws_connect(
                    self.address,
                    headers=headers,
                    max_msg_size=network.max_message_bytes,
                    heartbeat=_HEARTBEAT_S,
                    ssl=True if network.tls is None else tls.connecting(network.tls),
                    server_hostname=None if network.tls is None else network.tls.name,
                )
        except BaseException as error:
            await session.close()
            down = not_connected(error)
            if isinstance(down, RefusedError):
                raise RunnerError(f"{self.address} cannot be joined: {down}") from error
            raise down from error
        return WebsocketPeer(websocket, self._codec, self.address, session)


async def _until_closed(websocket: web.WebSocketResponse) -> None:
    """What a reader says is not for us; its end is."""
    async for _ in websocket:
        pass
