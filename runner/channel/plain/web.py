"""What websocket and http servers have in common: an address, a token, bounds, and who may come from a browser."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runner.channel.plain.base import Host
from runner.channel.plain.door import Door, Visitor
from runner.channel.plain.line import Line
from runner.spec.listeners import is_loopback
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import web

_Handle = Callable[["web.Request"], Awaitable["web.StreamResponse"]]
Route = tuple[str, str, _Handle]
_CLOSE_S = 1.0
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def base_url(network: Network, scheme: str) -> str:
    """The address without its path."""
    host = network.host or "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}{'' if network.tls is None else 's'}://{shown}:{network.port}"


def may(network: Network, request: web.Request) -> web.Response | None:
    """None where the request may be; else what it is told.

    With a token it shows that, in its header or (browsers) its query. Without one, whatever page a browser on this
    machine has open could ask, so only pages of this machine, or of the host that the channel's address names, may.
    """
    from aiohttp import web

    if network.token is None:
        page = _strange_page(network, request)
        return None if page is None else web.Response(status=403, text=f"{page} may not come here without a token\n")
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    shown = credentials.strip() if scheme.lower() == "bearer" else request.query.get("token", "")
    if hmac.compare_digest(shown.encode(errors="surrogateescape"), network.token.encode()):
        return None
    return web.Response(status=401, text="a token is needed\n", headers={"WWW-Authenticate": "Bearer"})


def _strange_page(network: Network, request: web.Request) -> str | None:
    """Which page of elsewhere a browser asks for; None: none that can be seen.

    A browser says it in `Origin`, but not where a page asks for a picture or follows a link (then new ones say
    `Sec-Fetch-Site`), nor where the page's own host is a name that somebody has made point to this machine.
    """
    origin = request.headers.get("Origin")
    if origin is not None:
        return None if is_own(network, origin) else f"pages of {origin}"
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return "pages of elsewhere"
    asks_by_name = request.method == "GET" and "Upgrade" not in request.headers
    if asks_by_name and is_loopback(network.host or "127.0.0.1") and not is_own(network, f"//{request.host}"):
        return f"pages of {request.host}, which is no name of this machine,"
    return None


def is_own(network: Network, origin: str) -> bool:
    """Whether it is of this machine, or of the host that the channel's address names."""
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    if host is None:
        return False
    if host in {"localhost", network.host}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _crossing(network: Network, methods: list[str]) -> tuple[_Handle, Callable[[web.Request, web.StreamResponse], Any]]:
    """What lets pages ask that may, and read what they are told (Fetch, 3.2): (before a request, with each answer)."""
    from aiohttp import web

    allowed = {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
        "Access-Control-Max-Age": "600",
    }

    def may_read(request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        return origin is not None and (network.token is not None or is_own(network, origin))

    async def before(request: web.Request) -> web.StreamResponse:
        return web.Response(status=204, headers=allowed) if may_read(request) else web.Response(status=403)

    async def with_answer(request: web.Request, answer: web.StreamResponse) -> None:
        if may_read(request):
            answer.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            answer.headers["Vary"] = "Origin"

    return before, with_answer


def visitor_of(request: web.Request) -> Visitor:
    """Who sent it. Raises ConnectionResetError when he has gone."""
    transport = request.transport
    visitor = None if transport is None else transport.get_protocol()
    if not isinstance(visitor, Visitor):
        raise ConnectionResetError("the connection was closed")
    return visitor


class _Told(logging.Handler):
    """What aiohttp would log, with a traceback for each request that is none, is told in one sentence, and counted."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging`."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            self._host.hit(f"is let go: {record.getMessage().lower()}")
        elif isinstance(error, ConnectionError):
            self._host.hit("has gone before he was answered")
        elif type(error).__module__ == "aiohttp.http_exceptions":
            self._host.hit("is let go: what he sends is no HTTP, or its headers are too long")
        else:
            self._host.hit(f"has sent a request that went wrong: {type(error).__name__}: {error}")


def _logger(host: Host) -> logging.Logger:
    logger = logging.Logger("plain")  # noqa: LOG001 - one of its own, which ends with the channel
    logger.addHandler(_Told(host))
    return logger


async def served(
    network: Network, routes: list[Route], host: Host, address: str, came: Callable[[Line], object] = lambda _line: None
) -> None:
    """Serve these routes for ever; `came` is told of each connection.

    Raises RunnerError for an address that this machine does not have.
    """
    from aiohttp import web

    bounds = host.bounds

    @web.middleware
    async def bounded(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The times of requests that nobody is answering yet are those of their sender."""
        visitor = visitor_of(request)
        visitor.busy = True
        visitor.expect(None)
        try:
            return await handler(request)
        finally:
            visitor.busy = False
            visitor.hold(0)
            if not visitor.lost.is_set():
                visitor.expect(bounds.kept_open_s, f"is let go: nothing more within {bounds.kept_open_s:g} s")

    application = web.Application(middlewares=[bounded])
    for method, path, handle in routes:
        application.router.add_route(method, path, handle)
    before, with_answer = _crossing(network, [method for method, _, _ in routes])
    for path in {path for _, path, _ in routes}:
        application.router.add_route("OPTIONS", path, before)
    application.on_response_prepare.append(with_answer)
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        auto_decompress=False,
        logger=_logger(host),
        shutdown_timeout=_CLOSE_S,
        max_line_size=bounds.head_bytes,
        max_field_size=bounds.head_bytes,
        max_headers=bounds.heads,
        keepalive_timeout=2 * bounds.kept_open_s,
    )
    await runner.setup()
    server = runner.server
    assert server is not None
    door = Door(network, host, address=address, busy=False)

    def spoken(line: Line) -> asyncio.BaseProtocol:
        came(line)
        return server()

    async def cut_short() -> None:
        await host.abandoned.wait()
        door.close()

    try:
        await door.serve(spoken, first_s=bounds.head_s, refusal=_FULL)
    finally:
        cutting = asyncio.ensure_future(cut_short())
        await runner.cleanup()  # it waits for those who are being answered
        cutting.cancel()
        door.close()
