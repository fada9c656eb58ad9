"""Channels that leave this runner: a queue here, in memory or in the store, and something far away at one end of it.

What is far away is a `FarEnd`: another runner over a link, a broker, or any program that opens a connection. Those that
read get a `Reader` each, which is `outside`; those that write get a `Writer` each.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from runner.channel.base import Outside, Reader, Writer
from runner.channel.durable import DurableChannel
from runner.channel.memory import MemoryChannel
from runner.codec.base import Codec
from runner.codec.registry import codec_named
from runner.errors import BugError, RunnerError
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import Network
from runner.store.store import Store


@dataclass(frozen=True, slots=True)
class Here:
    """Who this is: the pipeline, the runner ("" where it is the only one its file knows), the run."""

    pipeline: str
    runner: str
    run: str


def far_name(runner: str) -> str:
    """How somebody far away is called where processors are: no processor has such a name."""
    return f"runner {runner}" if runner else "far end"


class Queue:
    """What a far end sees of its channel."""

    def __init__(self, channel: NetworkedMemory | NetworkedDurable, codec: Codec) -> None:
        self.name = channel.name
        self.codec = codec
        self.capacity_bytes = channel.capacity_bytes
        self.store: Store | None = channel.store if isinstance(channel, NetworkedDurable) else None
        """Where the messages are stored that go through here; None: nowhere."""
        self._channel = channel

    @property
    def finished(self) -> bool:
        """Whether all that write here have ended, each at its end."""
        return self._channel.ended and not self._channel.broken_off

    def open_reader(self, name: str) -> Reader:
        """The end for somebody far away who reads; before anything is published."""
        reader = self._channel.open_reader(name, self.codec)
        reader.outside = True
        return reader

    def open_writer(self, name: str) -> Writer:
        """The end for somebody far away who writes; once for each that was expected, when `live` is called."""
        return self._channel.expected_writer(name, self.codec)

    def on_readers_left(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the last of those who read has left; what is published then is for nobody."""
        self._channel.on_readers_left(callback)

    def ended(self) -> None:
        """A writer far away has ended, after its own writer has."""
        self._channel.tell_ended()

    def lost(self, messages: int) -> None:
        """So many messages were acknowledged for this channel and are here no more, nor with who wrote them."""
        self._channel.written += messages
        for reader in self._channel.readers:
            reader.account.indeterminate += messages

    async def committed(self) -> None:
        """Wait until all that was published and acknowledged up to now is as durable as the channel is."""
        if self.store is not None:
            await self.store.flush()

    def when_committed(self, callback: Callable[[], None]) -> None:
        """Call `callback` when what was published up to now is as durable as the channel is; in memory at once."""
        if self.store is not None:
            self.store.transaction.on_committed(callback)
        else:
            callback()


class FarEnd(ABC):
    """Somebody far away, or all who are behind one address. Made before the processors' own ends are opened.

    A far end that writes (`writes`) has as many writers open from the beginning as `writers` says, and opens them by
    `Queue.open_writer` when it lives; it ends each, and then calls `Queue.ended`.
    """

    writes: bool
    listens: str | None = None
    """Where it listens, for people, as soon as it does, where the file says port 0: one that is free."""

    @property
    def writers(self) -> int:
        """How many write here."""
        return int(self.writes)

    @abstractmethod
    async def live(self, outside: Outside) -> None:
        """Move messages until nothing more can come or go. Errors that are not mended by time go to `outside.fail`."""

    @abstractmethod
    def stop(self) -> None:
        """The run is being stopped: take nothing more. What is to be sent still goes to who is there to take it."""

    @abstractmethod
    def abandon(self) -> None:
        """End at once, whatever is not done; `live` returns soon."""

    @property
    def trouble(self) -> str | None:
        """Why it does not take what is to be sent: nobody is there, and why. None: it does."""
        return None


class _Networked(ABC):
    """What both have in common: far ends that live as long as the channel."""

    name: str
    far_ends: Sequence[FarEnd] = ()
    _when_ended: list[Callable[[], None]]

    def on_ended(self, callback: Callable[[], None]) -> None:
        """See `Channel`."""
        self._when_ended.append(callback)

    def tell_ended(self) -> None:
        """A writer far away has ended."""
        for callback in self._when_ended:
            callback()

    async def live(self, outside: Outside) -> None:
        """See `Channel`."""
        try:
            async with asyncio.TaskGroup() as group:
                for each in self.far_ends:
                    group.create_task(each.live(outside))
        except* RunnerError as errors:
            outside.fail(f"channel `{self.name}`: {errors.exceptions[0]}")

    def stop(self) -> None:
        """See `Channel`."""
        for each in self.far_ends:
            each.stop()

    def abandon(self) -> None:
        """See `Channel`."""
        for each in self.far_ends:
            each.abandon()

    @property
    def listens(self) -> str | None:
        """See `Channel`."""
        return next((each.listens for each in self.far_ends if each.listens is not None), None)

    @property
    def far_trouble(self) -> str | None:
        """Why somebody far away does not take what is for it."""
        return next((each.trouble for each in self.far_ends if each.trouble is not None), None)


class NetworkedMemory(_Networked, MemoryChannel):
    """A channel that leaves this runner, with its queue in memory."""

    def __init__(self, spec: ChannelSpec) -> None:
        MemoryChannel.__init__(self, spec)
        self.kind = spec.kind
        self._when_ended = []

    @property
    def trouble(self) -> str | None:
        """See `MemoryChannel`."""
        return self.far_trouble


class NetworkedDurable(_Networked, DurableChannel):
    """A channel that leaves this runner, with its queue in the store."""

    def __init__(self, spec: ChannelSpec, store: Store) -> None:
        DurableChannel.__init__(self, spec, store)
        self.kind = spec.kind
        self._when_ended = []

    @property
    def trouble(self) -> str | None:
        """See `DurableChannel`."""
        return super().trouble or self.far_trouble


MakeFarEnds = Callable[[ChannelSpec, Network, Queue, Here], Sequence[FarEnd]]
"""What a kind is: its far ends for one channel at one runner."""


def network_channel(spec: ChannelSpec, store: Store | None, here: Here) -> NetworkedMemory | NetworkedDurable:
    """The channel that `spec` describes. Raises RunnerError for what can never work (keys that are not there)."""
    if spec.network is None or (spec.durable and store is None):
        raise BugError(f"channel {spec.name} has no network, or no store")
    channel = NetworkedMemory(spec) if store is None or not spec.durable else NetworkedDurable(spec, store)
    queue = Queue(channel, codec_named(spec.network.codec))
    channel.far_ends = _kind(spec.kind, plain=spec.network.plain)(spec, spec.network, queue, here)
    for each in channel.far_ends:
        for _ in range(each.writers):
            channel.expect_writer()
    return channel


_LINK = ("runner.channel.link.kinds", "link_ends")
_KINDS = {
    "tcp": _LINK,
    "websocket": _LINK,
    "zeromq": _LINK,
    "nats": ("runner.channel.nats.kinds", "nats_ends"),
}
_PLAIN = ("runner.channel.plain.kinds", "plain_ends")


def _kind(kind: str, *, plain: bool) -> MakeFarEnds:
    """What makes the far ends of a channel of that kind."""
    module, attribute = _PLAIN if plain and kind != "nats" else _KINDS[kind]
    make: MakeFarEnds = getattr(import_module(module), attribute)
    return make
