"""The two ends of a link in one process: a channel of the writing runner and one of the reading runner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from runner.channel.base import Outside, Reader, Writer
from runner.channel.link import kinds
from runner.channel.link.peer import Timing
from runner.channel.link.receiver import Receiver
from runner.channel.link.sender import Sender
from runner.channel.link.transport import Transport
from runner.channel.network import Here, NetworkedDurable, NetworkedMemory, Queue
from runner.codec.registry import codec_named
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import Durability, Network
from runner.store.store import Store

QUICK = Timing(
    hello_s=2.0, beat_s=0.05, silent_s=0.2, first_wait_s=0.001, longest_wait_s=0.01, linger_s=1.0, patience_s=0.05
)


@dataclass
class Told:
    failed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    @property
    def outside(self) -> Outside:
        return Outside(self.failed.append, self.stopped.append, self.warned.append)


class End:
    """One runner's end of the channel `c`: as `side` "writer" it has a writer, as "reader" a reader of its own."""

    def __init__(
        self,
        side: str,
        transport: Transport,
        *,
        listens: bool,
        store: Store | None = None,
        capacity: int = 1 << 20,
        codec: str = "lines",
        far: str | None = None,
        name: str | None = None,
        timing: Timing = QUICK,
        max_message: int = 16 << 20,
    ) -> None:
        self.side = side
        other = far if far is not None else "right" if side == "writer" else "left"
        spec = ChannelSpec(
            "c",
            "tcp",
            capacity,
            writers=("w",) if side == "writer" else (),
            readers=("r",) if side == "reader" else (),
            durability=Durability.PROCESS if store is not None else Durability.MEMORY,
            far_readers=(other,) if side == "writer" else (),
            far_writers=(other,) if side == "reader" else (),
            network=Network(codec=codec, max_message_bytes=max_message),
        )
        here = Here("p", name or ("left" if side == "writer" else "right"), "run")
        self.channel = NetworkedMemory(spec) if store is None else NetworkedDurable(spec, store)
        queue = Queue(self.channel, codec_named(codec))
        peer = (Sender if side == "writer" else Receiver)(
            other, queue, here, most_message_bytes=max_message, timing=timing
        )
        self.peer = peer
        self.link = kinds.LinkEnd([peer], transport, timing, listens=listens)
        self.channel.far_ends = [self.link]
        for _ in range(self.link.writers):
            self.channel.expect_writer()
        self.told = Told()
        self.codec = codec_named(codec)
        self.reader: Reader | None = None
        self.writer: Writer | None = None
        self.got: list[bytes] = []
        self._data = asyncio.Event()
        if side == "reader":
            self.reader = self.channel.open_reader("r", self.codec)
            self.reader.on_data = self._data.set
        else:
            self.writer = self.channel.open_writer("w", self.codec)
        self.living = asyncio.create_task(self.channel.live(self.told.outside))

    async def write(self, first: int, count: int, width: int = 0) -> None:
        """Numbered messages, a few at a time, waiting while the channel is full."""
        assert self.writer is not None
        for start in range(first, first + count, 10):
            numbers = range(start, min(start + 10, first + count))
            while self.writer.full:
                room = asyncio.Event()
                self.writer.when_room(room.set)
                await room.wait()
            self.writer.publish(self.codec.batch_of([b"%0*d" % (width, number) for number in numbers]))
            await asyncio.sleep(0)

    async def read(self, count: int | None = None) -> list[bytes]:
        """So many messages (None: all until the end), each acknowledged."""
        reader = self.reader
        assert reader is not None
        while count is None or len(self.got) < count:
            batch = reader.take(most_messages=None if count is None else count - len(self.got))
            if batch is not None:
                self.got += self.codec.payloads(batch)
                reader.acknowledge(reader.number, batch.count)
                await asyncio.sleep(0)
            elif reader.ended and not reader.queued_messages:
                break
            else:
                self._data.clear()
                await self._data.wait()
        return self.got

    async def over(self) -> None:
        async with asyncio.timeout(20):
            await self.living

    async def kill(self) -> None:
        """As if its runner had died: nothing is said to anybody, nothing more is committed by it."""
        self.living.cancel()
        await asyncio.gather(self.living, return_exceptions=True)


def open_store(folder: Path, capacity: int = 1 << 20) -> Store:
    return Store.open(folder, sync=False, capacity_bytes={"c": capacity})
