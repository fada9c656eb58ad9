"""One channel of each kind, from a writer to its readers, whatever is between them: what the contract suite runs on.

A kind that leaves its runner has two ends, each with a channel of its own as two runners have them; others have one.
`kill` leaves them as a runner that was killed does, `open` makes them anew with whatever is on record.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from runner.channel.base import Channel, Outside, Reader, Writer
from runner.channel.durable import DurableChannel
from runner.channel.file_sink import FileSink
from runner.channel.file_source import FileSource
from runner.channel.network import Here, network_channel
from runner.channel.pipe import PipeChannel
from runner.channel.registry import channel_kind
from runner.codec.registry import codec_named
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import Durability, FileEnd, Network
from runner.store.store import Store
from tests.addresses import free_port
from tests.certificates import authority, curve_keys

LINKS = ("tcp", "tcp+tls", "websocket", "zeromq", "zeromq+curve")
PLAIN = ("tcp+plain", "websocket+plain", "zeromq+plain")
KINDS = ("memory", "pipe", "durable", "file", *LINKS, "nats", "http", *PLAIN)
LIMIT_S = 40.0


class Line(ABC):
    """See the module."""

    def __init__(self, kind: str, folder: Path, *, codec: str = "lines", capacity_bytes: int = 1 << 20) -> None:
        self.kind = kind
        self.folder = folder
        self.codec = codec_named(codec)
        self.capacity_bytes = capacity_bytes

    @abstractmethod
    async def open(self) -> None:
        """Make both ends."""

    @abstractmethod
    async def kill(self) -> None:
        """Nothing more is said or committed by either end."""

    @abstractmethod
    async def write(self, payloads: Sequence[bytes]) -> None:
        """Put them into it as soon as it is not full."""

    @abstractmethod
    def full(self) -> bool:
        """Whether its writer has to wait."""

    @abstractmethod
    async def read(self, count: int | None, reader: int = 0) -> list[bytes]:
        """So many messages, each acknowledged (None: all to the end)."""

    @abstractmethod
    async def end(self) -> None:
        """Its writer has ended for good."""

    @abstractmethod
    async def over(self) -> None:
        """All that it has to do is done."""


class PipeLine(Line):
    """The kernel's, with a program's hands at either end."""

    async def open(self) -> None:
        self._pipe = PipeChannel(ChannelSpec("c", kind="pipe"))
        self._writes, self._reads = self._pipe.writing_end(), self._pipe.reading_end()
        os.set_blocking(self._writes, False)
        os.set_blocking(self._reads, False)
        self._decoder = self.codec.decoder(1 << 20)
        self._got: list[bytes] = []
        self._full = False

    async def kill(self) -> None:
        self._pipe.close()

    async def write(self, payloads: Sequence[bytes]) -> None:
        data = memoryview(b"".join(map(self.codec.encode, payloads)))
        while data:
            try:
                data = data[os.write(self._writes, data) :]
                self._full = False
            except BlockingIOError:
                self._full = True
                await asyncio.sleep(0.001)

    def full(self) -> bool:
        return self._full

    async def read(self, count: int | None, reader: int = 0) -> list[bytes]:
        while count is None or len(self._got) < count:
            try:
                data = os.read(self._reads, 1 << 16)
            except BlockingIOError:
                await asyncio.sleep(0.001)
                continue
            if not data:
                break
            self._got += self.codec.payloads(self._decoder.feed(data))
        taken, self._got = (self._got, []) if count is None else (self._got[:count], self._got[count:])
        return taken

    async def end(self) -> None:
        self._pipe.release_writing_end()

    async def over(self) -> None:
        """The kernel has nothing to do."""


class ChannelLine(Line):
    """Whatever has a `Writer` and a `Reader`: `channels` is the one of each end."""

    channels: tuple[Channel, Channel]

    def __init__(self, kind: str, folder: Path, *, durable: bool = False, readers: int = 1, **more: Any) -> None:
        super().__init__(kind, folder, **more)
        self.durable = durable
        self.names = ("r", "s")[:readers]
        self.failed: list[str] = []
        self.warned: list[str] = []
        self._stores: list[Store] = []
        self._living: list[asyncio.Task[None]] = []

    @abstractmethod
    def make(self) -> tuple[Channel, Channel]:
        """The channel of each end."""

    async def open(self) -> None:
        self.channels = self.make()
        writing, reading = self.channels
        self.readers: list[Reader] = [reading.open_reader(name, self.codec) for name in self.names]
        self.came = [asyncio.Event() for _ in self.readers]
        for reader, came in zip(self.readers, self.came, strict=True):
            reader.on_data = came.set
        self.writer: Writer = writing.open_writer("w", self.codec)
        outside = Outside(self.failed.append, self.failed.append, self.warned.append)
        self._living = [asyncio.create_task(each.live(outside)) for each in dict.fromkeys(self.channels)]
        await self.settle()

    async def settle(self) -> None:
        """Both ends are there."""

    def store(self, name: str) -> Store:
        """That of one end, opened."""
        store = Store.open(self.folder / name, sync=False, capacity_bytes={"c": self.capacity_bytes})
        self._stores.append(store)
        return store

    @property
    def durability(self) -> Durability:
        return Durability.PROCESS if self.durable else Durability.MEMORY

    async def kill(self) -> None:
        for each in self._living:
            each.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)
        for channel in dict.fromkeys(self.channels):
            channel.close()
        for store in self._stores:
            await store.flush()
            store.close()
        self._stores.clear()

    async def write(self, payloads: Sequence[bytes]) -> None:
        while self.writer.full:
            room = asyncio.Event()
            self.writer.when_room(room.set)
            await room.wait()
        self.writer.publish(self.codec.batch_of(list(payloads)))
        await asyncio.sleep(0)

    def full(self) -> bool:
        return self.writer.full

    async def read(self, count: int | None, reader: int = 0) -> list[bytes]:
        taking, came, got = self.readers[reader], self.came[reader], list[bytes]()
        while count is None or len(got) < count:
            batch = taking.take(most_messages=None if count is None else count - len(got))
            if batch is not None:
                got += self.codec.payloads(batch)
                taking.acknowledge(taking.number, batch.count)
                await asyncio.sleep(0)
            elif taking.ended and not taking.queued_messages:
                break
            else:
                assert not self.failed, self.failed
                came.clear()
                await came.wait()
        return got

    async def end(self) -> None:
        self.writer.end(for_good=True)

    async def over(self) -> None:
        await asyncio.gather(*self._living)
        assert not self.failed, self.failed


class OwnLine(ChannelLine):
    """A channel of one runner: in memory, or in the store."""

    def make(self) -> tuple[Channel, Channel]:
        spec = ChannelSpec("c", kind=self.kind, capacity_bytes=self.capacity_bytes, durability=self.durability)
        if self.kind == "memory":
            channel = channel_kind("memory")(spec)
        else:
            store = self.store("one")
            channel = DurableChannel(spec, store)
            store.on_freed = lambda _name: channel.room()
        return channel, channel


class FileLine(ChannelLine):
    """A file that one runner writes and another follows."""

    def make(self) -> tuple[Channel, Channel]:
        path = self.folder / "file"
        path.touch()
        common: dict[str, Any] = {"kind": "file", "capacity_bytes": self.capacity_bytes}
        common["durability"] = Durability.PROCESS
        end = FileEnd(path, self.codec.name)
        writing, reading = self.store("writing"), self.store("reading")
        sink = FileSink(ChannelSpec("c", writers=("w",), file=end, **common), writing)
        writing.on_freed = lambda _name: sink.room()
        follows = FileEnd(path, self.codec.name, follow=True)
        source = FileSource(ChannelSpec("c", readers=self.names, file=follows, **common), reading, look_every_s=0.005)
        reading.on_freed = lambda _name: source.room()
        return sink, source


class FarLine(ChannelLine):
    """Two runners, and an address or a server between them. `through`: the port that who connects goes to.

    `closes`: where a plain peer can end the channel, the end of its connection does.
    """

    def __init__(
        self,
        kind: str,
        folder: Path,
        *,
        url: str | None = None,
        through: int | None = None,
        closes: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(kind, folder, **more)
        closes = closes and kind in ("tcp+plain", "websocket+plain")
        self.end_is: Literal["never", "close"] = "close" if closes else "never"
        self.port = free_port()
        self.through = through
        self._url = url

    def make(self) -> tuple[Channel, Channel]:
        return self._end("writing"), self._end("reading")

    def _end(self, side: str) -> Channel:
        writes = side == "writing"
        name, _, protection = self.kind.partition("+")
        plain = name == "http" or protection == "plain"
        spec = ChannelSpec(
            "c",
            name,
            self.capacity_bytes,
            writers=("w",) if writes else (),
            readers=() if writes else self.names,
            durability=self.durability,
            far_readers=("right",) if writes and not plain else (),
            far_writers=("left",) if not writes and not plain else (),
            network=self._network(writes=writes, protection=protection, plain=plain),
        )
        store = self.store(side) if self.durable else None
        channel = network_channel(spec, store, Here("p", "left" if writes else "right", "run"))
        if store is not None:
            store.on_freed = lambda _name: channel.room()
        return channel

    def _network(self, *, writes: bool, protection: str, plain: bool) -> Network:
        if self._url is not None:
            return Network(servers=(self._url,), codec=self.codec.name)
        port = self.through if writes and self.through is not None else self.port
        tls = keys = None
        if protection == "tls":
            made = authority(self.folder)
            tls = made.client if writes else made.server
        elif protection == "curve":
            keys = curve_keys(self.folder)
        common: dict[str, Any] = {"codec": self.codec.name, "tls": tls, "keys": keys}
        return Network(host="127.0.0.1", port=port, plain=plain, end=self.end_is, **common)

    async def over(self) -> None:
        if self.kind != "http":  # a server is there for whoever else may come
            await super().over()


def line(kind: str, folder: Path, **more: Any) -> Line:
    """A channel of that kind, not open yet."""
    if kind == "pipe":
        return PipeLine(kind, folder, **more)
    if kind == "file":
        return FileLine(kind, folder, durable=True, **more)
    if kind in ("memory", "durable"):
        return OwnLine(kind, folder, durable=kind == "durable", **more)
    return FarLine(kind, folder, **more)


@contextlib.asynccontextmanager
async def opened(kind: str, folder: Path, **more: Any) -> Any:
    """One that is open, and is left when the test is over."""
    made = line(kind, folder, **more)
    async with asyncio.timeout(LIMIT_S):
        await made.open()
        try:
            yield made
        finally:
            await made.kill()
