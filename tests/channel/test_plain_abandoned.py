"""A stop that has come to its bound: nobody at the far end is waited for, whatever he does not read or say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket

import pytest

from runner.channel.plain import web
from runner.channel.plain.bounds import Bounds
from tests.addresses import free_port
from tests.channel.plain_end import LIMIT_S, End, narrow, numbered, run, stuck
from tests.waiting import until

COUNT = 20_000
PATIENT = Bounds(close_s=LIMIT_S)
"""Whoever waits for a connection's end in order waits longer than the test may take."""
AT_ONCE_S = LIMIT_S / 4
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="
ASKING = {
    "tcp": b"",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "events": b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
    "websocket": (
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
    ),
}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_CLOSE_S", LIMIT_S)


async def _abandoned_while_nothing_is_read(end: End, living: asyncio.Task[None]) -> None:
    end.write(*numbered(COUNT, 1000))
    await until(lambda: end.account, "something to be taken")
    await stuck(end)
    end.end()
    end.channel.stop()
    end.channel.abandon()
    async with asyncio.timeout(AT_ONCE_S):
        await asyncio.shield(living)
    account = end.account
    assert 0 < account["indeterminate"] <= 66, "what was being handed over"
    assert sum(account.values()) == COUNT
    assert account["unread"] > COUNT // 2


@pytest.mark.parametrize("kind", list(ASKING))
def test_a_client_that_never_reads_is_not_waited_for(kind: str) -> None:
    async def act() -> None:
        end = End("writer", "http" if kind == "events" else kind, capacity=64 << 20, bounds=PATIENT)
        async with end.alive() as living:
            with await narrow(end.port) as client:
                await asyncio.get_running_loop().sock_sendall(client, ASKING[kind])
                await _abandoned_while_nothing_is_read(end, living)

    run(act)


@pytest.mark.parametrize("kind", ["tcp", "websocket"])
def test_a_server_that_never_reads_is_not_waited_for(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def act() -> None:
        port = free_port()
        with socket.create_server(("127.0.0.1", port)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            server.setblocking(False)  # noqa: FBT003 - positional only
            end = End("writer", kind, listens=False, port=port, capacity=64 << 20, bounds=PATIENT)
            async with end.alive() as living:
                client, _ = await asyncio.get_running_loop().sock_accept(server)
                with client:
                    if kind == "websocket":
                        await _become_websocket(client)
                    await _abandoned_while_nothing_is_read(end, living)

    run(act)
    assert not caplog.records, "nothing was left open"


async def _become_websocket(client: socket.socket) -> None:
    """The answer that a websocket's server gives (RFC 6455, 4.2.2)."""
    loop, request = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in request:
        request += await loop.sock_recv(client, 4096)
    (key,) = (line.split()[1] for line in request.splitlines() if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    answer = b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    await loop.sock_sendall(client, answer)


def test_half_a_request_is_not_waited_for() -> None:
    async def act() -> None:
        end = End("reader", "http", bounds=PATIENT)
        async with end.alive() as living:
            _, writer = await end.connected()
            writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
            await until(lambda: end.far._missing is None, "the request")
            end.channel.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.shield(living)
            assert not living.done(), "a request that is being answered may come to its end"
            end.channel.abandon()
            async with asyncio.timeout(AT_ONCE_S):
                await asyncio.shield(living)
        assert end.channel.written == 0

    run(act)
