"""What any plain peer sends goes into the queue, whole messages only; while it is full, nobody is read."""

from __future__ import annotations

import asyncio

from runner.channel.base import Writer
from runner.channel.network import Queue, far_name
from runner.channel.plain.base import Meeting, Peer, PlainEnd
from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.channel.repeats import kind_of
from runner.codec.base import Batch
from runner.errors import CodecError
from runner.spec.model import Network


class PlainReceiver(PlainEnd):
    """See the module."""

    writes = True

    def __init__(self, queue: Queue, network: Network, meeting: Meeting, bounds: Bounds = BOUNDS) -> None:
        super().__init__(queue, network, meeting, bounds)
        self._writer: Writer | None = None
        self._ended = False

    @property
    def writer(self) -> Writer:
        """The end that peers write to."""
        assert self._writer is not None, "a receiver takes nothing before it lives"
        return self._writer

    @property
    def ended(self) -> bool:
        """Whether nothing more is taken."""
        return self._ended or self.over.is_set()

    def begin(self) -> None:
        """See `PlainEnd`."""
        self._writer = self.queue.open_writer(far_name(""))
        self.queue.on_readers_left(self._look_whether_wanted)
        if self._writer.ended_before:
            self.end()

    def _look_whether_wanted(self) -> None:
        if not self._ended and not self.writer.wanted:
            self.end()

    def stop(self) -> None:
        """See `FarEnd`."""
        self.over.set()

    async def work(self) -> None:
        """See `PlainEnd`."""
        await self.over.wait()

    async def talk(self, peer: Peer) -> None:
        """See `PlainEnd`."""
        while not self.ended:
            if self.writer.full:
                peer.waits(for_us=True)
                await self.room()
                peer.waits(for_us=False)
            try:
                batch = await peer.read()
            except CodecError as error:
                self.refuse(peer, error)
                continue
            if batch is None:
                if self.network.end == "close" and (peer.moved or peer.says_end):
                    self.end()
                return
            self._publish_all(peer, batch)

    def refuse(self, peer: Peer, error: CodecError) -> None:
        """What it sent is no message: it is counted. Raises the error where the peer does not go on after it."""
        self.writer.refuse(1)
        if not peer.goes_on:
            raise error
        self.warn(f"{peer.remote}: a message is refused: {error}", kind=f"refused: {kind_of(error)}")

    def _publish_all(self, peer: Peer, batch: Batch) -> None:
        """Raises CodecError where one cannot be carried on, and the peer does not go on after it."""
        while batch.count and not self.ended:
            try:
                self.writer.publish(batch)
            except CodecError as error:
                if not peer.goes_on:
                    raise
                self.warn(f"{peer.remote}: {error}", kind=f"refused: {kind_of(error)}")
                _, batch = self.queue.codec.skip(batch, error.index + 1)
            else:
                break
        peer.moved = True
        peer.taken()

    async def room(self) -> None:
        """Wait until the queue has room."""
        while self.writer.full:
            free = asyncio.Event()
            self.writer.when_room(free.set)
            await free.wait()

    def end(self) -> None:
        """The channel has come to its end."""
        if not self._ended:
            self._ended = True
            self.writer.end(for_good=True)
            self.queue.ended()
        self.over.set()

    def settle(self) -> None:
        """See `PlainEnd`."""
        if not self._ended:
            self._ended = True
            self.writer.end(for_good=False)
            self.queue.ended()
