"""What plain peers send: whole messages as they come; what is none is refused, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import zmq
import zmq.asyncio
from aiohttp import web

from runner.channel.plain import tcp, websocket
from runner.channel.plain.bounds import Bounds
from runner.store.store import Store
from tests.addresses import free_port
from tests.channel.plain_end import End, numbered, reset, run
from tests.waiting import until


def test_good_messages_before_one_that_is_too_long_are_delivered_tcp() -> None:
    async def act() -> None:
        end = End("reader", "tcp", max_message_bytes=1000)
        async with end.alive():
            reader, writer = await end.connected()
            writer.write(b"one\ntwo\n" + b"x" * 1000 + b"\n" + b"y" * 1001 + b"\nnever\n")
            assert await end.read(3) == [b"one", b"two", b"x" * 1000]
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(-1) == b""
            writer.close()
            _, writer = await end.connected()
            writer.write(b"next\n")
            assert (await end.read(4))[3] == b"next"
            writer.close()
        assert end.channel.refused == 1
        assert "longer than max_message (1000 B)" in end.said
        assert "is let go" in end.said

    run(act)


def test_asyncio_does_not_complain_of_a_connection_that_broke() -> None:
    """It would, when it forgets who kept the error in the wrong order."""

    async def act() -> None:
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        stream = tcp._Stream(asyncio.StreamReader())
        stream.connection_lost(ConnectionResetError("reset"))
        del stream._closed  # type: ignore[attr-defined]  # forgotten before the stream, which would look at it
        gc.collect()
        assert complaints == []

    run(act)


def test_good_messages_before_one_that_is_too_long_are_delivered_websocket() -> None:
    async def act() -> None:
        end = End("reader", "websocket", max_message_bytes=1000)
        async with end.alive(), aiohttp.ClientSession() as session:
            (await end.connected())[1].close()
            peer = await session.ws_connect(f"http://127.0.0.1:{end.port}/")
            for text in ("one", "x" * 1000, "y" * 1001):
                await peer.send_str(text)
            assert await end.read(2) == [b"one", b"x" * 1000]
            assert (await peer.receive()).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
            assert peer.close_code == 1009
            peer = await session.ws_connect(f"http://127.0.0.1:{end.port}/")
            await peer.send_str("two\nlines")
            message = await peer.receive()
            assert peer.close_code == 1003
            assert "newline" in str(message.extra)
            peer = await session.ws_connect(f"http://127.0.0.1:{end.port}/")
            await peer.send_bytes(b"\xff")
            assert (await end.read(3))[2] == b"\xff"
            await peer.close()
        assert end.channel.refused == 2
        assert "longer than max_message" in end.said

    run(act)


def test_a_zeromq_end_lives_on_after_messages_that_are_none() -> None:
    async def act() -> None:
        end = End("reader", "zeromq", max_message_bytes=1000)
        context = zmq.asyncio.Context()
        push = context.socket(zmq.PUSH)
        async with end.alive():
            push.connect(f"tcp://127.0.0.1:{end.port}")
            for parts in ([b"one"], [b"a", b"b"], [b"two"], [b"x\ny"], [b"z" * 1001], [b"x" * 1000], [b""], [b"three"]):
                await push.send_multipart(parts)
            assert await end.read(5) == [b"one", b"two", b"x" * 1000, b"", b"three"]
            push.close(linger=0)
            push = context.socket(zmq.PUSH)
            push.connect(f"tcp://127.0.0.1:{end.port}")
            await push.send(b"four")
            assert (await end.read(6))[5] == b"four"
            await push.send(b"z" * 2001)  # the library ends that connection
            push.close(linger=100)
            push = context.socket(zmq.PUSH)
            push.connect(f"tcp://127.0.0.1:{end.port}")
            await push.send(b"five")
            assert (await end.read(7))[6] == b"five"
            push.close(linger=0)
        context.destroy(linger=0)
        assert end.channel.refused == 3
        for text in ("2 parts", "newline inside", "a message of 1,001 bytes"):
            assert text in end.said

    run(act)


def test_what_has_come_over_zeromq_stays_when_its_sender_goes() -> None:
    async def act() -> None:
        for _ in range(10):
            port = free_port()
            reader = End("reader", "zeromq", port=port, listens=False)
            writer = End("writer", "zeromq", port=port)
            async with reader.alive(), writer.alive() as living:
                writer.write(*numbered(1000))
                writer.end()
                await living
                assert len(await reader.read(1000)) == 1000

    run(act)


def test_half_a_message_is_none_and_not_waited_for_for_ever() -> None:
    async def act() -> None:
        end = End("reader", "tcp", bounds=Bounds(stalled_s=0.2))
        async with end.alive():
            reader, writer = await end.connected()
            writer.write(b"one\nhal")
            assert await reader.read(-1) == b""
            assert await end.read(1) == [b"one"]
            writer.close()
            _, writer = await end.connected()
            writer.write(b"two\nhal")
            assert (await end.read(2))[1] == b"two"
            reset(writer)
            await until(lambda: not end.far.peers, "it to be gone")
        assert end.got == [b"one", b"two"]
        assert end.channel.written == 2
        assert "half a message came" in end.said

    run(act)


def test_a_message_that_drips_is_not_waited_for_for_ever_either() -> None:
    async def act() -> None:
        end = End("reader", "tcp", bounds=Bounds(stalled_s=5, whole_s=0.3))
        async with end.alive():
            reader, writer = await end.connected()
            closed = asyncio.create_task(reader.read(-1))
            while not closed.done():
                writer.write(b"x")
                await asyncio.sleep(0.01)
            writer.close()
            await asyncio.gather(closed, return_exceptions=True)
        assert not end.channel.written

    run(act)


def test_who_has_gone_is_not_said_never_to_have_come() -> None:
    async def act() -> None:
        end = End("reader", "tcp")
        async with end.alive():
            _, writer = await end.connected()
            writer.write(b"one\n")
            await end.read(1)
            writer.close()
            await until(lambda: not end.far.peers, "it to be gone")
            assert end.far.missing.endswith(": the connection is over")

    run(act)


def test_a_message_begins_with_its_first_byte_however_long_after_the_one_before() -> None:
    async def act() -> None:
        end = End("reader", "tcp", bounds=Bounds(whole_s=0.2))
        async with end.alive():
            _, writer = await end.connected()
            writer.write(b"one\n")
            await end.read(1)
            await asyncio.sleep(0.3)  # it has nothing to say for longer than a message may take
            writer.write(b"tw")
            await until(lambda: _pending_bytes(end) == 2, "half of it")
            writer.write(b"o\n")
            assert await end.read(2) == [b"one", b"two"]
            writer.close()

    run(act)


def test_half_a_message_may_wait_as_long_as_the_channel_is_full() -> None:
    async def act() -> None:
        end = End("reader", "tcp", capacity=1000, bounds=Bounds(whole_s=0.2, stalled_s=0.2))
        async with end.alive():
            _, writer = await end.connected()
            writer.write(b"x" * 1000 + b"\nha")
            await until(lambda: end.channel.full, "it to be full")
            await asyncio.sleep(0.3)  # for longer than a message may take
            await end.read(1)
            writer.write(b"lf\n")
            assert (await end.read(2))[1] == b"half"
            writer.close()

    run(act)


def _pending_bytes(end: End) -> int:
    """What is no whole message yet, of the one peer."""
    (peer,) = end.far.peers
    pending: int = peer._decoder.pending_bytes  # type: ignore[attr-defined]
    return pending


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize("half", [b"\x82\x84\0\0\0\0go", b"\x02\x82\0\0\0\0go", b"\x02\x82\0\0\0\0go\x89\x80\0\0\0\0"])
def test_half_a_message_over_a_websocket_is_not_waited_for_for_ever(half: bytes) -> None:
    async def act() -> None:
        end = End("reader", "websocket", bounds=Bounds(stalled_s=0.2))
        async with end.alive():
            reader, writer = await end.connected()
            writer.write(HANDSHAKE + b"\x82\x83\0\0\0\0one" + half)
            await reader.readuntil(b"\r\n\r\n")
            await reader.read(-1)
            writer.close()
            assert await end.read(1) == [b"one"]
        assert "half a message came" in end.said

    run(act)


def test_a_message_that_drips_over_a_websocket_is_not_waited_for_for_ever_either() -> None:
    async def act() -> None:
        end = End("reader", "websocket", bounds=Bounds(stalled_s=5, whole_s=0.3))
        async with end.alive():
            reader, writer = await end.connected()
            writer.write(HANDSHAKE + b"\x02\x80\0\0\0\0")
            closed = asyncio.create_task(reader.read(-1))
            while not closed.done():
                writer.write(b"\0\x81\0\0\0\0x")  # fragment by fragment
                await asyncio.sleep(0.01)
            writer.close()
            await asyncio.gather(closed, return_exceptions=True)
        assert not end.channel.written

    run(act)


def test_a_silent_websocket_is_left_alone() -> None:
    async def act() -> None:
        end = End("reader", "websocket", capacity=1000, bounds=Bounds(stalled_s=0.1, whole_s=0.1))
        async with end.alive(), aiohttp.ClientSession() as session:
            (await end.connected())[1].close()
            peer = await session.ws_connect(f"http://127.0.0.1:{end.port}/")
            await peer.ping()
            await asyncio.sleep(0.3)
            for payload in (b"x" * 1000, b"two", b"three"):
                await peer.send_bytes(payload)
            await until(lambda: end.channel.full, "it to be full")
            await asyncio.sleep(0.3)
            assert (await end.read(3))[1:] == [b"two", b"three"]
            await peer.close()
        assert not end.far.hits

    run(act)


def test_a_full_channel_stops_who_sends() -> None:
    async def act() -> None:
        end = End("reader", "tcp", capacity=10_000)
        async with end.alive():
            _, writer = await end.connected()
            writer.writelines(line + b"\n" for line in numbered(100_000))
            await until(lambda: end.channel.full, "it to be full")
            before = end.channel.written
            assert end.channel.readers[0].queued_bytes < 10_000 + (128 << 10)
            assert before < 100_000
            assert len(await end.read(100_000)) == 100_000
            writer.close()
        assert end.got == numbered(100_000)

    run(act)


def test_a_websocket_is_kept_while_the_channel_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "_BEAT_S", 0.05)

    async def act() -> None:
        end = End("reader", "websocket", capacity=1000)
        async with end.alive(), aiohttp.ClientSession() as session:
            (await end.connected())[1].close()
            peer = await session.ws_connect(f"http://127.0.0.1:{end.port}/", autoping=False)
            sending = asyncio.create_task(_all_sent(peer, numbered(30_000, 1000)))
            await until(lambda: end.channel.full, "it to be full")
            for _ in range(5):
                assert (await peer.receive()).type is aiohttp.WSMsgType.PING
            assert not sending.done()
            assert await end.read(30_000) == numbered(30_000, 1000)
            await sending
            await peer.close()
        assert not end.far.hits

    run(act)


async def _all_sent(peer: aiohttp.ClientWebSocketResponse, payloads: list[bytes]) -> None:
    for payload in payloads:
        await peer.send_bytes(payload)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def _served(handle: Handler) -> AsyncIterator[int]:
    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


def test_events_are_taken_from_the_last_on_that_is_in_the_channel(tmp_path: Path) -> None:
    asked: list[str | None] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID")
        asked.append(last)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        first = int(last or 0) + 1
        await response.write(b"".join(b"id: %d\ndata: %d\n\n" % (n, n) for n in range(first, first + 5)))
        await response.write(b"id: %d\ndata: half" % (first + 5))  # no empty line: it is no event yet
        return response

    async def act() -> None:
        async with _served(handle) as port:
            last = 0
            for count in (12, 7):
                store = Store.open(tmp_path / "state", sync=False, capacity_bytes={"c": 1 << 20})
                end = End("reader", "http", listens=False, port=port, store=store)
                async with end.alive():
                    await end.read(count)
                await store.flush()
                store.close()
                assert end.got == [b"%d" % number for number in range(last + 1, last + 1 + len(end.got))]
                last += len(end.got)
            assert str(last) in asked or str(last - 5) in asked
            assert asked[0] is None

    run(act)


def _says(data: bytes, asked: list[str | None] | None = None) -> Handler:
    """A server that says the same to whoever has none of its events, and nothing to who has them."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if asked is not None:
            asked.append(request.headers.get("Last-Event-ID"))
        if "Last-Event-ID" not in request.headers:
            await response.write(data)
        return response

    return handle


@pytest.mark.parametrize("long", [b"data: " + b"x" * 1500, b"data: " + b"x" * 600 + b"\ndata: " + b"y" * 600])
def test_an_event_that_is_too_long_is_refused_once_and_the_next_one_is_not(long: bytes) -> None:
    data = b"id: 1\ndata: one\n\nid: 2\n" + long + b"\n\nid: 3\ndata: " + b"z" * 1000 + b"\n\nid: 4\n" + long + b"\n\n"
    asked: list[str | None] = []

    async def act() -> None:
        async with _served(_says(data, asked)) as port:
            bounds = Bounds(first_wait_s=0.001, longest_wait_s=0.01)
            end = End("reader", "http", listens=False, port=port, max_message_bytes=1000, bounds=bounds)
            async with end.alive():
                assert await end.read(2) == [b"one", b"z" * 1000]
                await until(lambda: len(asked) > 5, "it to be asked again")
            assert asked[1:6] == ["4"] * 5
            assert end.channel.refused == 2

    run(act)


@pytest.mark.parametrize("id_", [b"a\x01b", b"a\x7f", b"a\0", b"\xff\xc3", b"x" * 5000])
def test_no_id_harms_anybody(id_: bytes) -> None:
    asked: list[str | None] = []

    async def act() -> None:
        async with _served(_says(b"data: a\nid: " + id_ + b"\n\n", asked)) as port:
            bounds = Bounds(first_wait_s=0.001, longest_wait_s=0.01)
            end = End("reader", "http", listens=False, port=port, bounds=bounds)
            async with end.alive():
                await end.read(1)
                await until(lambda: len(asked) > 3, "it to be asked again")
            assert not end.failed

    run(act)


def test_what_is_streamed_is_asked_for_unpacked_and_never_taken_packed() -> None:
    async def obeys(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=b"one\ntwo\n", content_type="application/x-ndjson")
        response.enable_compression()
        return response

    async def packs(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8b...", headers={"Content-Encoding": "gzip"})

    async def act() -> None:
        async with _served(obeys) as port:
            end = End("reader", "http", listens=False, port=port)
            async with end.alive():
                assert (await end.read(2))[:2] == [b"one", b"two"]
        async with _served(packs) as port:
            end = End("reader", "http", listens=False, port=port)
            await end.live()
            assert "packed (gzip)" in end.failed[0]
            assert not end.channel.written

    run(act)


def test_a_server_that_does_not_answer_is_asked_again() -> None:
    asked: list[str | None] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(None)
        if len(asked) == 1:
            await asyncio.Event().wait()
        return web.Response(text="one\n")

    async def act() -> None:
        async with _served(handle) as port:
            bounds = Bounds(answer_s=0.2, first_wait_s=0.001)
            end = End("reader", "http", listens=False, port=port, bounds=bounds)
            async with end.alive():
                assert (await end.read(1))[0] == b"one"

    run(act)


@pytest.mark.parametrize(("status", "text"), [(404, "status 404: not here"), (302, "status 302: it is at /other")])
def test_an_answer_that_no_other_try_changes_fails_the_channel(status: int, text: str) -> None:
    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="not here", headers={"Location": "/other"} if status == 302 else {})

    async def act() -> None:
        async with _served(handle) as port:
            end = End("reader", "http", listens=False, port=port)
            await end.live()
            assert text in end.failed[0]

    run(act)
