"""The transport contract, run against everything that carries a link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from runner.channel.link.transport import Connection, DownError, RefusedError, Transport
from runner.channel.link.transports import transport_for
from runner.spec.model import Network
from tests.addresses import free_port
from tests.certificates import authority, curve_keys
from tests.streams import gone

KINDS = ("tcp", "tcp+tls", "websocket", "websocket+tls", "websocket+token", "zeromq", "zeromq+curve")
MOST = 1 << 20


def transports(kind: str, folder: Path, *, most: int = MOST) -> tuple[Transport, Transport]:
    """That of who listens and that of who connects."""
    name, _, protection = kind.partition("+")
    port = free_port()
    listens = Network(host="127.0.0.1", port=port)
    connects = listens
    if protection == "tls":
        tls = authority(folder)
        listens = Network(host="127.0.0.1", port=port, tls=tls.server)
        connects = Network(host="127.0.0.1", port=port, tls=tls.client)
    elif protection == "token":
        listens = connects = Network(host="127.0.0.1", port=port, token="open")
    elif protection == "curve":
        listens = connects = Network(host="127.0.0.1", port=port, keys=curve_keys(folder))
    return transport_for(name, listens, most), transport_for(name, connects, most)


@contextlib.asynccontextmanager
async def joined(kind: str, folder: Path) -> AsyncIterator[tuple[Connection, Connection]]:
    listens, connects = transports(kind, folder)
    came: asyncio.Queue[Connection] = asyncio.Queue()
    over = asyncio.Event()

    async def accept(connection: Connection) -> None:
        await came.put(connection)
        await over.wait()

    listener = await listens.listen(accept)
    here = await connects.connect()
    there = await came.get()
    try:
        yield here, there
    finally:
        over.set()
        here.close("the test is over")
        there.close("the test is over")
        await listener.close()


def run(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await act()

    asyncio.run(bounded())


@pytest.mark.parametrize("kind", KINDS)
def test_frames_arrive_whole_and_in_order_both_ways(kind: str, tmp_path: Path) -> None:
    sizes = [1, 2, 3, 100, 65_535, 65_536, 262_144, 262_145, 500_000, MOST]

    async def act() -> None:
        async with joined(kind, tmp_path) as (here, there):
            for one, other in ((here, there), (there, here)):

                async def send(one: Connection = one) -> None:
                    for number, size in enumerate(sizes):
                        await one.send(bytes((number,)), bytes(size - 1)) if size > 1 else await one.send(b"\0")

                sending = asyncio.create_task(send())
                for number, size in enumerate(sizes):
                    frame = await other.receive()
                    assert len(frame) == size
                    assert size == 1 or frame[0] == number
                await sending

    run(act)


@pytest.mark.parametrize("kind", KINDS)
def test_a_receiver_that_does_not_receive_holds_the_sender(kind: str, tmp_path: Path) -> None:
    async def act() -> None:
        async with joined(kind, tmp_path) as (here, there):
            sent = 0

            async def send() -> None:
                nonlocal sent
                while sent < 2000:
                    await here.send(bytes(100_000))
                    sent += 1

            sending = asyncio.create_task(send())
            last = -1
            while last != sent:
                last = sent
                await asyncio.sleep(0.2)
            assert sent < 1000, "100 MB went nowhere"
            for _ in range(2000):
                assert len(await there.receive()) == 100_000
            await sending

    run(act)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [0, 1])
def test_a_side_that_ends_in_order_is_heard_to_the_end(kind: str, side: int, tmp_path: Path) -> None:
    async def act() -> None:
        async with joined(kind, tmp_path) as both:
            one, other = both[side], both[1 - side]
            for number in range(20):
                await one.send(b"%d" % number)
            ending = asyncio.create_task(one.finish())
            for number in range(20):
                assert bytes(await other.receive()) == b"%d" % number
            with pytest.raises(DownError):
                await other.receive()
            await ending

    run(act)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_at_once_neither_side_hangs(kind: str, tmp_path: Path) -> None:
    async def act() -> None:
        async with joined(kind, tmp_path) as (here, there):
            receiving = asyncio.create_task(there.receive())
            await asyncio.sleep(0)
            here.close("no more")
            with pytest.raises(DownError):
                await receiving
            with pytest.raises(DownError, match="no more"):
                await here.receive()
            with pytest.raises(DownError, match="no more"):
                await here.send(b"x")

    run(act)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_over_the_bound_ends_the_connection(kind: str, tmp_path: Path) -> None:
    async def act() -> None:
        async with joined(kind, tmp_path) as (here, there):
            with contextlib.suppress(DownError):
                await here.send(bytes(MOST + 200_000))
            with pytest.raises(DownError):
                async with asyncio.timeout(5):
                    await there.receive()

    if kind.startswith("zeromq"):
        pytest.skip("ZeroMQ drops the connection by itself and says nothing: the link's pings find it")
    run(act)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_there_is_said(kind: str, tmp_path: Path) -> None:
    async def act() -> None:
        _, connects = transports(kind, tmp_path)
        with pytest.raises(DownError, match=r"refused|nobody answers"):
            await connects.connect()

    run(act)


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_address_is_tried_again_later_and_free_after_its_listener(kind: str, tmp_path: Path) -> None:
    async def act() -> None:
        listens, _ = transports(kind, tmp_path)

        async def accept(_connection: Connection) -> None:
            return

        first = await listens.listen(accept)
        with pytest.raises(DownError, match="somebody else listens"):
            await listens.listen(accept)
        await first.close()
        second = None
        while second is None:
            with contextlib.suppress(DownError):
                second = await listens.listen(accept)
            await asyncio.sleep(0.01)
        await second.close()

    run(act)


@pytest.mark.parametrize(
    ("listens", "connects", "says"),
    [
        ("tcp+tls", "tcp", "TLS|closed|reset"),
        ("tcp", "tcp+tls", "TLS"),
        ("websocket+tls", "websocket", "TLS|closed|reset|disconnected"),
        ("websocket+token", "websocket", "another token"),
        ("zeromq+curve", "zeromq", "nobody answers"),
    ],
)
def test_who_has_not_the_right_protection_does_not_get_in(
    listens: str, connects: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.channel.link.zeromq._CONNECT_S", 1.0)

    async def act() -> None:
        came: list[bytes] = []

        async def accept(connection: Connection) -> None:
            with contextlib.suppress(DownError):
                came.append(bytes(await connection.receive()))

        server, _ = transports(listens, tmp_path)
        listener = await server.listen(accept)
        _, client = transports(connects, tmp_path)
        client._port = server._port if hasattr(server, "_port") else None  # type: ignore[attr-defined]
        client.address = server.address.replace("wss:", "ws:") if "tls" not in connects else server.address
        with pytest.raises(DownError, match=says):
            connection = await client.connect()
            await connection.send(b"hello")
            await connection.receive()
        await listener.close()
        assert not came

    run(act)


def test_a_refusal_is_believed_when_it_is_repeated(tmp_path: Path) -> None:
    """One that has no checksum may be a changed byte: the run would end for it."""

    async def act() -> None:
        listens, _ = transports("websocket+token", tmp_path)
        listener = await listens.listen(_never)
        port = int(listener.address.rstrip("/").rpartition(":")[2])
        connects = transport_for("websocket", Network(host="127.0.0.1", port=port, token="wrong"), MOST)
        raised = []
        for _ in range(3):
            with pytest.raises(DownError, match="another token") as error:
                await connects.connect()
            raised.append(error.type)
        assert raised == [DownError, DownError, RefusedError]
        await listener.close()

    run(act)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: web\xc6ocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: c3\xac==\r\n\r\n",
        b"GET / HTTP!1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo\x18st: a\r\n\r\n",
    ],
)
def test_a_request_that_is_none_leaves_no_traceback(
    said: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        listens, _ = transports("websocket", tmp_path)
        listener = await listens.listen(_never)
        port = int(listener.address.rstrip("/").rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        assert b" 400 " in await reader.readline()
        await gone(writer)
        await listener.close()

    run(act)
    assert "Traceback" not in caplog.text


def test_garbage_from_a_stranger_ends_its_connection(tmp_path: Path) -> None:
    async def act() -> None:
        listens, _ = transports("tcp", tmp_path)
        said: asyncio.Queue[str] = asyncio.Queue()

        async def accept(connection: Connection) -> None:
            try:
                await connection.receive()
            except DownError as error:
                await said.put(str(error))

        listener = await listens.listen(accept)
        port = int(listener.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert "a frame of 1,195,725,856 bytes" in await said.get()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await gone(writer)
        await listener.close()

    run(act)


@pytest.mark.parametrize("kind", ["tcp+tls", "websocket", "websocket+tls", "zeromq"])
def test_a_stranger_that_says_nothing_is_let_go(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that says half of something: it would keep a descriptor for ever."""
    for name in ("tcp._HANDSHAKE_S", "websocket._CONNECT_S", "zeromq._HANDSHAKE_S"):
        monkeypatch.setattr(f"runner.channel.link.{name}", 0.3)

    async def act() -> None:
        listens, _ = transports(kind, tmp_path)
        listener = await listens.listen(_never)
        port = int(listener.address.rstrip("/").rpartition(":")[2])
        for said in (b"", b"\xff\0\0\0\0\0\0\0\1\x7f" if kind == "zeromq" else b"GET / HTTP/1.1\r\nHost: a"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            with contextlib.suppress(ConnectionResetError):
                async with asyncio.timeout(10):
                    while await reader.read(1000):
                        pass  # what it says first, and that what was said is wrong
            await gone(writer)
        await listener.close()

    run(act)


async def _never(_connection: Connection) -> None:
    raise AssertionError("nobody has come")


def test_many_strangers_are_bounded(tmp_path: Path) -> None:
    async def act() -> None:
        listens, _ = transports("tcp", tmp_path)
        over = asyncio.Event()

        async def accept(_connection: Connection) -> None:
            await over.wait()

        listener = await listens.listen(accept)
        port = int(listener.address.rpartition(":")[2])
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(70)]
        with contextlib.suppress(ConnectionResetError):
            assert await opened[-1][0].read() == b""
        over.set()
        for _, writer in opened:
            await gone(writer)
        await listener.close()

    run(act)
