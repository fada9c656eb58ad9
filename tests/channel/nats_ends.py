"""The two ends of a channel over a real NATS server, each as its runner has it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import pytest

nats = pytest.importorskip("nats")

from runner.channel.base import Outside, Reader, Writer  # noqa: E402
from runner.channel.network import Here, NetworkedDurable, NetworkedMemory, network_channel  # noqa: E402
from runner.codec.lines import LINES  # noqa: E402
from runner.spec.model import Channel, Durability, Network  # noqa: E402
from runner.store.store import Store  # noqa: E402
from tests.nats_server import NatsServer  # noqa: E402

LIVING: set[asyncio.Task[None]] = set()
"""The ends of the test that is run."""


def run(act: Callable[[], Coroutine[Any, Any, None]], *, server_dies: bool = False) -> None:
    """Whatever becomes of it, all that it began has ended: what is left of a failed test must not fail another.

    Where the server dies, nats-py may leave a connection open: `TcpTransport.connect` puts a new one into the place of
    one whose greeting was cut short.
    """

    async def bounded() -> None:
        try:
            async with asyncio.timeout(50):
                await act()
        finally:
            await ended(LIVING)
            await ended(asyncio.all_tasks() - {asyncio.current_task()})
            LIVING.clear()

    with warnings.catch_warnings():
        if server_dies:
            warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(bounded())
        gc.collect()  # what was left open is found in the test that left it


async def ended(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    cancelled = [task for task in tasks if task is not None and not task.done() and task.cancel()]
    await asyncio.gather(*cancelled, return_exceptions=True)


@contextlib.asynccontextmanager
async def streams_of(server: NatsServer) -> AsyncIterator[Any]:
    """The server's streams, for the test itself."""
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


class End:
    """One end of the channel `c`: with a writer or a reader of its own."""

    def __init__(
        self, side: str, server: NatsServer, *, store: Store | None = None, runner: str = "left", **network: Any
    ) -> None:
        writes = side == "writer"
        far_writers = network.pop("far_writers", ("left",))
        plain = network.get("plain", False)
        spec = Channel(
            "c",
            "nats",
            network.pop("capacity", 1 << 20),
            writers=("w",) if writes else (),
            readers=() if writes else ("r",),
            durability=Durability.MEMORY if store is None else Durability.PROCESS,
            far_readers=("right",) if writes and not plain else (),
            far_writers=() if writes or plain else far_writers,
            network=Network(servers=(server.url,), **network),
        )
        self.warned: list[str] = []
        self.failed: list[str] = []
        self.got: list[bytes] = []
        self.data = asyncio.Event()
        here = Here("p", runner if writes else "right", "run")
        self.channel: NetworkedMemory | NetworkedDurable = network_channel(spec, store, here)
        self.reader: Reader | None = None
        self.writer: Writer | None = None
        if writes:
            self.writer = self.channel.open_writer("w", LINES)
        else:
            self.reader = self.channel.open_reader("r", LINES)
            self.reader.on_data = self.data.set
        outside = Outside(self.failed.append, self.failed.append, self.warned.append)
        self.living = asyncio.create_task(self.channel.live(outside))
        LIVING.add(self.living)

    async def write(self, first: int, count: int, *, last: bool = True) -> None:
        assert self.writer is not None
        for start in range(first, first + count, 10):
            while self.writer.full:
                room = asyncio.Event()
                self.writer.when_room(room.set)
                await room.wait()
            numbers = range(start, min(start + 10, first + count))
            self.writer.publish(LINES.batch_of([b"%d" % number for number in numbers]))
            await asyncio.sleep(0)
        if last:
            self.writer.end(for_good=True)

    async def read(self, count: int | None = None) -> list[bytes]:
        assert self.reader is not None
        while count is None or len(self.got) < count:
            batch = self.reader.take()
            if batch is not None:
                self.got += LINES.payloads(batch)
                self.reader.acknowledge(self.reader.number, batch.count)
            elif self.reader.ended and not self.reader.queued_messages:
                assert not self.failed
                break
            else:
                self.data.clear()
                await self.data.wait()
        return self.got

    async def kill(self) -> None:
        self.living.cancel()
        await asyncio.gather(self.living, return_exceptions=True)


def numbers(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]
