"""What is written to plain peers: at most once, to all who are there, in bounds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import aiohttp
import pytest
import zmq
import zmq.asyncio

from runner.channel.plain.bounds import Bounds
from runner.spec.model import Channel, Network
from runner.store.store import Store
from tests.channel.plain_end import LIMIT_S, End, narrow, numbered, numbers, reset, run, stuck
from tests.waiting import until

COUNT = 20_000
LARGE = 200
"""Bytes of a message, so that all of them are more than kernel buffers hold."""


def test_a_connection_that_breaks_doubles_nothing_and_the_rest_goes_to_the_next() -> None:
    async def act() -> None:
        end = End("writer", "tcp", capacity=64 << 20)
        async with end.alive() as living:
            client = await narrow(end.port)
            end.write(*numbered(COUNT, 1000))
            end.end()
            first = b""
            while len(first) < 100_000:
                first += await asyncio.get_running_loop().sock_recv(client, 10_000)
            await stuck(end)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            await until(lambda: not end.far.peers, "the connection to be gone")
            reader, writer = await end.connected()
            second = await reader.read(-1)
            writer.close()
            await living
        before, after = numbers(first[: first.rindex(b"\n") + 1]), numbers(second)
        assert before == list(range(1, len(before) + 1)), "whole, in order"
        assert after == list(range(after[0], COUNT + 1))
        assert after[0] > before[-1], "none twice"
        account = end.account
        assert 0 < account["indeterminate"] <= 66, "what was being handed over"
        assert account["acknowledged"] + account["indeterminate"] == COUNT
        assert "indeterminate" in end.said

    run(act)


@pytest.mark.parametrize("ends_first", [False, True])
def test_the_end_of_a_peer_that_has_read_all_is_not_waited_for(ends_first: bool) -> None:
    async def act() -> None:
        end = End("writer", "tcp", bounds=Bounds(close_s=LIMIT_S))
        async with end.alive() as living:
            reader, writer = await end.connected()
            if ends_first:  # as `nc` does without input: it sends no more and reads on
                writer.write_eof()
            end.write(*numbered(1000))
            end.end()
            assert numbers(await reader.read(-1)) == list(range(1, 1001))
            writer.close()
            async with asyncio.timeout(LIMIT_S / 4):
                await asyncio.shield(living)
        assert end.account == {"acknowledged": 1000}

    run(act)


def test_a_message_that_nobody_was_given_is_not_indeterminate() -> None:
    async def act() -> None:
        end = End("writer", "tcp")
        async with end.alive() as living:
            reader, writer = await end.connected()
            end.write(b"one")
            assert await reader.readline() == b"one\n"
            reset(writer)
            await until(lambda: not end.far.peers, "the connection to be gone")
            end.write(*numbered(100))
            end.end()
            reader, writer = await end.connected()
            assert numbers(await reader.read(-1)) == list(range(1, 101))
            writer.close()
            await living
        assert end.account == {"acknowledged": 101}

    run(act)


def test_all_who_are_there_get_it_and_one_that_breaks_costs_nothing() -> None:
    async def act() -> None:
        end = End("writer", "tcp", capacity=64 << 20)
        async with end.alive() as living:
            good, good_writer = await end.connected()
            _, bad_writer = await end.connected()
            await until(lambda: len(end.far.peers) == 2, "both")
            end.write(*numbered(COUNT))
            end.end()
            reading = asyncio.create_task(good.read(-1))
            await until(lambda: end.account, "something to be taken")
            reset(bad_writer)
            assert numbers(await reading) == list(range(1, COUNT + 1))
            good_writer.close()
            await living
        assert end.account == {"acknowledged": COUNT}

    run(act)


def test_who_takes_nothing_is_let_go_and_holds_no_more_than_a_piece() -> None:
    async def act() -> None:
        end = End("writer", "tcp", capacity=64 << 20, bounds=Bounds(stalled_s=0.2))
        async with end.alive():
            _, writer = await end.connected()
            end.write(*numbered(COUNT, 1000))
            await until(lambda: "took nothing" in end.said, "it to be let go")
            assert any("took nothing" in why for why in end.far.hits)
            assert not end.far.peers
            writer.close()
            reader, writer = await end.connected()
            assert int((await reader.readline()).split()[0]) > 1
            writer.close()

    run(act)


HANDSHAKES = {
    "tcp": b"",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "websocket": (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ),
}


@pytest.mark.parametrize("kind", list(HANDSHAKES))
def test_who_reads_slowly_holds_a_piece_here_and_no_more(kind: str) -> None:
    async def act() -> None:
        end = End("writer", kind, capacity=64 << 20, bounds=Bounds(stalled_s=1.5))
        async with end.alive():
            client = await narrow(end.port)
            await asyncio.get_running_loop().sock_sendall(client, HANDSHAKES[kind])
            end.write(*numbered(COUNT, 1000))
            await until(lambda: end.account, "something to be taken")
            await stuck(end)
            (peer,) = end.far.peers
            line = getattr(peer, "_line", None) or getattr(peer, "_visitor")  # noqa: B009 - private
            assert line.transport.get_write_buffer_size() <= 20 << 10
            assert end.channel.readers[0].queued_messages > COUNT // 2
            await until(lambda: not end.far.peers, "it to be let go")
            assert any("took nothing for 1.5 s" in why for why in end.far.hits)
            client.close()

    run(act)


def test_what_a_stranger_says_to_a_writer_is_read_and_left() -> None:
    async def act() -> None:
        end = End("writer", "tcp", bounds=Bounds(held_bytes=1 << 20), max_message_bytes=1 << 10)
        async with end.alive() as living:
            reader, writer = await end.connected()
            for _ in range(100):
                writer.write(b"x" * 100_000)
                await writer.drain()
            end.write(b"one")
            end.end()
            assert await reader.read(-1) == b"one\n"
            writer.close()
            await living
        assert end.account == {"acknowledged": 1}
        assert not end.far.hits

    run(act)


def test_in_a_stop_nobody_waits_for_who_is_not_there() -> None:
    async def act() -> None:
        end = End("writer", "tcp")
        async with end.alive() as living:
            end.write(*numbered(3))
            end.end()
            end.channel.stop()
            await living
        assert end.account == {"unread": 3}

    run(act)


def test_a_websocket_that_breaks_doubles_nothing() -> None:
    async def act() -> None:
        end = End("writer", "websocket", capacity=64 << 20)
        async with end.alive() as living, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{end.port}/"
            first = await _websocket(session, url)
            end.write(*numbered(COUNT, 1000))
            end.end()
            before = [int((await first.receive_str()).split()[0]) for _ in range(50)]
            transport = first._response.connection.transport  # type: ignore[union-attr]
            assert transport is not None
            transport.abort()
            await until(lambda: not end.far.peers, "the connection to be gone")
            second = await _websocket(session, url)
            after = [int(message.data.split()[0]) async for message in second]
            await living
        assert before == list(range(1, 51))
        assert after == list(range(after[0], COUNT + 1))
        assert after[0] > before[-1]
        assert end.account["acknowledged"] + end.account["indeterminate"] == COUNT

    run(act)


async def _websocket(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    while True:
        with contextlib.suppress(aiohttp.ClientConnectorError):
            return await session.ws_connect(url)
        await asyncio.sleep(0.005)


def test_zeromq_waits_for_a_reader_however_long_and_again_after_one_has_gone() -> None:
    async def act() -> None:
        end = End("writer", "zeromq", bounds=Bounds(stalled_s=0.05))
        context = zmq.asyncio.Context()
        async with end.alive() as living:
            end.write(*numbered(100))
            await until(lambda: "nobody is there" in end.said, "it to be told")
            assert end.far.trouble is not None
            for part in range(2):
                pull = context.socket(zmq.PULL)
                pull.connect(f"tcp://127.0.0.1:{end.port}")
                got = [int((await pull.recv()).split()[0]) for _ in range(100)]
                assert got == list(range(1, 101))
                pull.close(linger=0)
                await until(lambda: end.far.trouble is not None, "the reader to be gone")
                if not part:
                    end.write(*numbered(100))
            end.end()
            await living
        context.destroy(linger=0)
        assert end.account == {"acknowledged": 200}

    run(act)


def test_a_durable_writer_goes_on_after_a_reader_that_is_gone_for_now(tmp_path: Path) -> None:
    async def act() -> None:
        with contextlib.closing(_store(tmp_path)) as store:
            end = End("writer", "tcp", store=store)
            async with end.alive():
                reader, writer = await end.connected()
                end.write(*numbered(100))
                got = [await reader.readline() for _ in range(100)]
                reset(writer)
                await until(lambda: not end.far.peers, "the connection to be gone")
                end.write(*numbered(50))
                await store.flush()
                await store.flush()
                assert not store.readers("c")["far end"].claimed, "a crash now costs none of them"
            await store.flush()
        assert numbers(b"".join(got)) == list(range(1, 101))
        with contextlib.closing(_store(tmp_path)) as store:
            end = End("writer", "tcp", store=store)
            async with end.alive() as living:
                end.end()
                reader, writer = await end.connected()
                assert numbers(await reader.read(-1)) == list(range(1, 51))
                writer.close()
                await living
            assert end.account == {"carried": 50, "acknowledged": 50}

    run(act)


def test_a_crash_while_nobody_is_there_costs_nothing_that_nobody_was_given(tmp_path: Path) -> None:
    async def act() -> None:
        with contextlib.closing(_store(tmp_path)) as store:
            end = End("writer", "tcp", store=store, capacity=64 << 20)
            async with end.alive():
                client = await narrow(end.port)
                end.write(*numbered(COUNT, 1000))
                await stuck(end)
                assert store.readers("c")["far end"].claimed
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
                await until(lambda: not end.far.peers, "the connection to be gone")
                await until(lambda: not store.readers("c")["far end"].claimed, "all to be given back")
                cursor = store.readers("c")["far end"]
                assert 0 < cursor.indeterminate <= 66
                reader, writer = await end.connected()
                first = int((await reader.readline()).split()[0])
                assert first == cursor.acknowledged + cursor.indeterminate + 1
                writer.close()

    run(act)


def _store(folder: Path) -> Store:
    return Store.open(folder / "state", sync=False, capacity_bytes={"c": 64 << 20})


@pytest.mark.parametrize("events", [False, True])
def test_a_stream_over_http_has_the_numbers_of_the_channel(events: bool) -> None:
    async def act() -> None:
        end = End("writer", "http")
        async with end.alive() as living, aiohttp.ClientSession() as session:
            headers = {"Accept": "text/event-stream"} if events else {}
            (await end.connected())[1].close()
            for part in range(2):
                answer = await session.get(f"http://127.0.0.1:{end.port}/", headers=headers)
                end.write(b"a", b"b\rc")
                if part:
                    end.end()
                got = [await answer.content.readline() for _ in range(7 if events else 2)]
                number = 2 * part
                lines = [
                    b"id: %d" % (number + 1),
                    b"data: a",
                    b"",
                    b"id: %d" % (number + 2),
                    b"data: b",
                    b"data: c",
                    b"",
                ]
                assert got == [line + b"\n" for line in (lines if events else (b"a", b"b\rc"))]
                answer.close()
                await until(lambda: not end.far.peers, "it to be gone")
            await living
        assert end.account == {"acknowledged": 4}

    run(act)


def test_messages_that_are_no_lines_are_not_streamed_as_lines() -> None:
    async def act() -> None:
        end = End("writer", "http", codec="length-prefixed")
        async with end.alive(), aiohttp.ClientSession() as session:
            (await end.connected())[1].close()
            answer = await session.get(f"http://127.0.0.1:{end.port}/")
            assert answer.status == 406
            assert "text/event-stream" in await answer.text()

    run(act)


def test_what_is_handed_out_and_not_acknowledged_at_a_crash_is_never_sent_again(tmp_path: Path) -> None:
    async def act() -> None:
        store = _store(tmp_path)
        end = End("writer", "tcp", store=store, capacity=64 << 20)
        living = asyncio.create_task(end.live())
        reader, writer = await end.connected()
        end.write(*numbered(2000, 1000))
        got = numbers(await reader.readexactly(150_000))
        claimed = store.readers("c")["far end"].handed_out
        assert claimed, "something is on its way"
        store.close()  # nothing of what happens from here on is on record, as after SIGKILL
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        writer.close()
        with contextlib.closing(_store(tmp_path)) as store:
            end = End("writer", "tcp", store=store)
            async with end.alive() as living:
                end.end()
                reader, writer = await end.connected()
                after = numbers(await reader.read(-1))
                writer.close()
                await living
            assert after[0] > got[-1]
            assert after == list(range(after[0], 2001))
            assert end.account["indeterminate"] >= claimed
            assert end.account["carried"] == end.account["indeterminate"] + end.account["acknowledged"]

    run(act)


def test_the_state_knows_who_reads_a_channel_to_a_plain_peer() -> None:
    from runner.supervise.state import _readers

    spec = Channel("c", "tcp", writers=("w",), network=Network(plain=True))
    assert _readers(spec) == ("far end",)
