"""What is written here goes to every plain peer that is there, at most once; while none is, writers wait.

A message is acknowledged when one peer has it, as far as that can be seen from here: the kernel has taken it. What may
have been on its way when the last connection broke is indeterminate, and what was not goes to whoever comes next. In a
durable channel messages are on record as handed out before anybody gets them, so a crash doubles none.
"""

from __future__ import annotations

import asyncio
import contextlib

from runner.channel.base import Reader
from runner.channel.link.transport import DownError
from runner.channel.network import Queue, far_name
from runner.channel.plain.base import Meeting, Peer, PlainEnd
from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.codec.base import Batch
from runner.spec.model import Network
from runner.units import format_count


class PlainSender(PlainEnd):
    """See the module."""

    writes = False

    def __init__(self, queue: Queue, network: Network, meeting: Meeting, bounds: Bounds = BOUNDS) -> None:
        super().__init__(queue, network, meeting, bounds)
        self.reader: Reader = queue.open_reader(far_name(""))
        self.reader.on_data = self.changed.set
        self.reader.claims = True
        self._stopping = False
        self._waiting: tuple[int, Batch] | None = None
        """What was taken and nobody has got, its first number before it."""

    def begin(self) -> None:
        """See `PlainEnd`."""

    def stop(self) -> None:
        """See `FarEnd`."""
        self._stopping = True
        self.changed.set()

    async def talk(self, peer: Peer) -> None:
        """See `PlainEnd`: `work` writes."""
        await peer.gone()

    async def work(self) -> None:
        """See `PlainEnd`."""
        while not self._done:
            self.changed.clear()
            if self.peers and (taken := self._waiting or self._take()) is not None:
                await self._send(*taken)
                continue
            if not self.peers:
                self._give_back()
            await self.changed.wait()
        await asyncio.gather(*map(self._finish, self.peers))

    @property
    def _done(self) -> bool:
        """Whether all is sent, or, in a stop, nobody is there to get it."""
        if not self.reader.ended:
            return False
        nothing = self._waiting is None and not self.reader.queued_messages
        return nothing or (self._stopping and not self.peers)

    def _take(self) -> tuple[int, Batch] | None:
        batch = self.reader.take(
            most_bytes=self.bounds.batch_bytes, most_messages=None if self.queue.codec.framed else 1
        )
        if batch is None:
            return None
        self.reader.held += batch.count
        self._waiting = (self.reader.number, batch)
        return self._waiting

    async def _send(self, number: int, batch: Batch) -> None:
        """To all who are there."""
        peers, taken = list(self.peers), False
        for peer in peers:
            peer.handed = 0
        try:
            taken = any(await asyncio.gather(*(self._hand(peer, batch, number) for peer in peers)))
        finally:
            self._account(number, batch, None if taken else max(peer.handed for peer in peers))

    def _account(self, number: int, batch: Batch, perhaps: int | None) -> None:
        """`perhaps` None: somebody has it all; else nobody has, and so many messages may be with somebody or lost."""
        count = batch.count if perhaps is None else perhaps
        _, rest = self.queue.codec.skip(batch, count)
        self._waiting = (number + count, rest) if rest.count else None
        self.reader.held -= count
        if perhaps is None:
            self.reader.acknowledge(number, count)
        elif perhaps:
            self.reader.passed(number, perhaps)
            self.reader.was_read(perhaps, handled=False)
            self.warn(
                f"{format_count(perhaps, 'message')} may have got lost with a connection: indeterminate",
                kind="indeterminate",
            )

    async def _hand(self, peer: Peer, batch: Batch, number: int) -> bool:
        stalled_s = self.bounds.stalled_s
        try:
            async with asyncio.timeout(None if peer.patient else stalled_s):
                await peer.write(batch, number)
        except TimeoutError:
            self.hit(f"is let go: it took nothing for {stalled_s:g} s", peer.remote)
        except DownError as error:
            self.warn(f"{peer.remote} is gone: {error}", kind=f"gone: {error}")
        else:
            peer.moved = True
            return True
        peer.close()
        self.peers.discard(peer)
        return False

    async def _finish(self, peer: Peer) -> None:
        with contextlib.suppress(DownError, OSError):  # as it may be gone, which nobody has seen yet
            async with asyncio.timeout(2 * self.bounds.close_s):
                await peer.finish()

    def settle(self) -> None:
        """See `PlainEnd`."""
        self._give_back()
        self.reader.account.unread += self.reader.held
        self.reader.held = 0
        self.reader.leave()

    def _give_back(self) -> None:
        """Nobody is there: what nobody was given is on record as such, in a channel that has a record."""
        if self._waiting is not None and self.reader.came_back(*self._waiting):
            self.reader.held -= self._waiting[1].count
            self._waiting = None
        self.reader.let_go()
