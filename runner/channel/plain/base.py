"""What all plain peers have in common: who connects, who is waited for, and what a reader or writer here owes them.

Nothing is numbered, so a message that was on its way when a connection went down may be lost, and one that is sent
again may be doubled; `docs/network.md` says which of the two for each kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from runner.channel.base import Outside, Reader, Writer
from runner.channel.link.transport import DownError
from runner.channel.network import FarEnd, Queue, far_name
from runner.codec.base import Batch
from runner.errors import CodecError, RunnerError
from runner.spec.model import Network

SENT_BYTES = 64 << 10
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
PATIENCE_S = 1.0
STALLED_S = 60.0
"""A peer that takes nothing, or sends half a message and nothing more, for so long is let go."""
MOST_PEERS = 64
_TELL_AGAIN_S = 10.0
_ACCEPT_S = 5.0


class Peer(ABC):
    """One connection to some other program."""

    remote: str

    @abstractmethod
    async def read(self) -> Batch | None:
        """The next messages, whole; None: it has ended in order. Raises DownError, and CodecError for what is none."""

    @abstractmethod
    async def write(self, batch: Batch) -> None:
        """Hand messages over. Raises DownError."""

    @abstractmethod
    async def finish(self) -> None:
        """Nothing more comes from here: end in order. The caller bounds the time."""

    @abstractmethod
    def close(self) -> None:
        """End at once. May be called more than once."""


Handle = Callable[[Peer], Awaitable[None]]
"""What is done with each peer; it is closed when that returns."""


class Meeting(ABC):
    """How peers are found: by listening for them or by connecting to one. `address` is for people."""

    address: str

    @abstractmethod
    async def meet(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        """Hand each peer to `handle`, for ever. `tell` is told why nobody is there, and None when somebody is.

        Raises RunnerError for what no other try mends.
        """


async def dial(connect: Callable[[], Awaitable[Peer]], handle: Handle, tell: Callable[[str | None], None]) -> None:
    """`Meeting.meet` of who connects: one peer, and again when it is gone, more and more seldom."""
    wait_s = FIRST_WAIT_S
    while True:
        try:
            peer = await connect()
        except DownError as error:
            tell(str(error))
        else:
            tell(None)
            wait_s = FIRST_WAIT_S
            try:
                await handle(peer)
            finally:
                peer.close()
            tell("the connection is over")
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


class PlainEnd(FarEnd):
    """One far end: what it does with each peer is its direction's."""

    def __init__(self, queue: Queue, network: Network, meeting: Meeting) -> None:
        self.queue = queue
        self.network = network
        self.meeting = meeting
        self.over = asyncio.Event()
        self.peers: set[Peer] = set()
        self.changed = asyncio.Event()
        self._missing: str | None = "nobody has come yet"
        self._outside: Outside | None = None
        self._told_s: dict[str, float] = {}
        self._waits_told = False

    @property
    def trouble(self) -> str | None:
        """See `FarEnd`."""
        if self.writes or self.peers:
            return None
        return f"nobody is there at {self.meeting.address}: {self._missing or 'nobody has come yet'}"

    def abandon(self) -> None:
        """See `FarEnd`."""
        self.over.set()

    async def live(self, outside: Outside) -> None:
        """See `FarEnd`."""
        self._outside = outside
        self.begin()
        tasks = [
            asyncio.ensure_future(each)
            for each in (
                self.meeting.meet(self._handle, self._missed),
                self.work(),
                self.over.wait(),
                self._tell_missing(),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks[:3], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for peer in list(self.peers):
                peer.close()
            self.settle()

    @abstractmethod
    def begin(self) -> None:
        """All ends here are open."""

    @abstractmethod
    async def work(self) -> None:
        """What is done beside the peers; the end of it is the end of all."""

    @abstractmethod
    async def talk(self, peer: Peer) -> None:
        """What is done with one peer. Raises DownError, and RunnerError."""

    @abstractmethod
    def settle(self) -> None:
        """Nothing more comes or goes."""

    def _missed(self, why: str | None) -> None:
        self._missing = why

    async def _handle(self, peer: Peer) -> None:
        if len(self.peers) >= MOST_PEERS:
            self.warn(f"{peer.remote} is turned away: {MOST_PEERS} are connected")
            return
        self.peers.add(peer)
        self.changed.set()
        try:
            await self.talk(peer)
        except DownError as error:
            self.warn(f"{peer.remote}: {error}")
        except CodecError as error:
            self.warn(f"{peer.remote} is let go: {error}")
        finally:
            self.peers.discard(peer)
            self.changed.set()

    async def _tell_missing(self) -> None:
        """Say it once when writers wait for somebody who is not there, and when somebody has come."""
        while True:
            await asyncio.sleep(PATIENCE_S)
            why = self.trouble if not self.writes else self._missing
            if why is not None and not self.peers and not self._waits_told:
                self._waits_told = True
                self.warn(f"waits: {why if not self.writes else f'{self.meeting.address}: {why}'}")
            elif self.peers and self._waits_told:
                self._waits_told = False
                self.warn("somebody is there")

    def warn(self, text: str) -> None:
        """Tell a person; the same thing at most every ten seconds."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s.get(text, -_TELL_AGAIN_S) >= _TELL_AGAIN_S and self._outside is not None:
            if len(self._told_s) > MOST_PEERS:
                self._told_s.clear()
            self._told_s[text] = now_s
            self._outside.warn(f"channel `{self.queue.name}`: {text}")


class PlainSender(PlainEnd):
    """What is written here goes to every peer that is there; while none is, writers wait."""

    writes = False

    def __init__(self, queue: Queue, network: Network, meeting: Meeting) -> None:
        super().__init__(queue, network, meeting)
        self.reader: Reader = queue.open_reader(far_name(""))
        self.reader.on_data = self.changed.set
        self._stopping = False
        self._gone: dict[Peer, asyncio.Event] = {}

    def begin(self) -> None:
        """See `PlainEnd`."""

    def stop(self) -> None:
        """See `FarEnd`."""
        self._stopping = True
        self.changed.set()

    async def talk(self, peer: Peer) -> None:
        """See `PlainEnd`: `work` writes; whatever the peer says is not for us, but its end is."""
        gone = self._gone[peer] = asyncio.Event()
        try:
            await gone.wait()
        finally:
            self._gone.pop(peer, None)

    async def work(self) -> None:
        """See `PlainEnd`."""
        reader = self.reader
        while True:
            self.changed.clear()
            if not self.peers and not (self._stopping and reader.ended):
                if reader.ended and not reader.queued_messages:
                    return
                await self.changed.wait()
                continue
            batch = reader.take(most_bytes=SENT_BYTES) if self.peers else None
            if batch is not None:
                await self._send(batch, reader.number)
            elif reader.ended and (not reader.queued_messages or not self.peers):
                break
            else:
                await self.changed.wait()
        for peer in list(self.peers):
            with contextlib.suppress(DownError, TimeoutError):
                async with asyncio.timeout(_ACCEPT_S):
                    await peer.finish()

    async def _send(self, batch: Batch, number: int) -> None:
        """To all who are there, until it was handed to one at least."""
        self.reader.held += batch.count
        while True:
            peers = list(self.peers)
            results = await asyncio.gather(*(self._hand(peer, batch) for peer in peers))
            if any(results):
                break
            self.changed.clear()
            if self._stopping:
                return
            if not self.peers:
                await self.changed.wait()
        self.reader.held -= batch.count
        self.reader.acknowledge(number, batch.count)

    async def _hand(self, peer: Peer, batch: Batch) -> bool:
        try:
            async with asyncio.timeout(STALLED_S):
                await peer.write(batch)
        except (DownError, TimeoutError) as error:
            why = str(error) or f"it took nothing for {STALLED_S:.0f} s"
            self.warn(f"{peer.remote} is gone: {why}")
            peer.close()
            self.peers.discard(peer)
            if peer in self._gone:
                self._gone[peer].set()
            return False
        return True

    def settle(self) -> None:
        """See `PlainEnd`."""
        self.reader.account.unread += self.reader.held
        self.reader.held = 0
        self.reader.leave()


class PlainReceiver(PlainEnd):
    """What any peer sends goes into the queue, whole messages only; while it is full, nobody is read."""

    writes = True

    def __init__(self, queue: Queue, network: Network, meeting: Meeting) -> None:
        super().__init__(queue, network, meeting)
        self._writer: Writer | None = None
        self._ended = False

    @property
    def writer(self) -> Writer:
        """The end that peers write to."""
        assert self._writer is not None, "a receiver takes nothing before it lives"
        return self._writer

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
        while True:
            await self.room()
            batch = await peer.read()
            if batch is None:
                break
            if batch.count:
                self.publish(batch)
        if self.network.end == "close":
            self.end()

    async def room(self) -> None:
        """Wait until the queue has room."""
        while self.writer.full:
            free = asyncio.Event()
            self.writer.when_room(free.set)
            await free.wait()

    def publish(self, batch: Batch) -> None:
        """Put messages into the queue. Raises CodecError where one cannot be carried on; those before it are taken."""
        if not self._ended:
            self.writer.publish(batch)

    async def safe(self) -> None:
        """Wait until what was published is as durable as the channel is. Raises RunnerError."""
        await self.queue.committed()

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


def never(what: str, remedy: str) -> RunnerError:
    """The error of a place where nobody can ever be met."""
    return RunnerError(what, remedy=remedy)
