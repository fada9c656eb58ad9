"""Port 0 is one that is free: it is told, and who listens there is found there."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
import zmq
import zmq.asyncio

from tests.addresses import HAS_IPV6
from tests.channel.plain_end import End, run
from tests.waiting import until

HOSTS = ["127.0.0.1", "localhost", *(["::1"] if HAS_IPV6 else [])]
SCHEMES = {"tcp": "tcp", "websocket": "ws", "http": "http", "zeromq": "tcp"}


async def _send(kind: str, address: str) -> None:
    """One message."""
    host, _, port = address.partition("://")[2].rstrip("/").rpartition(":")
    if kind == "tcp":
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"one\n")
        writer.close()
        await writer.wait_closed()
    elif kind == "zeromq":
        with zmq.asyncio.Context() as context, context.socket(zmq.PUSH) as push:
            push.setsockopt(zmq.IPV6, 1)
            push.connect(address)
            await push.send(b"one")
    else:
        async with aiohttp.ClientSession() as session:
            if kind == "http":
                assert (await session.post(address, data=b"one")).status == 200
            else:
                async with session.ws_connect(address) as websocket:
                    await websocket.send_str("one")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", list(SCHEMES))
def test_a_free_port_is_taken_and_told(kind: str, host: str) -> None:
    async def act() -> None:
        end = End("reader", kind, host=host, port=0)
        assert end.channel.listens is None
        async with end.alive():
            address = await until(lambda: end.channel.listens, "it to listen")
            shown = f"[{host}]" if ":" in host else host
            assert address.startswith(f"{SCHEMES[kind]}://{shown}:")
            assert f"channel `c`: listens at {address}" in end.warned
            await _send(kind, address)
            assert await end.read(1) == [b"one"]
            assert end.far.missing.startswith(address), "whoever waits is told the same"

    run(act)


def test_a_port_that_the_file_names_is_not_told_again() -> None:
    async def act() -> None:
        end = End("reader", "tcp")
        async with end.alive():
            await end.connected()
            assert end.channel.listens is None
        assert "listens at" not in end.said

    run(act)
