"""A channel with a plain peer at its far end, in this process: what tests write to it, read of it, and are told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from runner.channel.base import Outside, Reader, Writer
from runner.channel.network import Here, NetworkedDurable, NetworkedMemory, Queue
from runner.channel.plain.base import PlainEnd
from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.channel.plain.kinds import plain_ends
from runner.codec.registry import codec_named
from runner.spec.model import Channel, Durability, Network
from runner.store.store import Store
from tests.addresses import free_port, listens
from tests.waiting import quiet, until

LIMIT_S = 40


def run(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test, which may take so long."""

    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await act()

    asyncio.run(bounded())


class End:
    """The channel `c`. As `side` "writer" somebody here writes to it, as "reader" somebody here reads."""

    def __init__(
        self,
        side: str,
        kind: str,
        *,
        listens: bool = True,
        store: Store | None = None,
        capacity: int = 1 << 20,
        host: str = "127.0.0.1",
        bounds: Bounds = BOUNDS,
        **network: Any,
    ) -> None:
        writes = side == "writer"
        self.host = host
        given = network.pop("port", None)
        self.port: int = free_port() if given is None else given
        codec = codec_named(network.get("codec", "lines"))
        spec = Channel(
            "c",
            kind,
            capacity,
            writers=("w",) if writes else (),
            readers=() if writes else ("r",),
            durability=Durability.MEMORY if store is None else Durability.PROCESS,
            network=Network(
                host=host,
                port=self.port,
                plain=True,
                binds="writer" if writes is listens else "reader",
                **network,
            ),
        )
        assert spec.network is not None
        self.channel = NetworkedMemory(spec) if store is None else NetworkedDurable(spec, store)
        queue = Queue(self.channel, codec)
        (far,) = plain_ends(spec, spec.network, queue, Here("p", "", "run"), bounds)
        assert isinstance(far, PlainEnd)
        self.far: PlainEnd = far
        self.channel.far_ends = [far]
        for _ in range(far.writers):
            self.channel.expect_writer()
        self.codec = codec
        self.warned: list[str] = []
        self.failed: list[str] = []
        self.got: list[bytes] = []
        self._data = asyncio.Event()
        self._came: list[asyncio.StreamWriter] = []
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        if writes:
            self._writer = self.channel.open_writer("w", codec)
        else:
            self._reader = self.channel.open_reader("r", codec)
            self._reader.on_data = self._data.set

    @property
    def account(self) -> dict[str, int]:
        """What became of the messages of the one reader, without what is zero."""
        account = self.channel.readers[0].account
        terms = ("carried", "acknowledged", "dropped", "indeterminate", "unread")
        return {term: count for term in terms if (count := getattr(account, term))}

    @property
    def said(self) -> str:
        """All that a person was told."""
        return "\n".join(self.warned)

    def write(self, *payloads: bytes) -> None:
        """Messages from here."""
        assert self._writer is not None
        self._writer.publish(self.codec.batch_of(payloads))

    def end(self) -> None:
        """Nothing more comes from here."""
        assert self._writer is not None
        self._writer.end(for_good=True)

    async def read(self, count: int) -> list[bytes]:
        """Wait until so many messages have come in all; all of them."""
        assert self._reader is not None
        while len(self.got) < count:
            self._data.clear()
            batch = self._reader.take()
            if batch is None:
                await self._data.wait()
                continue
            self.got += self.codec.payloads(batch)
            self._reader.acknowledge(self._reader.number, batch.count)
        return self.got

    async def live(self) -> None:
        """Until it ends by itself."""
        await self.channel.live(Outside(self.failed.append, self.failed.append, self.warned.append))

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[asyncio.Task[None]]:
        """It lives while the test goes on; it is abandoned afterwards."""
        task = asyncio.create_task(self.live())
        try:
            yield task
        finally:
            self.channel.abandon()
            await task
            for writer in self._came:
                if not writer.is_closing():
                    writer.transport.abort()

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection to it, as soon as it listens."""
        await until(lambda: listens(self.port), "it to listen")
        reader, writer = await asyncio.open_connection(self.host, self.port)
        self._came.append(writer)
        return reader, writer


async def stuck(end: End) -> None:
    """Wait until nothing more is taken from the channel: the kernel's buffers are full."""
    await until(lambda: any(peer.handed for peer in end.far.peers), "somebody to get something")
    await quiet(lambda: (end.channel.readers[0].queued_messages, [peer.handed for peer in end.far.peers]))


async def narrow(port: int) -> socket.socket:
    """A connection whose receive buffer in the kernel is small, as soon as somebody listens."""
    await until(lambda: listens(port), "it to listen")
    client = socket.socket()
    client.setblocking(False)  # noqa: FBT003 - positional only
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    return client


def reset(writer: asyncio.StreamWriter) -> None:
    """Go without a word: the other side gets a reset."""
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


def numbered(count: int, size: int = 100) -> list[bytes]:
    """So many messages, each with its number."""
    return [b"%d " % number + b"." * size for number in range(1, count + 1)]


def numbers(lines: bytes) -> list[int]:
    """Those of the whole messages in a stream of lines."""
    return [int(line.split()[0]) for line in lines.split(b"\n")[:-1]]
