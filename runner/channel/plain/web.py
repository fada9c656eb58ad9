"""What websocket and http servers have in common: an address, a token, limits."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from runner.channel import tls
from runner.channel.link.tcp import reason
from runner.channel.link.transport import cannot_listen
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import web

Route = tuple[str, str, "Callable[[web.Request], Awaitable[web.StreamResponse]]"]
_CLOSE_S = 1.0
_BODY_BYTES = 8 << 20
"""A request with several messages has at most this, or one message of the longest allowed length."""
_HEADER_BYTES = 8190


def base_url(network: Network, scheme: str) -> str:
    """The address without its path."""
    host = network.host or "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}{'' if network.tls is None else 's'}://{shown}:{network.port}"


def may(network: Network, request: web.Request) -> web.Response | None:
    """None where the request shows the channel's token, in its header or (browsers) its query; else what it is told."""
    from aiohttp import web

    if network.token is None:
        return None
    header = request.headers.get("Authorization", "")
    shown = header.removeprefix("Bearer ") if header.startswith("Bearer ") else request.query.get("token", "")
    if hmac.compare_digest(shown.encode(), network.token.encode()):
        return None
    return web.Response(status=401, text="a token is needed\n", headers={"WWW-Authenticate": "Bearer"})


async def served(network: Network, routes: list[Route], tell: Callable[[str | None], None]) -> None:
    """Serve these routes for ever. Raises RunnerError for an address that this machine does not have."""
    from aiohttp import web

    application = web.Application(client_max_size=max(_BODY_BYTES, network.max_message_bytes))
    for method, path, handle in routes:
        application.router.add_route(method, path, handle)
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=_CLOSE_S,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
    )
    await runner.setup()
    context = None if network.tls is None else tls.listening(network.tls)
    try:
        await _bind(runner, network, context, tell)
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, network: Network, context: object, tell: Callable[[str | None], None]) -> None:
    from aiohttp import web

    host = network.host or "127.0.0.1"
    while True:
        site = web.TCPSite(runner, host, network.port, ssl_context=context)  # type: ignore[arg-type]
        try:
            await site.start()
        except OSError as error:
            if error.errno != 98:  # EADDRINUSE: whoever has it may go
                raise cannot_listen(base_url(network, "http"), reason(error)) from error
            await site.stop()
            tell("somebody else listens there")
            await asyncio.sleep(0.25)
        else:
            tell("nobody has come yet")
            return
