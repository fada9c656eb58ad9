"""What strangers can hold of a listener: places, bytes, time; each bound is counted where it was hit."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from pathlib import Path

import aiohttp
import pytest

from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.spec.model import Tls
from tests.certificates import authority
from tests.channel.plain_end import End, reset, run
from tests.streams import gone
from tests.waiting import until

KINDS = ("tcp", "websocket", "http")
GOOD = {
    "tcp": b"good\n",
    "http": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\ngood",
    "websocket": (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\x82\x84\0\0\0\0good"
    ),
}


def _hit(end: End, text: str) -> int:
    """How often a bound was hit whose cause has this text."""
    return sum(times for why, times in end.far.hits.items() if text in why)


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of the connection."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_so_many_and_no_more_are_let_in(kind: str) -> None:
    async def act() -> None:
        end = End("reader", kind, bounds=Bounds(peers=3))
        async with end.alive():
            those = [await end.connected() for _ in range(3)]
            for reader, _ in [await end.connected() for _ in range(5)]:
                assert await _is_closed(reader)
            assert _hit(end, "turned away: 3 are connected") == 5
            those[0][1].close()
            await those[0][1].wait_closed()
            those[1][1].write(GOOD[kind])
            assert await end.read(1) == [b"good"]
            while end.channel.written < 2:  # that it has gone is known a moment later
                _, writer = await end.connected()
                writer.write(GOOD[kind])
                await asyncio.sleep(0.05)
                await gone(writer)
        assert "turned away" in end.said

    run(act)


def test_who_finds_no_place_over_http_is_told_to_come_later() -> None:
    async def act() -> None:
        end = End("reader", "http", bounds=Bounds(peers=1))
        async with end.alive(), aiohttp.ClientSession() as session:
            _, writer = await end.connected()
            answer = await session.post(f"http://127.0.0.1:{end.port}/", data=b"x")
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            await gone(writer)

    run(act)


@pytest.mark.parametrize("kind", KINDS)
def test_tls_handshakes_count_and_are_not_waited_for_for_ever(kind: str, tmp_path: Path) -> None:
    async def act() -> None:
        made = authority(tmp_path)
        end = End("reader", kind, tls=made.server, bounds=Bounds(peers=3, handshake_s=0.5))
        async with end.alive():
            silent = [await end.connected() for _ in range(3)]
            reader, _ = await end.connected()
            assert await _is_closed(reader)
            assert _hit(end, "3 are connected") == 1, "who shakes hands has a place"
            for reader, _ in silent:
                assert await _is_closed(reader)
            assert _hit(end, "cannot be let in") == 3
            garbage = await end.connected()
            garbage[1].write(b"GET / HTTP/1.1\r\n\r\n")
            assert await _is_closed(garbage[0])
            await _speaks_tls(end, kind, made.client)
            assert await end.read(1) == [b"good"]

    run(act)


def test_who_goes_while_tls_is_agreed_on_is_told_with_a_cause(tmp_path: Path) -> None:
    async def act() -> None:
        end = End("reader", "tcp", tls=authority(tmp_path).server)
        async with end.alive():
            _, writer = await end.connected()
            await gone(writer)
            await until(lambda: _hit(end, "cannot be let in: the connection was reset"), "the cause")
        assert _hit(end, "cannot be let in") == 1

    run(act)


async def _speaks_tls(end: End, kind: str, client: Tls) -> None:
    from runner.channel import tls

    _, writer = await asyncio.open_connection("127.0.0.1", end.port, ssl=tls.connecting(client))
    writer.write(GOOD[kind])
    await end.read(1)
    await gone(writer)


@pytest.mark.parametrize("kind", ["websocket", "http"])
@pytest.mark.parametrize("begin", [b"", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_does_not_come_is_not_waited_for(kind: str, begin: bytes) -> None:
    async def act() -> None:
        end = End("reader", kind, bounds=Bounds(head_s=0.3))
        async with end.alive():
            reader, writer = await end.connected()
            writer.write(begin)
            closed = asyncio.create_task(_is_closed(reader))
            while not closed.done():
                if begin:
                    writer.write(b"X: y\r\n")  # header by header
                await asyncio.sleep(0.05)
            await gone(writer)
        assert _hit(end, "asked for nothing within 0.3 s") == 1

    run(act)


def test_headers_are_bounded_in_number_and_length() -> None:
    async def act() -> None:
        end = End("reader", "http")
        async with end.alive():
            for head in (b"X: " + b"y" * 9000 + b"\r\n", b"".join(b"X%d: y\r\n" % n for n in range(100))):
                reader, writer = await end.connected()
                writer.write(
                    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head + b"Content-Length: 1\r\n\r\nx"
                )
                assert b"400" in await reader.readline()
                await gone(writer)
            assert not end.channel.written

    run(act)


def test_the_rest_of_a_request_is_not_waited_for_for_ever() -> None:
    async def act() -> None:
        end = End("reader", "http", bounds=Bounds(body_s=0.3))
        async with end.alive():
            reader, writer = await end.connected()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
            assert b"408" in await reader.readline()
            await gone(writer)
        assert _hit(end, "did not come within 0.3 s") == 1
        assert not end.channel.written

    run(act)


def test_a_connection_with_nothing_more_is_closed() -> None:
    async def act() -> None:
        end = End("reader", "http", bounds=Bounds(kept_open_s=0.3))
        async with end.alive():
            reader, writer = await end.connected()
            for _ in range(2):
                writer.write(GOOD["http"])
                assert b"200" in await reader.readline()
                while await reader.readline() != b"1 taken\n":
                    pass
            assert await _is_closed(reader)
            await gone(writer)
        assert _hit(end, "nothing more within 0.3 s") == 1
        assert end.channel.written == 2

    run(act)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_whole_message_is_bounded_over_all(kind: str) -> None:
    begins = {
        "tcp": b"",
        "http": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
        "websocket": GOOD["websocket"][:-10] + b"\x82\xff" + (1_000_000).to_bytes(8, "big") + b"\0\0\0\0",
    }

    async def act() -> None:
        most = 1_000_000
        bounds = Bounds(held_bytes=2 * most, request_bytes=most)
        end = End("reader", kind, max_message_bytes=most, bounds=bounds)
        async with end.alive():
            those = [await end.connected() for _ in range(4)]
            for _, writer in those:
                writer.write(begins[kind] + b"x" * 900_000)
            await until(lambda: _hit(end, "no whole messages"), "the bound to be hit")
            assert _hit(end, "no whole messages") <= 2, "some are left"
            for _, writer in those:
                reset(writer)
            await until(lambda: not end.far.peers, "all to be gone")
            _, writer = await end.connected()
            writer.write(GOOD[kind])
            assert (await end.read(1))[-1] == b"good"
            await gone(writer)

    run(act)


@pytest.mark.parametrize("kind", ["tcp", "websocket"])
def test_who_is_silent_for_long_makes_room(kind: str) -> None:
    async def act() -> None:
        end = End("reader", kind, bounds=Bounds(peers=2, silent_s=0.2))
        async with end.alive():
            (first, first_writer), (_, second_writer) = await end.connected(), await end.connected()
            for writer in (first_writer, second_writer):
                writer.write(GOOD[kind])
            await end.read(2)
            silent = asyncio.create_task(_is_closed(first))
            while not silent.done():
                second_writer.write(GOOD[kind] if kind == "tcp" else GOOD[kind][-10:])
                _, writer = await end.connected()
                writer.write(GOOD[kind])
                await asyncio.sleep(0.05)
                await gone(writer)
            assert _hit(end, "silent for 0.2 s") >= 1
            await gone(second_writer)

    run(act)


def test_a_silent_peer_is_left_alone_while_there_is_room() -> None:
    async def act() -> None:
        end = End("reader", "tcp", bounds=Bounds(peers=2, silent_s=0.01))
        async with end.alive():
            _, writer = await end.connected()
            for number in range(3):
                writer.write(b"%d\n" % number)
                await end.read(number + 1)
                await asyncio.sleep(0.05)  # it is silent for longer than that
            await gone(writer)
        assert not end.far.hits

    run(act)


def test_pings_without_messages_are_not_held_against_anybody() -> None:
    async def act() -> None:
        end = End("reader", "websocket", max_message_bytes=1000, bounds=Bounds(held_bytes=600_000, request_bytes=1000))
        async with end.alive(), aiohttp.ClientSession() as session:
            (await end.connected())[1].close()
            peer = await session.ws_connect(f"http://127.0.0.1:{end.port}/")
            for _ in range(20_000):
                await peer.ping(b"x" * 100)
            await peer.send_str("good")
            assert await end.read(1) == [b"good"]
            await peer.close()
        assert not end.far.hits

    run(act)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_harms_nobody(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def act() -> None:
        end = End("reader", kind, max_message_bytes=10_000)
        async with end.alive():
            for garbage in (
                b"\0" * 100,
                b"\xff" * 100,
                b"GET /%zz HTTP/9.9\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost\r\n\r\n",
            ):
                reader, writer = await end.connected()
                writer.write(garbage)
                writer.write_eof()
                assert await _is_closed(reader)
                await gone(writer)
            _, writer = await end.connected()
            writer.write(GOOD[kind])
            await until(lambda: end.channel.written, "the message")
            await gone(writer)
        assert not end.failed

    run(act)
    assert "Traceback" not in caplog.text


def test_strangers_that_come_and_break_do_not_fill_the_log() -> None:
    async def act() -> None:
        end = End("reader", "tcp", max_message_bytes=10)
        async with end.alive():
            for number in range(50):
                for data in (b"x", b"y" * 11 + b"%d" % number):
                    reader, writer = await end.connected()
                    writer.write(data)
                    if data == b"x":
                        await until(lambda: end.far.peers, "it to be let in")
                        reset(writer)
                    await _is_closed(reader)
            await until(lambda: not end.far.peers, "all to be gone")
        assert end.channel.refused == 50
        assert len([text for text in end.warned if "was reset" in text]) <= 3
        assert len([text for text in end.warned if "longer than" in text]) <= 3

    run(act)


def test_every_bound_is_in_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "network.md").read_text()
    table = page[page.index("## Bounds") :]
    for field in dataclasses.fields(Bounds):
        assert f"`{field.name}`" in table, field.name
        value = getattr(BOUNDS, field.name)
        row = next(line for line in table.splitlines() if f"`{field.name}`" in line)
        shown = f"{value:g} s" if field.name.endswith("_s") else f"{value:,}"
        if field.name.endswith("_bytes") and value % 1024 == 0:
            shown = f"{value >> 20} MiB" if value >= 1 << 20 else f"{value >> 10} KiB"
        assert shown in row, (field.name, shown)
