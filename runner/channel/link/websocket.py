"""A link's frames as binary websocket messages (RFC 6455), by aiohttp, with TLS and a token where they are given."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import ssl
from typing import TYPE_CHECKING, Any

from runner.channel import tls
from runner.channel.link.tcp import reason
from runner.channel.link.transport import (
    MOST_UNSENT_BYTES,
    Accept,
    Bounds,
    Connection,
    DownError,
    Listener,
    RefusedError,
    Transport,
    cannot_listen,
)
from runner.codec.base import Buffer
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientWebSocketResponse, web

_CONNECT_S = 10.0
_CLOSE_S = 1.0
_REFUSED_FOR_GOOD = 3
_REFUSALS = {401: "it wants another token", 404: "there is no such path", 403: "it wants nothing of this runner"}


class WebsocketConnection(Connection):
    """One websocket, of either side."""

    def __init__(
        self, websocket: ClientWebSocketResponse | web.WebSocketResponse, remote: str, session: ClientSession | None
    ) -> None:
        self.remote = remote
        self._websocket = websocket
        self._session = session
        self._why: str | None = None
        self._closing: asyncio.Task[Any] | None = None
        self._broken = asyncio.Event()

    async def send(self, *parts: Buffer) -> None:
        """See `Connection`."""
        if self._why is not None:
            raise DownError(self._why)
        try:
            await self._websocket.send_bytes(b"".join(parts))
        except (OSError, RuntimeError) as error:
            self._down(reason(error))
            raise DownError(self._why or "") from error

    async def receive(self) -> Buffer:
        """See `Connection`."""
        from aiohttp import WSMsgType

        if self._why is not None:
            raise DownError(self._why)
        message = await self._websocket.receive()
        if message.type is WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if self._why is None:
            self._down(_said(message, self._websocket.close_code))
        raise DownError(self._why or "")

    def close(self, why: str) -> None:
        """See `Connection`."""
        self._down(why)
        transport = _transport_of(self._websocket)
        if transport is not None:
            transport.abort()
        if self._session is not None and self._closing is None:
            self._websocket._response.close()  # type: ignore[union-attr]  # noqa: SLF001 - `close` would wait for an answer
            self._closing = asyncio.get_running_loop().create_task(self._session.close())

    async def finish(self) -> None:
        """See `Connection`."""
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._websocket.close()
        if self._session is not None:
            await self._session.close()

    def _down(self, why: str) -> None:
        if self._why is None:
            self._why = why


def _transport_of(websocket: object) -> asyncio.Transport | None:
    """What is below it; aiohttp hides it in a different place on each side."""
    for way in (("_response", "connection", "transport"), ("_req", "transport")):
        found: Any = websocket
        for name in way:
            found = getattr(found, name, None)
        if isinstance(found, asyncio.Transport):
            return found
    return None


def _said(message: Any, code: int | None) -> str:
    """Why no more comes, by what came last."""
    from aiohttp import WSMsgType

    if message.type is WSMsgType.ERROR:
        return reason(message.data)
    if message.type is WSMsgType.TEXT:
        return "it sends text where frames are due"
    if code == 1009:  # RFC 6455, 7.4.1: too big
        return "a frame was longer than is allowed"
    return "it has closed the connection"


def _logger() -> logging.Logger:
    """Says what aiohttp says, but for requests that are none: whoever comes by could fill the log with tracebacks."""
    from aiohttp.http_exceptions import HttpProcessingError

    def is_ours(record: logging.LogRecord) -> bool:
        return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)

    logger = logging.Logger("runner.channel.link.websocket")  # noqa: LOG001 - its filter is for this listener
    logger.parent = logging.getLogger("aiohttp.server")
    logger.addFilter(is_ours)
    return logger


class _Silent:
    """Connections over which no request has come yet, for which aiohttp itself would wait for ever."""

    def __init__(self) -> None:
        self._dropping: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    def made(self, protocol: web.RequestHandler) -> web.RequestHandler:
        """A new one."""
        self._dropping[protocol] = asyncio.get_running_loop().call_later(_CONNECT_S, self._drop, protocol)
        return protocol

    def asked(self, protocol: web.RequestHandler) -> None:
        """A request has come over it."""
        dropping = self._dropping.pop(protocol, None)
        if dropping is not None:
            dropping.cancel()

    def _drop(self, protocol: web.RequestHandler) -> None:
        del self._dropping[protocol]
        if protocol.transport is not None:
            protocol.transport.abort()


class _WebsocketListener(Listener):
    """aiohttp's server, with one path."""

    def __init__(self, server: asyncio.Server, runner: web.AppRunner, address: str) -> None:
        self.address = address
        self._server = server
        self._runner = runner

    async def close(self) -> None:
        """See `Listener`."""
        self._server.close()
        await self._runner.cleanup()


class WebsocketTransport(Transport):
    """See the module."""

    def __init__(self, network: Network, bounds: Bounds) -> None:
        self._network = network
        self._bounds = bounds
        self._host = network.host or "127.0.0.1"
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._scheme = "ws" if network.tls is None else "wss"
        self.address = f"{self._scheme}://{host}:{network.port}{network.path}"
        self._client = None if network.tls is None else tls.connecting(network.tls)
        self._open = 0
        self._refused = 0

    async def connect(self) -> Connection:
        """See `Transport`."""
        import aiohttp

        headers = {} if self._network.token is None else {"Authorization": f"Bearer {self._network.token}"}
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        name = None if self._network.tls is None else self._network.tls.name
        try:
            async with asyncio.timeout(_CONNECT_S):
                websocket = await session.ws_connect(
                    self.address,
                    headers=headers,
                    max_msg_size=self._bounds.frame_bytes + 1,
                    compress=0,
                    ssl=True if self._client is None else self._client,
                    server_hostname=name,
                )
        except BaseException as error:
            await session.close()
            raise self._believed(not_connected(error)) from error
        self._refused = 0
        writer = getattr(websocket, "_writer", None)
        if writer is not None:
            writer._limit = MOST_UNSENT_BYTES  # noqa: SLF001 - aiohttp waits after 64 KiB, on the client's side too
        return WebsocketConnection(websocket, self.address, session)

    def _believed(self, error: BaseException) -> BaseException:
        """A refusal ends the run, and has no checksum: it has to be heard more than once."""
        self._refused = self._refused + 1 if isinstance(error, RefusedError) else 0
        if isinstance(error, RefusedError) and self._refused < _REFUSED_FOR_GOOD:
            return DownError(str(error))
        return error

    async def listen(self, accept: Accept) -> Listener:
        """See `Transport`."""
        from aiohttp import web

        silent = _Silent()

        async def handle(request: web.Request) -> web.StreamResponse:
            silent.asked(request.protocol)
            if not self._may(request.headers.get("Authorization", "")):
                return web.Response(status=401, text="a token is needed\n", headers={"WWW-Authenticate": "Bearer"})
            if self._open >= self._bounds.strangers:
                return web.Response(status=503, text="too many connections are open\n")
            websocket = web.WebSocketResponse(
                max_msg_size=self._bounds.frame_bytes + 1, compress=False, writer_limit=MOST_UNSENT_BYTES
            )
            try:
                await websocket.prepare(request)
            except (ConnectionError, ValueError):  # it is gone already; a header is no text
                return web.Response(status=400)
            connection = WebsocketConnection(websocket, str(request.remote), None)
            self._open += 1
            try:
                await accept(connection)
            finally:
                self._open -= 1
                connection.close("it is over")
            return websocket

        application = web.Application()
        application.router.add_get(self._network.path, handle)
        runner = web.AppRunner(
            application, access_log=None, logger=_logger(), handle_signals=False, shutdown_timeout=_CLOSE_S
        )
        await runner.setup()
        serving = runner.server
        assert serving is not None
        try:
            context = None if self._network.tls is None else tls.listening(self._network.tls)
            server = await asyncio.get_running_loop().create_server(
                lambda: silent.made(serving()),
                self._host,
                self._network.port,
                reuse_address=True,
                ssl=context,
                ssl_handshake_timeout=None if context is None else _CONNECT_S,
            )
        except BaseException as error:
            await runner.cleanup()
            if not isinstance(error, OSError):
                raise
            if error.errno == 98 or "in use" in str(error):  # asyncio makes an error of its own of EADDRINUSE
                raise DownError("somebody else listens there") from error
            raise cannot_listen(self.address, reason(error)) from error
        port = server.sockets[0].getsockname()[1]
        address = self.address.replace(f":{self._network.port}/", f":{port}/", 1)
        return _WebsocketListener(server, runner, address)

    def _may(self, header: str) -> bool:
        token = self._network.token
        return token is None or hmac.compare_digest(_bytes(header), _bytes(f"Bearer {token}"))


def _bytes(text: str) -> bytes:
    """Of a header: whatever bytes a stranger has sent."""
    return text.encode("utf-8", "surrogateescape")


def not_connected(error: BaseException) -> BaseException:
    """What an attempt to connect came to."""
    import aiohttp

    if isinstance(error, TimeoutError):
        return DownError(f"no answer within {_CONNECT_S:.0f} s")
    if isinstance(error, aiohttp.WSServerHandshakeError):
        why = _REFUSALS.get(error.status)
        return DownError(f"it answers with status {error.status}") if why is None else RefusedError(why)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return DownError(reason(error.certificate_error))
    if isinstance(error, aiohttp.ClientConnectorError):
        return DownError(reason(error.os_error))
    if isinstance(error, OSError | ssl.SSLError | aiohttp.ClientError):
        return DownError(reason(error))
    return error
