"""What plain peers over HTTP have in common: content types, tokens, clients with a channel's certificates."""

from __future__ import annotations

import email.utils
import socket
import time
from typing import TYPE_CHECKING, Any

from runner.channel import tls
from runner.channel.plain.base import jittered
from runner.channel.plain.bounds import Bounds
from runner.channel.plain.line import keep_alive
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

MANY = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines", "text/x-ndjson")
"""Content types of messages that each end with a newline."""
EVENTS = "text/event-stream"
_LATER = {408, 425, 429}
_SHOWN_BYTES = 200
_UNPACKED = {"Accept-Encoding": "identity"}


def session_of(network: Network, bounds: Bounds) -> ClientSession:
    """A client with the channel's certificates."""
    import aiohttp

    context = True if network.tls is None else tls.connecting(network.tls)
    connector = aiohttp.TCPConnector(ssl=context, socket_factory=socket_of)
    timeout = aiohttp.ClientTimeout(total=bounds.answer_s, sock_connect=bounds.connect_s)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False, headers=_UNPACKED)


def socket_of(address: tuple[Any, ...]) -> socket.socket:
    """A socket whose peer is known to be gone when it is; for aiohttp's connectors."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    keep_alive(made)
    return made


def headers_of(network: Network, **more: str) -> dict[str, str]:
    """The headers of a request, its token among them."""
    token = {} if network.token is None else {"Authorization": f"Bearer {network.token}"}
    return {**more, **token}


def is_passing(status: int) -> bool:
    """Whether another try may bring another answer."""
    return status >= 500 or status in _LATER


async def said(answer: ClientResponse) -> str:
    """The answer's status and how its body begins, or where it points to, for people."""
    text = (await answer.content.read(_SHOWN_BYTES)).decode(errors="replace").strip()
    if 300 <= answer.status < 400:
        where = answer.headers.get("Location", "nowhere")[:_SHOWN_BYTES]
        return f"status {answer.status}: it is at {where}; write that as the channel's address"
    return f"status {answer.status}" + (f": {text}" if text else "")


def retry_after_s(value: str | None, wait_s: float, bounds: Bounds) -> float:
    """How long to wait where `wait_s` was due: at least as long as the server says (RFC 9110, 10.2.3), in bounds."""
    asked_s = 0.0
    if value is not None:
        try:
            asked_s = float(value) if value.strip().isdecimal() else _until_s(value)
        except (ValueError, OverflowError):
            asked_s = 0.0
    return max(jittered(wait_s), min(asked_s, bounds.retry_after_s))


def _until_s(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
