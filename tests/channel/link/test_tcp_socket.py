"""Frames over a socket: whole and in order however the network cuts them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from runner.channel.link.framing import Lengths
from runner.channel.link.tcp_socket import SocketConnection
from runner.channel.link.transport import DownError

MOST = 3 << 20


def framed(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


@contextlib.asynccontextmanager
async def joined() -> AsyncIterator[tuple[SocketConnection, socket.socket]]:
    """A connection, and the bare socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        bare = socket.create_connection(server.getsockname())
        sock, _ = server.accept()
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for each in (sock, bare):
        each.settimeout(0)
    connection = SocketConnection(sock, Lengths(MOST))
    try:
        async with asyncio.timeout(30):
            yield connection, bare
    finally:
        connection.close("the test is over")
        bare.close()


def of(sizes: list[int]) -> list[bytes]:
    return [bytes(((size + number) % 251,)) * size for number, size in enumerate(sizes)]


@pytest.mark.parametrize("seed", range(4))
def test_any_cut_gives_the_same_frames(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [1, 9, 25, 40_000, 9, 33_000, 3, 1 << 20, (1 << 20) + 5, 21, MOST, 100, 32_764, 32_765, 65_536, 7]
    chance.shuffle(sizes)
    frames = of(sizes)
    data = framed(*frames)
    # near the beginning of a frame each byte may come by itself
    edges = {edge + near for edge in starts(frames) for near in range(-3, 9) if chance.random() < 0.5}
    edges |= {chance.randrange(len(data)) for _ in range(20)}
    cuts = sorted(edge for edge in edges | {0, len(data)} if 0 <= edge <= len(data))

    async def act() -> None:
        loop = asyncio.get_running_loop()
        async with joined() as (connection, bare):

            async def send() -> None:
                for start, end in pairwise(cuts):
                    await loop.sock_sendall(bare, data[start:end])
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)  # let some be read as it is, and some together

            sending = asyncio.create_task(send())
            for frame in frames:
                assert await connection.receive() == frame
            await sending

    asyncio.run(act())


def starts(frames: list[bytes]) -> list[int]:
    at, found = 0, []
    for frame in frames:
        found.append(at)
        at += 4 + len(frame)
    return found


def test_a_frame_behind_a_long_one_does_not_wait_for_more() -> None:
    async def act() -> None:
        loop = asyncio.get_running_loop()
        async with joined() as (connection, bare):
            for short in (b"P", b"some more"):
                await loop.sock_sendall(bare, framed(bytes(500_000)))
                assert len(await connection.receive()) == 500_000
                await loop.sock_sendall(bare, framed(short))
                assert await connection.receive() == short

    asyncio.run(act())


def test_an_end_in_a_long_frame_is_heard_and_what_came_before_it_kept() -> None:
    async def act() -> None:
        loop = asyncio.get_running_loop()
        async with joined() as (connection, bare):
            await loop.sock_sendall(bare, framed(b"whole", bytes(400_000))[:-1])
            bare.shutdown(socket.SHUT_WR)
            assert await connection.receive() == b"whole"
            with pytest.raises(DownError, match="it has closed the connection"):
                await connection.receive()

    asyncio.run(act())


def test_what_is_sent_in_parts_arrives_as_one_while_the_other_side_takes_little() -> None:
    async def act() -> None:
        loop = asyncio.get_running_loop()
        async with joined() as (connection, bare):
            parts = of([1, 70_000, 3] * 900)  # more parts than one call takes
            sending = asyncio.create_task(connection.send(*parts))
            due = framed(b"".join(parts))
            got = bytearray()
            while len(got) < len(due):
                got += await loop.sock_recv(bare, 50_000)
            assert got == due
            await sending

    asyncio.run(act())


def test_a_send_that_waits_hears_of_the_end() -> None:
    async def act() -> None:
        async with joined() as (connection, bare):
            sending = asyncio.create_task(connection.send(bytes(64 << 20)))
            await asyncio.sleep(0)
            assert not sending.done()
            bare.close()
            with pytest.raises(DownError, match="reset"):
                await sending

    asyncio.run(act())


def test_part_of_a_frame_is_progress() -> None:
    async def act() -> None:
        loop = asyncio.get_running_loop()
        async with joined() as (connection, bare):
            frame = framed(bytes(900_000))
            seen = {connection.progress()}
            for start in range(0, 900_000, 100_000):
                await loop.sock_sendall(bare, frame[start : start + 100_000])
                while connection.progress() < start + 100_000:
                    await loop.run_in_executor(None, lambda: None)
                seen.add(connection.progress())
            assert len(seen) == 10
            await loop.sock_sendall(bare, frame[900_000:])
            assert len(await connection.receive()) == 900_000

    asyncio.run(act())
