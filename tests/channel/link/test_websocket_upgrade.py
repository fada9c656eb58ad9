"""How a websocket begins: requests and answers of HTTP, by hand and by another implementation (aiohttp's)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from runner.channel import tls
from runner.channel.link import websocket
from runner.channel.link.transport import Bounds, Connection, DownError, RefusedError
from runner.channel.link.websocket import WebsocketTransport
from runner.spec.model import Network, Tls
from tests.addresses import free_port
from tests.certificates import authority
from tests.streams import gone

MOST = 1 << 20
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
HEADERS = (
    b"Host: here",
    b"Upgrade: WebSocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Version: 13",
)


def request(*headers: bytes, line: bytes = b"GET / HTTP/1.1", without: bytes = b"none") -> bytes:
    kept = [header for header in HEADERS if not header.startswith(without)]
    return b"\r\n".join((line, *kept, *headers, b"", b""))


def run(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await act()

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def listening(
    network: Network | None = None, strangers: int = 16
) -> AsyncIterator[tuple[int, asyncio.Queue[Connection]]]:
    """A listener of ours: its port, and who has come."""
    came: asyncio.Queue[Connection] = asyncio.Queue()
    over = asyncio.Event()

    async def accept(connection: Connection) -> None:
        await came.put(connection)
        await over.wait()

    network = network or Network(host="127.0.0.1", port=free_port())
    listener = await WebsocketTransport(network, Bounds(MOST, strangers)).listen(accept)
    try:
        yield network.port, came
    finally:
        over.set()
        await listener.close()
        while not came.empty():
            came.get_nowait().close("the test is over")


async def asked(port: int, said: bytes) -> bytes:
    """All that is answered, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    answer = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n\r\n" not in answer or b" 101 " not in answer:
            more = await reader.read(1000)
            if not more:
                break
            answer += more
    await gone(writer)
    return bytes(answer)


# -- who listens


def test_what_is_asked_as_it_should_be_is_answered() -> None:
    async def act() -> None:
        async with listening() as (port, came):
            answer = await asked(port, request())
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert b"\r\nsec-websocket-accept: " + ACCEPT.lower() in answer.lower()
            assert b"extensions" not in answer.lower()
            await came.get()

    run(act)


REFUSED = {
    "another path": (request(line=b"GET /else HTTP/1.1"), 404, b""),
    "no GET": (request(line=b"POST / HTTP/1.1"), 405, b"Allow: GET"),
    "no upgrade": (request(without=b"Upgrade"), 400, b""),
    "another upgrade": (request(b"Upgrade: h2c", without=b"Upgrade"), 400, b""),
    "no connection": (request(without=b"Connection"), 400, b""),
    "no key": (request(without=b"Sec-WebSocket-Key"), 400, b""),
    "two keys": (request(b"Sec-WebSocket-Key: " + KEY), 400, b""),
    "a short key": (request(b"Sec-WebSocket-Key: c2hvcnQ=", without=b"Sec-WebSocket-Key"), 400, b""),
    "a key that is none": (request(b"Sec-WebSocket-Key: ????", without=b"Sec-WebSocket-Key"), 400, b""),
    "another version": (
        request(b"Sec-WebSocket-Version: 8", without=b"Sec-WebSocket-Version"),
        426,
        b"Sec-WebSocket-Version: 13",
    ),
    "no version": (request(without=b"Sec-WebSocket-Version"), 426, b"Sec-WebSocket-Version: 13"),
    "HTTP/1.0": (request(line=b"GET / HTTP/1.0"), 400, b""),
    "no host": (request(without=b"Host"), 400, b""),
    "a body": (request(b"Content-Length: 3") + b"abc", 400, b""),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, b""),
    "endless headers": (request()[:-2] + b"X-More: " + b"x" * 40_000, 431, b""),
    "many headers": (request()[:-2] + b"X-More: y\r\n" * 5_000 + b"\r\n", 431, b""),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused(what: str, caplog: pytest.LogCaptureFixture) -> None:
    said, status, header = REFUSED[what]

    async def act() -> None:
        async with listening() as (port, came):
            answer = await asked(port, said)
            assert answer.split(b" ", 2)[1] == b"%d" % status, answer
            assert header.lower() in answer.lower()
            assert came.empty()

    run(act)
    assert not caplog.records


@pytest.mark.parametrize("said", [(), (b"Authorization: Bearer wrong",), (b"Authorization: Bearer \xfc",)])
def test_without_the_token_nobody_gets_in(said: tuple[bytes, ...]) -> None:
    async def act() -> None:
        async with listening(Network(host="127.0.0.1", port=free_port(), token="open")) as (port, came):
            answer = await asked(port, request(*said))
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert b"www-authenticate: bearer" in answer.lower()
            assert came.empty()
            assert (await asked(port, request(b"Authorization: Bearer open"))).startswith(b"HTTP/1.1 101 ")

    run(act)


def test_too_many_are_told_so() -> None:
    async def act() -> None:
        async with listening(strangers=2) as (port, came):
            for _ in range(2):
                assert (await asked(port, request())).startswith(b"HTTP/1.1 101 ")
                await came.get()
            assert (await asked(port, request())).startswith(b"HTTP/1.1 503 ")

    run(act)


def test_many_that_ask_nothing_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "_MOST_ASKING", 3)

    async def act() -> None:
        async with listening() as (port, _):
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            with contextlib.suppress(ConnectionResetError):
                assert await opened[-1][0].read() == b""
            for _, writer in opened:
                await gone(writer)

    run(act)


def test_a_request_that_comes_byte_by_byte_with_frames_behind_it() -> None:
    async def act() -> None:
        async with listening() as (port, came):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in request()[:-1]:
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)
            # the last byte of the request and the first frames in one piece
            writer.write(b"\n" + b"".join(b"\x82\x81\0\0\0\0%d" % number for number in range(10)) + b"\x82")
            connection = await came.get()
            for number in range(10):
                assert await connection.receive() == b"%d" % number
            writer.write(b"\x82\0\0\0\0ab")
            assert await connection.receive() == b"ab"
            del reader
            await gone(writer)

    run(act)


def test_who_listens_no_more_does_not_wait_for_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act() -> None:
        async with listening() as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /")
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await gone(writer)

    run(act)


# -- who connects


def answer(key: bytes, *headers: bytes, status: bytes = b"101 Switching Protocols", without: bytes = b"none") -> bytes:
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    lines = (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept)
    kept = [line for line in lines if not line.startswith(without)]
    return b"\r\n".join((b"HTTP/1.1 " + status, *kept, *headers, b"", b""))


@contextlib.asynccontextmanager
async def connected(
    says: Callable[[bytes], bytes], transport: WebsocketTransport, port: int, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[Connection, bytes]]:
    """What comes of a server that answers so, and what it was asked. Raises what connecting does."""
    heard = bytearray()
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heard.extend(await reader.readuntil(b"\r\n\r\n"))
            key = next(line for line in heard.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
            writer.write(says(bytes(key.split(b": ")[1])))
            await reader.read()
        await gone(writer)
        over.set()

    server = await asyncio.start_server(serve, host, port)
    try:
        connection = await transport.connect()
        yield connection, bytes(heard)
        connection.close("the test is over")
    finally:
        await over.wait()
        server.close()


def ours(port: int, host: str = "127.0.0.1", path: str = "/") -> WebsocketTransport:
    return WebsocketTransport(Network(host=host, port=port, path=path, token="open"), Bounds(MOST))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_asked(host: str) -> None:
    async def act() -> None:
        port = free_port()
        says: Callable[[bytes], bytes] = lambda key: answer(key) + b"\x82\x02hi\x82\x01"  # noqa: E731
        async with connected(says, ours(port, host, "/über"), port, host) as (connection, heard):
            assert await connection.receive() == b"hi"
        lines = heard.lower().split(b"\r\n")
        named = b"[::1]" if ":" in host else b"127.0.0.1"
        assert heard.startswith(b"GET /%C3%BCber HTTP/1.1\r\n")
        for line in (b"host: %s:%d" % (named, port), b"upgrade: websocket", b"sec-websocket-version: 13"):
            assert line in lines
        assert b"authorization: bearer open" in lines
        assert b"extensions" not in heard.lower()

    run(act)


WRONG: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another key": (lambda _key: answer(KEY), "does not answer as a websocket"),
    "no accept": (lambda key: answer(key, without=b"Sec"), "does not answer as a websocket"),
    "no upgrade": (lambda key: answer(key, without=b"Upgrade"), "does not answer as a websocket"),
    "no connection": (lambda key: answer(key, without=b"Connection"), "does not answer as a websocket"),
    "deflate": (lambda key: answer(key, b"Sec-WebSocket-Extensions: permessage-deflate"), "was not asked for"),
    "a protocol": (lambda key: answer(key, b"Sec-WebSocket-Protocol: chat"), "was not asked for"),
    "elsewhere": (lambda key: answer(key, b"Location: /", status=b"302 Found"), "with status 302"),
    "fine": (lambda key: answer(key, b"Content-Length: 0", status=b"200 OK"), "with status 200"),
    "busy": (lambda key: answer(key, status=b"503 Busy"), "with status 503"),
    "garbage": (lambda _key: b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP"),
    "endless": (lambda key: answer(key)[:-2] + b"X: " + b"x" * 40_000, "no HTTP"),
    "nothing": (lambda _key: b"", "closed|no answer"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_answered_wrongly_is_no_connection(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    says, why = WRONG[what]
    if what == "nothing":
        monkeypatch.setattr(websocket, "_CONNECT_S", 0.3)

    async def act() -> None:
        port = free_port()
        with pytest.raises(DownError, match=why) as error:
            async with connected(says, ours(port), port):
                pass
        assert error.type is DownError

    run(act)


@pytest.mark.parametrize("status", [b"401", b"403", b"404"])
def test_a_refusal_is_believed_the_third_time_in_a_row(status: bytes) -> None:
    async def act() -> None:
        port = free_port()
        transport = ours(port)
        raised = []
        for said in (status, status, b"500", status, status, status):
            with pytest.raises(DownError) as error:
                async with connected(partial(answer, status=said + b" No"), transport, port):
                    pass
            raised.append(error.type)
        assert raised == [DownError] * 5 + [RefusedError]

    run(act)


# -- with aiohttp at the other end

SIZES = [1, 125, 126, 65_535, 65_536, 300_000, MOST, 3]
PROTECTED = pytest.mark.parametrize("protected", [False, True], ids=["ws", "wss"])


def bodies() -> list[bytes]:
    return [random.Random(size).randbytes(size) for size in SIZES]


def of(protected: bool, folder: Path) -> tuple[Tls | None, Tls | None]:
    made = authority(folder)
    return (made.server, made.client) if protected else (None, None)


@PROTECTED
def test_another_client_is_understood(protected: bool, tmp_path: Path) -> None:
    server, client = of(protected, tmp_path)

    async def act() -> None:
        network = Network(host="127.0.0.1", port=free_port(), path="/a/b", token="open", tls=server)
        url = f"{'wss' if protected else 'ws'}://127.0.0.1:{network.port}/a/b"
        async with (
            listening(network) as (_, came),
            aiohttp.ClientSession() as session,
            session.ws_connect(
                url,
                headers={"Authorization": "Bearer open"},
                compress=15,
                max_msg_size=0,
                ssl=True if client is None else tls.connecting(client),
            ) as theirs,
        ):
            assert not theirs.compress
            connection = await came.get()
            for body in bodies():
                await theirs.send_bytes(body)
                assert await connection.receive() == body
                await connection.send(body[:1], body[1:])
                assert await theirs.receive_bytes() == body
            await theirs.send_frame(b"abc", aiohttp.WSMsgType.BINARY)
            assert await connection.receive() == b"abc"
            ending = asyncio.create_task(connection.finish())
            assert (await theirs.receive()).type is aiohttp.WSMsgType.CLOSE
            await ending
            assert theirs.close_code == 1000

    run(act)


@PROTECTED
@pytest.mark.parametrize(("said", "code"), [("too long", 1009), ("text", 1003)])
def test_another_client_hears_why_it_is_let_go(protected: bool, said: str, code: int, tmp_path: Path) -> None:
    server, client = of(protected, tmp_path)

    async def act() -> None:
        network = Network(host="127.0.0.1", port=free_port(), tls=server)
        url = f"{'wss' if protected else 'ws'}://127.0.0.1:{network.port}/"
        ssl = True if client is None else tls.connecting(client)
        async with listening(network) as (_, came), aiohttp.ClientSession() as session:
            async with session.ws_connect(url, ssl=ssl) as theirs:
                connection = await came.get()
                receiving = asyncio.create_task(connection.receive())
                if said == "text":
                    await theirs.send_str("hello")
                else:
                    await theirs.send_bytes(bytes(8 * MOST))
                assert (await theirs.receive()).type is aiohttp.WSMsgType.CLOSE
                assert theirs.close_code == code
            with pytest.raises(DownError, match="it sends"):
                await receiving

    run(act)


@PROTECTED
def test_another_server_is_understood(protected: bool, tmp_path: Path) -> None:
    server, client = of(protected, tmp_path)
    ended: list[int | None] = []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        theirs = web.WebSocketResponse(max_msg_size=0)
        await theirs.prepare(request)
        await theirs.ping(b"there?")
        async for message in theirs:
            await theirs.send_bytes(message.data)
        ended.append(theirs.close_code)
        return theirs

    async def act() -> None:
        port = free_port()
        application = web.Application()
        application.router.add_get("/", handle)
        serving = web.AppRunner(application)
        await serving.setup()
        await web.TCPSite(
            serving, "127.0.0.1", port, ssl_context=None if server is None else tls.listening(server)
        ).start()
        network = Network(host="127.0.0.1", port=port, tls=client)
        connection = await WebsocketTransport(network, Bounds(MOST)).connect()
        for body in bodies():
            await connection.send(body[: len(body) // 3], body[len(body) // 3 :])
            assert await connection.receive() == body
        await connection.finish()
        await serving.cleanup()
        assert ended == [1000]

    run(act)
