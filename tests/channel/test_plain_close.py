"""`end = "close"`: which end of a connection is the end of the channel."""

from __future__ import annotations

import asyncio

import pytest

from runner.channel.plain.bounds import Bounds
from tests.channel.plain_end import End, run
from tests.streams import gone
from tests.waiting import until

ASKS = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize("listens", [True, False])
def test_a_connection_without_a_message_does_not_end_the_channel(listens: bool) -> None:
    async def act() -> None:
        bounds = Bounds(first_wait_s=0.01, longest_wait_s=0.01)
        end = End("reader", "tcp", end="close", listens=listens, bounds=bounds)
        came = [b"", b"", b"", b"one\n"]

        def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(came.pop(0) if came else b"")
            writer.close()

        server = None if listens else await asyncio.start_server(serve, "127.0.0.1", end.port)
        async with end.alive() as living:
            for said in list(came) if listens else ():
                assert not living.done()
                _, writer = await end.connected()
                writer.write(said)
                await gone(writer)
                await until(lambda: living.done() or end.far._missing == "the connection is over", "the end of it")
            await end.read(1)
            await living
        if server is not None:
            server.close()
        assert end.got == [b"one"]

    run(act)


@pytest.mark.parametrize("code", [b"", b"\x03\xe8", b"\x03\xe9"])
def test_a_websocket_ends_by_its_close_frame(code: bytes) -> None:
    async def act() -> None:
        end = End("reader", "websocket", end="close")
        async with end.alive() as living:
            for frame in (None, b"\x88" + bytes([0x80 | len(code)]) + b"\0\0\0\0" + code):
                assert not living.done()
                reader, writer = await end.connected()
                writer.write(ASKS + (frame or b""))
                await reader.readuntil(b"\r\n\r\n")
                if frame is None:  # a connection that goes without a word is no end
                    writer.close()
                    await until(lambda: not end.far.peers, "it to be gone")
            await living
        assert not end.warned

    run(act)
