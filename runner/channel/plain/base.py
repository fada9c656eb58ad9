"""What all plain peers have in common: who connects, who is waited for, and which bounds were hit.

Nothing is numbered, so a message that was on its way when a connection went down may be lost, and one that is sent
again may be doubled; `docs/network.md` says which of the two for each kind.
"""

from __future__ import annotations

import asyncio
import random
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable

from runner.channel.base import Outside
from runner.channel.link.transport import DownError
from runner.channel.network import FarEnd, Queue
from runner.channel.plain.bounds import Bounds
from runner.channel.repeats import Absence, Repeats, kind_of
from runner.codec.base import Batch
from runner.errors import BugError, CodecError
from runner.spec.model import Network

PATIENCE_S = 1.0
_MOST_COUNTED = 64
_ANY_PORT = re.compile(":0(?=/|$)")


class Peer(ABC):
    """One connection to some other program, or whatever stands for it."""

    remote: str
    handed: int = 0
    """How many messages of the batch that was written last the peer may have, in whole or in part."""
    moved: bool = False
    """Whether any message was read of it, or handed to it: then it was right to come."""
    goes_on: bool = False
    """Whether it goes on after a message that is none: that is left out alone."""
    says_end: bool = True
    """Whether it says that it has ended; else its connection is closed, as it is by whoever looks what listens here."""
    patient: bool = False
    """Whether it may take nothing for as long as it likes."""

    @abstractmethod
    async def read(self) -> Batch | None:
        """The next messages, whole; None: it has ended in order.

        Raises DownError, and CodecError for what is no message: all before it were returned.
        """

    async def write(self, batch: Batch, number: int) -> None:
        """Hand the messages over, which are `number` and those after it; returns when nothing of them waits here.

        `handed` says how far it came, also when it raises DownError or is cancelled. Not for one that is only read.
        """
        del batch, number
        raise BugError(f"{self.remote} is only read, and was written to")

    async def gone(self) -> None:
        """Return when it is known to take nothing more (those that are written to). What it says is not for us."""
        raise BugError(f"{self.remote} is only read, and was waited for as one that is written to")

    @abstractmethod
    async def finish(self) -> None:
        """Nothing more comes from here: end in order. The caller bounds the time."""

    @abstractmethod
    def close(self) -> None:
        """End at once. May be called more than once."""

    async def ended(self) -> None:  # noqa: B027 - most have ended when `close` returns
        """Wait until what `close` began is done: its end in order, unless the host is abandoned."""

    def reject(self, error: CodecError) -> None:
        """End at once, as it sent what is no message; it is told so where that can be told."""
        del error
        self.close()

    def waits(self, *, for_us: bool) -> None:  # noqa: B027 - most need not know
        """Whether it waits for us, so that its silence is no fault of its own."""

    def taken(self) -> None:  # noqa: B027 - most need not know
        """What was read last is in the channel, and this is called before anything else happens."""


class Host(ABC):
    """What whoever meets peers asks of the channel's end."""

    bounds: Bounds
    writes: bool
    """Whether peers write, and what they send is read here."""
    abandoned: asyncio.Event
    """Set when nothing is waited for any more, not even the end of a connection in order."""

    @abstractmethod
    async def handle(self, peer: Peer) -> None:
        """Do what is to be done with a peer; it is to be closed when this returns."""

    @abstractmethod
    def tell(self, why: str | None) -> None:
        """Why nobody is there; None: somebody is."""

    @abstractmethod
    def listening(self, port: int) -> None:
        """The address is bound, at this port where the file says 0."""

    @abstractmethod
    def tried(self) -> None:
        """A connection is made, which may come to nothing."""

    @abstractmethod
    def hit(self, why: str, who: str = "somebody") -> None:
        """A bound was hit: it is counted by `why`, and told to a person with `who` before it."""


class Meeting(ABC):
    """How peers are found: by listening for them or by connecting to one. `address` is for people."""

    address: str

    @abstractmethod
    async def meet(self, host: Host) -> None:
        """Hand each peer to the host, for ever. Raises RunnerError for what no other try mends."""


async def dial(connect: Callable[[], Awaitable[Peer]], host: Host) -> None:
    """`Meeting.meet` of who connects: one peer, and again when it is gone, more and more seldom while nothing moves.

    That the kernel has taken something for a peer says nothing of who closes at once what he accepts.
    """
    loop, bounds = asyncio.get_running_loop(), host.bounds
    wait_s = bounds.first_wait_s
    while True:
        host.tried()
        since_s = loop.time()
        try:
            peer = await connect()
        except DownError as error:
            host.tell(str(error))
        else:
            host.tell(None)
            try:
                await host.handle(peer)
            finally:
                peer.close()
                await peer.ended()
            if peer.moved and (host.writes or loop.time() - since_s >= bounds.settled_s):
                wait_s = bounds.first_wait_s
        await asyncio.sleep(jittered(wait_s))
        wait_s = min(2 * wait_s, bounds.longest_wait_s)


def jittered(wait_s: float) -> float:
    """Somewhat less, so that not all come back at the same time."""
    return wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def _first(error: BaseException) -> BaseException:
    """What went wrong, out of the groups that tasks put around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class PlainEnd(FarEnd, Host):
    """One far end: what it does with each peer is its direction's."""

    def __init__(self, queue: Queue, network: Network, meeting: Meeting, bounds: Bounds) -> None:
        self.queue = queue
        self.network = network
        self.meeting = meeting
        self.bounds = bounds
        self.over = asyncio.Event()
        self.abandoned = asyncio.Event()
        self.peers: set[Peer] = set()
        self.changed = asyncio.Event()
        self.hits: Counter[str] = Counter()
        """How often each bound was hit, by what was told."""
        self._missing: str | None = "nobody has come yet"
        self._tries = 0
        """How many connections were made since messages moved."""
        self._outside: Outside | None = None
        self._repeats = Repeats(self._tell)
        self._absence = Absence(self._tell)

    @property
    def trouble(self) -> str | None:
        """See `FarEnd`."""
        return None if self.writes or self.peers else f"nobody is there at {self.missing}"

    @property
    def missing(self) -> str:
        """Where nobody is, and why."""
        return f"{self.meeting.address}: {self._missing or 'nobody has come yet'}"

    def abandon(self) -> None:
        """See `FarEnd`."""
        self.abandoned.set()
        self.over.set()

    async def live(self, outside: Outside) -> None:
        """See `FarEnd`."""
        self._outside = outside
        self.begin()
        tasks = [
            asyncio.ensure_future(each)
            for each in (self.meeting.meet(self), self.work(), self.over.wait(), self._tell_missing())
        ]
        try:
            done, _ = await asyncio.wait(tasks[:3], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                if (error := each.exception()) is not None:
                    raise _first(error)
        finally:
            for peer in list(self.peers):
                peer.close()
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tell_hits()
            self.settle()

    @abstractmethod
    def begin(self) -> None:
        """All ends here are open."""

    @abstractmethod
    async def work(self) -> None:
        """What is done beside the peers; the end of it is the end of all."""

    @abstractmethod
    async def talk(self, peer: Peer) -> None:
        """What is done with one peer. Raises DownError, CodecError, and RunnerError."""

    @abstractmethod
    def settle(self) -> None:
        """Nothing more comes or goes."""

    # -- what meetings ask

    def tell(self, why: str | None) -> None:
        """See `Host`."""
        self._missing = why

    async def handle(self, peer: Peer) -> None:
        """See `Host`."""
        self.peers.add(peer)
        self.changed.set()
        why = "the connection is over"
        try:
            await self.talk(peer)
        except DownError as error:
            why = str(error)
            self.warn(f"{peer.remote}: {error}", kind=f"down: {error}")
        except CodecError as error:
            self.warn(f"{peer.remote} is let go: {error}", kind=f"no message: {kind_of(error)}")
            peer.reject(error)
        finally:
            if peer.moved:
                self._tries = 0
            self.peers.discard(peer)
            self.tell(why)
            self.changed.set()

    def listening(self, port: int) -> None:
        """See `Host`."""
        if not self.network.port:
            self.meeting.address = _ANY_PORT.sub(f":{port}", self.meeting.address, count=1)
            self.listens = self.meeting.address
            self._tell(f"listens at {self.listens}")

    def tried(self) -> None:
        """See `Host`."""
        self._tries += 1

    def hit(self, why: str, who: str = "somebody") -> None:
        """See `Host`."""
        if len(self.hits) < _MOST_COUNTED or why in self.hits:
            self.hits[why] += 1
        self.warn(f"{who} {why}", kind=why)

    # -- what a person is told

    async def _tell_missing(self) -> None:
        """Say it when writers wait for somebody who is not there, and when somebody has come."""
        while True:
            await asyncio.sleep(PATIENCE_S)
            absent = self.trouble is not None if not self.writes else not self.peers and self._missing is not None
            why = f"waits: {self.missing if self.writes else self.trouble}" if absent else None
            self._absence.look(why, "somebody is there", self._tries)

    def _tell_hits(self) -> None:
        for why, times in self.hits.items():
            if times > 1:
                self._tell(f"{times:,} times: somebody {why}")

    def warn(self, text: str, kind: str | None = None) -> None:
        """Tell a person; what is of the same `kind` more and more seldom (see `Repeats`)."""
        self._repeats.say(text, kind)

    def _tell(self, text: str) -> None:
        if self._outside is not None:
            self._outside.warn(f"channel `{self.queue.name}`: {text}")
