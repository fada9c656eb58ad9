"""One input port of a processor: the readers of its channels, shared by its replicas."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from runner.bridge.sequence import Slot
from runner.channel.base import Reader
from runner.codec.base import MERGED_BYTES, Batch, Codec
from runner.plan.nacks import Nacks

_SHARE_BYTES = 64 << 10
SEVERAL = 2
"""What was in work at so many deaths is watched."""
MANY_PIECES = 64
"""From here on small pieces in flight are made one (`merged`)."""


@dataclass(slots=True, eq=False)
class Piece:
    """Messages on their way into one instance. `start` and `end` are byte positions in what was written to it.

    `order` is that in which pieces were handed out, which also holds when they come back. `number` is that of its first
    message among the reader's messages, from 1. `answered` counts the first messages of it that have been answered
    (one-to-one); `slot` keeps the place of the answers where their order is kept. `attempt` counts how often they have
    been handed out (acknowledged). They were in work at `deaths` deaths in a row without one new answer between them,
    and at `returns` deaths in all; `nacks` is what its program has said of it. `origin` is the number and the channel
    (NAME@EPOCH) that a replayed message had, whose own number is below 1.
    """

    reader: Reader
    batch: Batch
    number: int
    order: int = 0
    start: int = 0
    end: int = 0
    answered: int = 0
    slot: Slot | None = None
    attempt: int = 1
    deaths: int = 0
    returns: int = 0
    nacks: Nacks | None = None
    origin: tuple[int, str] | None = None

    @property
    def identity(self) -> tuple[int, str]:
        """The number of its first message, and NAME@EPOCH of the channel that numbers it."""
        return self.origin or (self.number, f"{self.reader.channel}@{self.reader.epoch}")

    def rest(self, head: int, batch: Batch) -> Piece:
        """A piece of its messages from the `head`-th on, which are in `batch`; this one keeps those before."""
        slot = self.slot.home.split(self.slot, batch.count) if self.slot is not None else None
        return replace(self, batch=batch, number=self.number + head, start=0, end=0, answered=0, slot=slot)


def merged(held: deque[Piece], piece: Piece, codec: Codec) -> bool:
    """Make `piece` a part of the last one in `held`, where that is right and both are small; whether it was done."""
    last = held[-1] if held else None
    if last is None or last.batch.size_bytes + piece.batch.size_bytes > MERGED_BYTES:
        return False
    if last.reader is not piece.reader or last.slot is not piece.slot or last.end != piece.start:
        return False
    if last.number + last.batch.count != piece.number or last.deaths != piece.deaths or last.returns != piece.returns:
        return False
    last.batch = codec.merge(last.batch, piece.batch)
    last.end = piece.end
    return True


class Held(Protocol):
    """Whoever holds pieces that are neither handed out nor to be had."""

    def pieces(self, inlet: Inlet) -> Iterable[Piece]:
        """All of them that are of `inlet`."""

    def lose(self, inlet: Inlet) -> None:
        """The processor wants no more of `inlet`: they are accounted for, forget them."""

    def wake(self) -> None:
        """A message was answered."""


class Hungry(Protocol):
    """Whoever takes messages from an inlet."""

    def wake(self) -> None:
        """Messages came, came back, or the input ended."""

    @property
    def backlog_bytes(self) -> int:
        """What it was given and has not read."""


class Inlet:
    """See the module. Takes turns between its channels, and between replicas by who has least to read."""

    def __init__(self, port: str, readers: Sequence[Reader], *, replicas: int) -> None:
        self.port = port
        self.readers = tuple(readers)
        self.codec = readers[0].codec
        self.handed = 0
        self.unanswered = 0
        """How many messages are handed out and neither answered nor back; kept by who answers (acknowledged)."""
        self.answered = 0
        self._replicas = replicas
        self._hungry: list[Hungry] = []
        self._returned: deque[Piece] = deque()
        self._delayed: dict[Piece, asyncio.TimerHandle] = {}
        self.delayed_bytes = 0
        """The bytes of what is given back later."""
        self._reserved: dict[int, deque[Piece]] = {}
        self.parked: deque[list[Piece]] = deque()
        """Groups of suspects: messages that are handed out by a search for the one that kills."""
        self.search: Held | None = None
        """The search that is under way; one at a time."""
        self._order = 0
        self._turn = 0
        for reader in readers:
            reader.on_data = self.wake

    def attach(self, taker: Hungry) -> None:
        """From now on `taker` is woken."""
        self._hungry.append(taker)

    def detach(self, taker: Hungry) -> None:
        """`taker` is woken no more."""
        if taker in self._hungry:
            self._hungry.remove(taker)

    def wake(self) -> None:
        """Tell who is attached, the one with the least to read first."""
        if len(self._hungry) == 1:
            self._hungry[0].wake()
        else:
            for taker in sorted(self._hungry, key=lambda taker: taker.backlog_bytes):
                taker.wake()

    @property
    def queued_messages(self) -> int:
        """Messages that wait for this processor."""
        waiting = sum(reader.queued_messages for reader in self.readers)
        return waiting + sum(piece.batch.count for piece in self._held())

    def waiting_for(self, owner: int) -> int:
        """Messages that wait and may be given to the instance `owner`."""
        waiting = sum(reader.queued_messages for reader in self.readers)
        for piece in (*self._returned, *self._reserved.get(owner, ())):
            waiting += piece.batch.count
        return waiting

    def _held(self) -> Iterator[Piece]:
        """Every piece that was handed out once and is not now."""
        yield from self._returned
        yield from self._delayed
        for reserved in self._reserved.values():
            yield from reserved
        for group in self.parked:
            yield from group
        if self.search is not None:
            yield from self.search.pieces(self)

    @property
    def queued_bytes(self) -> int:
        """Their bytes."""
        waiting = sum(reader.queued_bytes for reader in self.readers)
        return waiting + sum(piece.batch.size_bytes for piece in self._held())

    @property
    def ended(self) -> bool:
        """Whether all writers have ended and nothing waits. Messages may still come back from a death."""
        if self._returned or self._delayed or self._reserved or self.parked or self.search is not None:
            return False
        return self.exhausted

    @property
    def nobody_else(self) -> bool:
        """Whether there is no message, now or later, but those that a search holds and those that are in flight.

        What a program gave back until later does not count: nobody knows whether it ever succeeds.
        """
        return self.exhausted and not (self._returned or self._reserved or self.parked)

    @property
    def only_nacked(self) -> bool:
        """Whether there is no message, now or later, that has not been nacked, but those that are in flight."""
        return self.exhausted and all(piece.nacks is not None for piece in self._held())

    def count_answers(self, messages: int) -> None:
        """So many messages more have been answered."""
        self.answered += messages
        if self.search is not None:
            self.search.wake()

    @property
    def exhausted(self) -> bool:
        """Whether no message comes that was not handed out before."""
        for reader in self.readers:  # noqa: SIM110 - asked after every batch, as in Outlet.full
            if not reader.ended or reader.queued_messages:
                return False
        return True

    @property
    def writers_ended(self) -> bool:
        """Whether all writers have ended."""
        return all(reader.ended for reader in self.readers)

    @property
    def left_before(self) -> bool:
        """Whether it was left for good in an earlier part of the run."""
        return any(reader.left_before for reader in self.readers)

    def leave(self, *, for_good: bool = False) -> None:
        """Want no more; what waits counts as unread. See `Reader.leave`."""
        for piece in self._held():
            piece.reader.account.unread += piece.batch.count
        self._returned.clear()
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
        self.delayed_bytes = 0
        self._reserved.clear()
        self.parked.clear()
        if self.search is not None:
            self.search.lose(self)
            self.search = None
        for reader in self.readers:
            reader.leave(for_good=for_good)

    def take(
        self,
        *,
        owner: int | None = None,
        reader: Reader | None = None,
        most_bytes: int | None = None,
        most_messages: int | None = None,
        never_over: int | None = None,
        new: bool = True,
    ) -> Piece | None:
        """The next messages for one instance, whole; what a death gave back comes first. Bounds as `Reader.take`.

        Not `new`: only what was handed out before. What comes fresh is of `reader`; None: its channels take turns.
        """
        if owner in self._reserved:
            reserved = self._reserved[owner]
            piece = self._take_first(reserved, most_bytes, most_messages, never_over)
            if not reserved:
                del self._reserved[owner]
            return piece
        if self._returned:
            return self._take_first(self._returned, most_bytes, most_messages, never_over)
        if not new:
            return None
        if self._replicas > 1:
            share = max(1, -(-self.queued_messages // self._replicas))
            most_messages = share if most_messages is None else min(share, most_messages)
            most_bytes = _SHARE_BYTES if most_bytes is None else min(_SHARE_BYTES, most_bytes)
        readers = self.readers if reader is None else (reader,)
        for _ in readers:
            reader = readers[self._turn % len(readers)]
            self._turn += 1
            batch = reader.take(most_bytes=most_bytes, most_messages=most_messages, never_over=never_over)
            if batch is not None:
                self.handed += batch.count
                self._order += 1
                return Piece(reader, batch, reader.number, self._order)
        return None

    def next_returns(self, owner: int) -> int:
        """The `returns` of what `take` gives to the instance `owner` next; 0: nothing that was handed out before."""
        waiting = self._reserved.get(owner) or self._returned
        return waiting[0].returns if waiting else 0

    def take_one(self, owner: int) -> Piece | None:
        """One message that is handed to nobody, for a search of the instance `owner`.

        It is a suspect of another group where there is no other.
        """
        piece = self.take(owner=owner, most_messages=1)
        if piece is not None:
            self.handed -= 1
            return piece
        if not self.parked:
            return None
        group = self.parked[-1]
        piece = group.pop()
        if piece.batch.count > 1:
            group.append(piece)
            head = piece.batch.count - 1
            piece.batch, last = self.codec.skip(piece.batch, head)
            return piece.rest(head, last)
        if not group:
            self.parked.pop()
        return piece

    def _take_first(
        self, queue: deque[Piece], most_bytes: int | None, most_messages: int | None, never_over: int | None
    ) -> Piece | None:
        piece = queue.popleft()
        head, rest = self.codec.cut(
            piece.batch,
            most_bytes=piece.batch.size_bytes if most_bytes is None else most_bytes,
            most_messages=piece.batch.count if most_messages is None else most_messages,
        )
        if never_over is not None and head.size_bytes > never_over:
            queue.appendleft(piece)
            return None
        if rest.count:
            queue.appendleft(piece.rest(head.count, rest))
            piece.batch = head
        self.handed += head.count
        return piece

    def give_back(self, pieces: Sequence[Piece], *, owner: int | None = None) -> None:
        """Put messages in front again, in their order; a live replica gets them first.

        Where there are replicas, those that were in work at several deaths are kept for `owner`: behind its other
        messages a second instance would answer these first, again and again, and nobody would see who kills.
        """
        returned: list[Piece] = []
        reserved: list[Piece] = []
        for piece in pieces:
            self.handed -= piece.batch.count
            if piece.reader.came_back(piece.number, piece.batch):
                continue
            if piece.reader.left:
                piece.reader.account.unread += piece.batch.count
            elif owner is not None and self._replicas > 1 and piece.returns >= SEVERAL:
                reserved.append(piece)
            else:
                returned.append(piece)
        _put_in(self._returned, returned)
        if owner is not None and reserved:
            _put_in(self._reserved.setdefault(owner, deque()), reserved)
        if pieces:
            self.wake()

    def blame(self, pieces: Sequence[Piece], *, owner: int, answered: bool, after: int) -> None:
        """Give back what was in work at a death of `owner` that may be the fault of one of these messages.

        `answered`: whether that run had answered any. Those that were there at `after` deaths in a row are parked.
        """
        parked: list[Piece] = []
        others: list[Piece] = []
        for piece in pieces:
            piece.deaths = 1 if answered else piece.deaths + 1
            piece.returns += 1
            suspect = piece.deaths >= after and not piece.reader.left
            (parked if suspect else others).append(piece)
        if parked:
            self.handed -= sum(piece.batch.count for piece in parked)
            self.parked.append(parked)
        self.give_back(others, owner=owner)

    def set_aside(self, piece: Piece) -> None:
        """`piece`, which was handed out, is a dead letter. It may be the last that anybody waited for."""
        del piece
        self.wake()

    def give_back_later(self, piece: Piece, delay_s: float) -> None:
        """Give one piece back in `delay_s` seconds; others do not wait for it."""
        if delay_s <= 0 or piece.reader.left:
            self.give_back([piece])
            return
        self._delayed[piece] = asyncio.get_running_loop().call_later(delay_s, self._due, piece)
        self.delayed_bytes += piece.batch.size_bytes
        self.handed -= piece.batch.count

    def _due(self, piece: Piece) -> None:
        del self._delayed[piece]
        self.delayed_bytes -= piece.batch.size_bytes
        self.handed += piece.batch.count
        self.give_back([piece])

    def release(self, owner: int) -> None:
        """The instance `owner` is not started again: what is kept for it is for anybody, and so are lone suspects."""
        released = [*self._reserved.pop(owner, ())]
        if self.search is None:
            released += [piece for group in self.parked for piece in group]
            self.parked.clear()
        if released:
            _put_in(self._returned, released)
            self.wake()

    def put_back(self, pieces: Sequence[Piece]) -> None:
        """Nobody suspects these any more; they were handed to nobody."""
        for piece in pieces:
            piece.deaths = piece.returns = 0
        _put_in(self._returned, pieces)
        self.wake()

    def returned_messages(self, reader: Reader) -> int:
        """Messages of `reader` that were handed out once, and are not now."""
        return sum(piece.batch.count for piece in self._held() if piece.reader is reader)


def _place(piece: Piece) -> tuple[int, int]:
    return piece.order, piece.number


def _put_in(queue: deque[Piece], pieces: Sequence[Piece]) -> None:
    """Put `pieces` into `queue`, which is in order, and stays so. Mostly they come after all that is there."""
    fresh = sorted(pieces, key=_place)
    if not queue or not fresh or _place(queue[-1]) <= _place(fresh[0]):
        queue.extend(fresh)
        return
    both = sorted((*queue, *fresh), key=_place)
    queue.clear()
    queue.extend(both)
