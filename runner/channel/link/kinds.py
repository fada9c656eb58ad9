"""The far end of a link: whoever is behind the channel's one address, until all is done with them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from functools import partial

from runner.channel.base import Outside
from runner.channel.link.frames import CorruptError, Hello, Refused, encode
from runner.channel.link.peer import TIMING, Peer, Timing, check_fit, exchange, first_of, frame_bound
from runner.channel.link.receiver import Receiver
from runner.channel.link.sender import Sender
from runner.channel.link.transport import Connection, DownError, Listener, RefusedError, Transport
from runner.channel.network import FarEnd, Here, Queue
from runner.channel.repeats import Absence, Repeats
from runner.errors import RunnerError
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import Network
from runner.units import format_count

_GOODBYE_S = 1.0


class LinkEnd(FarEnd):
    """See the module. `listens`: this end binds the address; else it has one peer, and connects to it."""

    def __init__(
        self, peers: Sequence[Sender | Receiver], transport: Transport, timing: Timing, *, listens: bool
    ) -> None:
        self.peers = peers
        self.writes = isinstance(peers[0], Receiver)
        self._transport = transport
        self._timing = timing
        self._listens = listens
        self._over = asyncio.Event()
        self._outside: Outside | None = None
        self._failed: RunnerError | None = None
        self._talking: dict[Peer, asyncio.Task[None]] = {}
        self._repeats = Repeats(self._warn)
        self._absences: dict[Peer, Absence] = {peer: Absence(self._warn) for peer in peers}
        self._tries = 0
        """How many connections were made since one could be talked over."""

    @property
    def writers(self) -> int:
        """See `FarEnd`."""
        return len(self.peers) if self.writes else 0

    @property
    def trouble(self) -> str | None:
        """See `FarEnd`."""
        if self.writes:
            return None
        return next((why for peer in self.peers if (why := peer.trouble()) is not None), None)

    def stop(self) -> None:
        """See `FarEnd`."""
        for peer in self.peers:
            peer.stop()

    def abandon(self) -> None:
        """See `FarEnd`."""
        self._over.set()

    async def live(self, outside: Outside) -> None:
        """See `FarEnd`."""
        self._outside = outside
        for peer in self.peers:
            peer.on_finished = self._look_whether_over
            peer.on_joined = partial(self._joined, peer)
            if isinstance(peer, Receiver):
                peer.on_lost = partial(self._tell_lost, peer)
            peer.open()
        self._look_whether_over()
        try:
            work = self._serve() if self._listens else self._dial(self.peers[0])
            await first_of(work, self._until_over(), self._tell_who_is_missing())
        finally:
            for talking in list(self._talking.values()):
                talking.cancel()
            await asyncio.gather(*self._talking.values(), return_exceptions=True)
            for peer in self.peers:
                peer.settle()
        if self._failed is not None:
            raise self._failed

    async def _until_over(self) -> None:
        """Until nothing more is to be done; who is still told so gets a moment."""
        await self._over.wait()
        if self._talking:
            await asyncio.wait(self._talking.values(), timeout=_GOODBYE_S)

    def _look_whether_over(self) -> None:
        if all(peer.finished.is_set() for peer in self.peers):
            self._over.set()

    def _fail(self, error: RunnerError) -> None:
        """The run cannot go on with this channel."""
        if self._failed is None:
            self._failed = error
        self._over.set()

    # -- connecting

    async def _dial(self, peer: Peer) -> None:
        """Connect, again and again, until there is nothing more to do."""
        wait_s = self._timing.first_wait_s
        while not peer.finished.is_set():
            self._tries += 1
            try:
                connection = await self._transport.connect()
            except DownError as error:
                peer.down = str(error)
                if isinstance(peer, Receiver) and peer.has_all:
                    peer.finish()  # who sent it has ended, so it knows
                    break
            else:
                if await self._talk_to(peer, connection):
                    wait_s = self._timing.first_wait_s
            if not peer.finished.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s * random.uniform(0.5, 1.0)):  # noqa: S311 - jitter
                        await peer.finished.wait()
                wait_s = min(2 * wait_s, self._timing.longest_wait_s)
        await self._over.wait()

    async def _talk_to(self, peer: Peer, connection: Connection) -> bool:
        """Talk over a connection that we made; whether it came to that."""
        began = False
        try:
            theirs = await exchange(connection, peer.hello(), self._timing.hello_s)
            check_fit(peer.hello(), theirs)
            began = True
            await peer.talk(connection, theirs)
        except RefusedError as error:
            self._fail(RunnerError(f"{peer.called} at {self._transport.address} cannot be joined: {error}"))
        except DownError as error:
            peer.down = str(error)
            self._tell_corrupt(peer, error)
        except RunnerError as error:
            self._fail(error)
        finally:
            connection.close("it is over")
        return began

    # -- listening

    async def _serve(self) -> None:
        """Listen, and talk to whoever comes, until there is nothing more to do."""
        listener = await self._listener()
        try:
            await self._over.wait()
        finally:
            await listener.close()

    async def _listener(self) -> Listener:
        """The address may still be another's for a moment."""
        wait_s = self._timing.first_wait_s
        while True:
            try:
                listener = await self._transport.listen(self._accept)
            except DownError as error:
                for peer in self.peers:
                    peer.down = f"nobody can come, as {self._transport.address} cannot be listened at: {error}"
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, self._timing.longest_wait_s)
            else:
                for peer in self.peers:
                    peer.down = f"nobody has come to {listener.address} yet"
                return listener

    async def _accept(self, connection: Connection) -> None:
        """Somebody has come: find out who it is, and talk."""
        try:
            theirs = await exchange(connection, None, self._timing.hello_s)
            peer = self._peer_of(theirs)
            await self._take_over(peer, connection, theirs)
        except RefusedError as error:
            await self._refuse(connection, str(error))
        except DownError as error:
            if isinstance(error, CorruptError):
                self._repeats.say(f"{connection.remote} is not talked to: {error}", kind="not talked to")
        except RunnerError as error:
            self._fail(error)

    def _peer_of(self, theirs: Hello) -> Peer:
        """Whom it says that it is. Raises RefusedError."""
        named = next((peer for peer in self.peers if peer.runner == theirs.runner), None)
        unnamed = next((peer for peer in self.peers if not peer.runner), None)
        peer = named or unnamed
        if peer is None:
            raise RefusedError(f"runner `{theirs.runner}` has no end of channel `{theirs.channel}` in this pipeline")
        check_fit(peer.hello(), theirs)
        return peer

    async def _take_over(self, peer: Peer, connection: Connection, theirs: Hello) -> None:
        """Talk to `peer` over `connection`; an older connection of it ends first."""
        while (older := self._talking.get(peer)) is not None:
            if peer.connection is not None:
                peer.connection.close("a newer connection of it took over")
            await asyncio.wait([older])
            if self._talking.get(peer) is older:
                del self._talking[peer]
        current = asyncio.current_task()
        assert current is not None
        self._talking[peer] = current
        try:
            ours = peer.hello()
            await connection.send(encode(ours))
            await peer.talk(connection, theirs)
        except RefusedError as error:
            self._repeats.say(f"{peer.called} is refused: {error}")
            await self._refuse(connection, str(error))
        except DownError as error:
            peer.down = str(error)
            self._tell_corrupt(peer, error)
        finally:
            if self._talking.get(peer) is current:
                del self._talking[peer]

    async def _refuse(self, connection: Connection, why: str) -> None:
        with contextlib.suppress(DownError, TimeoutError):
            async with asyncio.timeout(self._timing.hello_s):
                await connection.send(encode(Refused(why)))
                await connection.finish()

    # -- what people are told

    def _warn(self, text: str) -> None:
        if self._outside is not None:
            self._outside.warn(f"channel `{self.peers[0].queue.name}`: {text}")

    def _tell_lost(self, peer: Peer, count: int) -> None:
        self._warn(
            f"{format_count(count, 'message')} that {peer.called} had been told were safe here are not:"
            " they count as indeterminate"
        )

    def _tell_corrupt(self, peer: Peer, error: DownError) -> None:
        if isinstance(error, CorruptError):
            self._repeats.say(
                f"{error} ({peer.called}); they connect again, and what was not acknowledged is sent again",
                kind=f"corrupt, {peer.called}",
            )

    def _joined(self, peer: Peer) -> None:
        self._tries = 0
        self._absences[peer].look(None, f"{peer.called} is there")

    async def _tell_who_is_missing(self) -> None:
        """Say it when somebody is not there for a while."""
        while True:
            await asyncio.sleep(self._timing.patience_s)
            for peer in self.peers:
                why = peer.trouble()
                if why is not None and peer.missing_for(self._timing.patience_s):
                    text = f"waits: {why} ({self._transport.address})"
                    self._absences[peer].look(text, f"{peer.called} is there", self._tries)


def link_ends(spec: ChannelSpec, network: Network, queue: Queue, here: Here, timing: Timing = TIMING) -> list[FarEnd]:
    """The far end of the channel `spec` as the runner `here` sees it. Raises RunnerError."""
    from runner.channel.link.transports import transport_for

    most = network.max_message_bytes
    peers: list[Sender | Receiver] = [
        *(Sender(runner, queue, here, most_message_bytes=most, timing=timing) for runner in spec.far_readers),
        *(Receiver(runner, queue, here, most_message_bytes=most, timing=timing) for runner in spec.far_writers),
    ]
    listens = network.binds == ("writer" if spec.far_readers else "reader")
    return [LinkEnd(peers, transport_for(spec.kind, network, frame_bound(most)), timing, listens=listens)]
