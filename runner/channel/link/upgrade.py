"""The HTTP with which a websocket begins (RFC 6455, section 4): what each side says, and what of it is believed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, unquote

import h11

from runner.channel.link.transport import DownError, RefusedError
from runner.spec.model import Network

MOST_HEADER_BYTES = 16 << 10
_VERSION = b"13"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
Headers = Sequence[tuple[bytes, bytes]]
_REFUSALS = {401: "it wants another token", 404: "there is no such path", 403: "it wants nothing of this runner"}


class _Incomplete(Exception):  # noqa: N818 - it is no error
    """More has to come."""


class Asking:
    """The side that connects. `authority`: to whom, a host and a port."""

    def __init__(self, network: Network, authority: str) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEADER_BYTES)
        self._key = base64.b64encode(os.urandom(_KEY_BYTES))
        headers = [
            (b"Host", authority.encode() if authority.isascii() else authority.encode("idna")),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", self._key),
            (b"Sec-WebSocket-Version", _VERSION),
        ]
        if network.token is not None:
            headers.append((b"Authorization", f"Bearer {network.token}".encode()))
        target = quote(network.path, safe="/%:@!$&'()*+,;=~")
        self.request = self._http.send(h11.Request(method="GET", target=target, headers=headers))
        self.request += self._http.send(h11.EndOfMessage())

    def take(self, data: bytes) -> bytes | None:
        """Of what was answered, what comes behind the HTTP; None: not all of that has come. Raises DownError."""
        try:
            event = _next(self._http, data)
            while isinstance(event, h11.InformationalResponse) and event.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
                event = _next(self._http, b"")
        except _Incomplete:
            return None
        except h11.RemoteProtocolError as error:
            raise DownError("what it answers is no HTTP") from error
        assert isinstance(event, h11.InformationalResponse | h11.Response)
        if event.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            raise answered(event.status_code)
        if not (
            _has(event.headers, b"upgrade", b"websocket")
            and _has(event.headers, b"connection", b"upgrade")
            and _only(event.headers, b"sec-websocket-accept") == _accepted(self._key)
        ):
            raise DownError("it does not answer as a websocket does")
        if _all(event.headers, b"sec-websocket-extensions") or _all(event.headers, b"sec-websocket-protocol"):
            raise DownError("it answers with what it was not asked for")
        return self._http.trailing_data[0]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not the websocket."""

    status: HTTPStatus
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Asked:
    """The side that listens. `take` what comes until it is the request, then `judge` it, then answer."""

    def __init__(self, network: Network) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEADER_BYTES)
        self._network = network
        self._request: h11.Request | None = None

    def take(self, data: bytes) -> Refusal | None:
        """None: more has to come. Else what is wrong with the request; `unrefused` where that is nothing."""
        try:
            if self._request is None:
                event = _next(self._http, data)
                data = b""
                assert isinstance(event, h11.Request)
                self._request = event
            if not isinstance(_next(self._http, data), h11.EndOfMessage):
                return Refusal(HTTPStatus.BAD_REQUEST, "a request with a body is not answered\n")
        except _Incomplete:
            return None
        except h11.RemoteProtocolError as error:
            return Refusal(HTTPStatus(error.error_status_hint), "this is no request\n")
        return self._judge(self._request) or UNREFUSED

    def _judge(self, request: h11.Request) -> Refusal | None:
        path = request.target.partition(b"?")[0].decode("latin-1")
        if unquote(path) != unquote(self._network.path):
            return Refusal(HTTPStatus.NOT_FOUND, "there is no such path\n")
        if request.method != b"GET":
            return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "a websocket is spoken here\n", ((b"Allow", b"GET"),))
        if not self._may(_all(request.headers, b"authorization")):
            return Refusal(HTTPStatus.UNAUTHORIZED, "a token is needed\n", ((b"WWW-Authenticate", b"Bearer"),))
        return _judged(request)

    def _may(self, said: Sequence[bytes]) -> bool:
        token = self._network.token
        return token is None or hmac.compare_digest(b",".join(said), f"Bearer {token}".encode())

    def welcome(self) -> tuple[bytes, bytes]:
        """What is said to a request that is not refused, and what came behind it."""
        assert self._request is not None
        headers = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", _accepted(_only(self._request.headers, b"sec-websocket-key"))),
        ]
        said = self._http.send(h11.InformationalResponse(status_code=HTTPStatus.SWITCHING_PROTOCOLS, headers=headers))
        return said, self._http.trailing_data[0]

    def refuse(self, refusal: Refusal) -> bytes:
        """What is said to a request that is refused."""
        text = refusal.text.encode()
        headers = [
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(text)),
            (b"Connection", b"close"),
            *refusal.headers,
        ]
        response = h11.Response(status_code=refusal.status, headers=headers, reason=refusal.status.phrase.encode())
        bodiless = self._request is not None and self._request.method == b"HEAD"
        return self._http.send(response) + (b"" if bodiless else self._http.send(h11.Data(data=text)))


def _judged(request: h11.Request) -> Refusal | None:
    """What is wrong with it where a websocket would be due."""
    upgrades = _has(request.headers, b"upgrade", b"websocket") and _has(request.headers, b"connection", b"upgrade")
    if not upgrades or request.http_version != b"1.1":
        return Refusal(HTTPStatus.BAD_REQUEST, "a websocket is spoken here\n", _UPGRADE)
    if not _is_key(_only(request.headers, b"sec-websocket-key")):
        return Refusal(HTTPStatus.BAD_REQUEST, "the key of the websocket is none\n")
    if _all(request.headers, b"sec-websocket-version") != [_VERSION]:
        version = (b"Sec-WebSocket-Version", _VERSION)
        return Refusal(HTTPStatus.UPGRADE_REQUIRED, "version 13 of websockets is spoken here\n", (*_UPGRADE, version))
    return None


_UPGRADE = ((b"Upgrade", b"websocket"),)
UNREFUSED = Refusal(HTTPStatus.SWITCHING_PROTOCOLS, "")


def answered(status: int) -> DownError:
    """What it means that a request was answered so."""
    why = _REFUSALS.get(status)
    return DownError(f"it answers with status {status}") if why is None else RefusedError(why)


def _next(http: h11.Connection, data: bytes) -> h11.Event:
    if data:
        http.receive_data(data)
    event = http.next_event()
    if event is h11.NEED_DATA:
        raise _Incomplete
    assert not isinstance(event, type)
    return event


def _accepted(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def _all(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _only(headers: Headers, name: bytes) -> bytes:
    """The value of a header that is there once; else nothing."""
    values = _all(headers, name)
    return values[0] if len(values) == 1 else b""


def _has(headers: Headers, name: bytes, word: bytes) -> bool:
    """Whether `word`, in lower case, is among the words of a header, which commas divide."""
    words = b",".join(_all(headers, name)).lower().split(b",")
    return word in (each.strip() for each in words)
