"""Contract `batch`: the messages of an input cut into batches, each of which is given to one run of a program."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from runner.bridge.batch_cuts import Cut, Cuts
from runner.bridge.inlet import Inlet, Piece
from runner.bridge.portion import Portion
from runner.channel.base import Reader
from runner.codec.base import Buffer
from runner.spec.model import BatchPolicy

_SHOWN_BYTES = 80


@dataclass(slots=True, eq=False)
class RunBatch:
    """What one run of a program is given: messages of one reader, in order."""

    pieces: list[Piece]

    @property
    def attempt(self) -> int:
        """How often they are handed out, this run included: the most of any of them."""
        return max(piece.attempt for piece in self.pieces)

    @property
    def reader(self) -> Reader:
        """Whose messages they are."""
        return self.pieces[0].reader

    @property
    def first(self) -> int:
        """The number of the first message."""
        return self.pieces[0].number

    @property
    def last(self) -> int:
        """The number of the last message."""
        return self.pieces[-1].number + self.pieces[-1].batch.count - 1

    @property
    def identity(self) -> tuple[int, int, str]:
        """The numbers of its first and last message as they are told, and whose they are: NAME@EPOCH."""
        number, channel = self.pieces[0].identity
        return number, number + self.count - 1, channel

    @property
    def count(self) -> int:
        """How many messages."""
        return sum(piece.batch.count for piece in self.pieces)

    @property
    def parts(self) -> list[Buffer]:
        """Their bytes, framed."""
        return [part for piece in self.pieces for part in piece.batch.parts]

    @property
    def cut(self) -> Cut:
        """Where it was cut, for the record."""
        return Cut(self.first, self.last, self.attempt)

    def __str__(self) -> str:
        channel, (first, last, _) = self.reader.channel, self.identity
        if self.count > 1:
            return f"messages {first:,} to {last:,} of channel `{channel}`"
        (payload,) = self.reader.codec.payloads(self.pieces[0].batch)
        shown = payload[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        more = "…" if len(payload) > _SHOWN_BYTES else ""
        return f"message {first:,} of channel `{channel}`, {shown!r}{more}"


Asked = asyncio.Future[RunBatch | None]
"""Who waits for a batch; None: nothing more comes for anybody."""


class _Making:
    """The batch in the making of one reader: consecutive messages of it, as many as fit.

    `plan` is what it was cut like in an earlier part of the run (None: it is cut now); `following` are pieces that were
    taken and come after it. `due`: it has waited long enough for more.
    """

    def __init__(self, reader: Reader, policy: BatchPolicy) -> None:
        self.reader = reader
        self.plan: Cut | None = None
        self.pieces: list[Piece] = []
        self.following: deque[Piece] = deque()
        self.due = False
        self.timer: asyncio.TimerHandle | None = None
        self._policy = policy

    def held(self) -> list[Piece]:
        """All that it has."""
        return [*self.pieces, *self.following]

    def room(self) -> tuple[int, int | None]:
        """How many messages, and bytes (None: not bounded), it may still take."""
        count = sum(piece.batch.count for piece in self.pieces)
        if self.plan is not None:
            return self.plan.last - self.plan.first + 1 - count, None
        size_bytes = sum(piece.batch.size_bytes for piece in self.pieces)
        return self._policy.messages - count, max(0, self._policy.size_bytes - size_bytes)

    def fits(self, piece: Piece, room_bytes: int | None) -> bool:
        """Whether `piece` belongs to it."""
        if not self.pieces:
            return True
        last = self.pieces[-1]
        if piece.number != last.number + last.batch.count or piece.number < 1:
            return False
        return room_bytes is None or piece.batch.size_bytes <= room_bytes

    def made(self) -> RunBatch:
        """It is complete; the next one begins."""
        if self.plan is not None:
            for piece in self.pieces:
                piece.attempt = self.plan.attempt + 1
        batch = RunBatch(self.pieces)
        self.cancel()
        self.pieces, self.plan, self.due = [], None, False
        return batch

    def cancel(self) -> None:
        """Wait no longer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Batches:
    """See the module; the replicas of a processor share it.

    A batch is cut when somebody asks for one, holds consecutive messages of one channel, and keeps its boundaries
    until its run has succeeded: what came back goes first, to whoever asks.
    """

    backlog_bytes = 0

    def __init__(self, inlet: Inlet, policy: BatchPolicy, cuts: Cuts) -> None:
        self.cuts = cuts
        self.over = asyncio.Event()
        """Set once nothing more comes for anybody."""
        self._inlet = inlet
        self._policy = policy
        self._makings = deque(_Making(reader, policy) for reader in inlet.readers)
        self._again: deque[RunBatch] = deque()
        self._running: list[RunBatch] = []
        self._asked: deque[Asked] = deque()
        inlet.attach(self)

    def wake(self) -> None:
        """See `runner.bridge.inlet.Hungry`."""
        self._advance()

    def ask(self) -> Asked:
        """The next batch, once there is one; it is then followed by `done`, `again` or `put_back`."""
        asked: Asked = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._advance()
        return asked

    def withdraw(self, asked: Asked) -> None:
        """Nothing is wanted any more; a batch that was got is for somebody else."""
        if asked in self._asked:
            self._asked.remove(asked)
            asked.cancel()
        elif asked.done() and (batch := asked.result()) is not None:
            self.put_back(batch)

    def put_back(self, batch: RunBatch) -> None:
        """It was not run: it is for somebody else."""
        self._running.remove(batch)
        self._again.appendleft(batch)
        self._advance()

    def done(self, batch: RunBatch) -> None:
        """Its run has succeeded, and it is acknowledged."""
        self._running.remove(batch)
        self._advance()

    def again(self, batch: RunBatch) -> None:
        """Its run has failed: the same is to be run once more."""
        self._running.remove(batch)
        _next_attempt(batch)
        self._again.append(batch)
        self._advance()

    def tried(self, portion: Portion) -> RunBatch | None:
        """All messages of `portion`, to be run by themselves; then `done` or `not_tried`. None: it has none."""
        pieces = []
        while (piece := portion.take()) is not None:
            pieces.append(piece)
        if not pieces:
            return None
        batch = RunBatch(pieces)
        self._running.append(batch)
        return batch

    def not_tried(self, batch: RunBatch, portion: Portion) -> None:
        """They are back in `portion`: their program was not even started."""
        self._running.remove(batch)
        portion.give_back(batch.pieces)

    def tried_in_vain(self, batch: RunBatch, portion: Portion, *, owner: int, touched: int) -> None:
        """They are back in `portion`; the run of `owner` failed, perhaps because of one of the first `touched`."""
        self._running.remove(batch)
        _next_attempt(batch)
        culprits: list[Piece] = []
        rest: list[Piece] = []
        for piece in batch.pieces:
            head = min(touched, piece.batch.count)
            touched -= head
            if 0 < head < piece.batch.count:
                piece.batch, behind = self._inlet.codec.skip(piece.batch, head)
                rest.append(piece.rest(head, behind))
            (culprits if head else rest).append(piece)
        portion.give_back(rest)
        portion.blame(culprits, owner=owner, answered=False, after=1)

    def suspect(self, batch: RunBatch, *, owner: int, after: int) -> None:
        """The run of `owner` failed, the `after`th in a row, and one of its messages may be why: all are for a search.

        So is whatever nobody waits for: who searches may need another message to compare with.
        """
        self._running.remove(batch)
        _next_attempt(batch)
        others: list[Piece] = []
        for making in self._makings if not self._asked else ():
            making.cancel()
            others += making.held()
            making.pieces, making.plan, making.due = [], None, False
            making.following.clear()
        self._inlet.give_back(others)
        self._inlet.blame(batch.pieces, owner=owner, answered=False, after=after)
        self._advance()

    @property
    def busy(self) -> bool:
        """Whether any instance runs a batch, or is to have one."""
        return bool(self._running or self._again) or not self.starved

    def leave(self) -> None:
        """The processor wants no more, and its inlet has left: what is in no run counts as unread."""
        pieces = [piece for batch in self._again for piece in batch.pieces]
        self._again.clear()
        for making in self._makings:
            making.cancel()
            pieces += making.held()
            making.pieces, making.plan = [], None
            making.following.clear()
        self._inlet.give_back(pieces)

    def held(self, reader: Reader) -> int:
        """Messages of `reader` that were taken from its channel and have no outcome."""
        pieces = [piece for batch in (*self._again, *self._running) for piece in batch.pieces]
        pieces += [piece for making in self._makings for piece in making.held()]
        return sum(piece.batch.count for piece in pieces if piece.reader is reader)

    @property
    def starved(self) -> bool:
        """Whether whoever waits for a batch waits for its first message."""
        return not any(making.held() for making in self._makings)

    @property
    def last_ones(self) -> bool:
        """Whether nothing is left but what is being run."""
        return self._inlet.ended and self.starved and not self._again

    # -- how they are cut

    def _advance(self) -> None:
        while self._asked:
            batch = self._again.popleft() if self._again else self._cut()
            if batch is None:
                break
            self._running.append(batch)
            self._asked.popleft().set_result(batch)
        if not self._running and self.last_ones:
            self.over.set()
            for asked in self._asked:
                asked.set_result(None)
            self._asked.clear()

    def _cut(self) -> RunBatch | None:
        """The next batch, its channels taking turns; None while each may become larger, or there is nothing."""
        for _ in range(len(self._makings)):
            making = self._makings[0]
            self._makings.rotate(-1)
            complete = self._gather(making) or making.due or self._policy.wait_s == 0
            if making.pieces and complete:
                return making.made()
            if making.pieces and making.timer is None:
                making.timer = asyncio.get_running_loop().call_later(self._policy.wait_s, self._waited, making)
        return None

    def _waited(self, making: _Making) -> None:
        making.timer = None
        making.due = True
        self._advance()

    def _gather(self, making: _Making) -> bool:
        """Take what there is; whether nothing more fits, or comes."""
        reader = making.reader
        while True:
            messages, size_bytes = making.room()
            if messages <= 0 or size_bytes == 0:
                return True
            piece = self._take(making, messages, size_bytes)
            if piece is None:
                return reader.ended and not reader.queued_messages
            begins_another = bool(making.pieces) and self._begins(making, piece)
            if begins_another or not making.fits(piece, size_bytes):
                making.following.appendleft(piece)
                return True
            making.pieces.append(piece)

    def _take(self, making: _Making, messages: int, size_bytes: int | None) -> Piece | None:
        """The next messages of its reader; a single one may be longer than `size_bytes`."""
        channel = making.reader.channel
        while not making.following:
            due = self.cuts.due(channel) if not making.pieces else None
            if due is not None:
                messages, size_bytes = due.last - due.first + 1, None
            piece = self._inlet.take(reader=making.reader, most_messages=messages, most_bytes=size_bytes)
            if piece is None:
                return None
            self._making_of(piece).following.append(piece)  # what came back goes first, whoever asks
        piece = making.following.popleft()
        while (due := self.cuts.due(channel)) is not None and due.first < piece.number:
            self.cuts.take_due(channel)
        if due is not None and due.first == piece.number and not making.pieces:
            making.plan = due
            self.cuts.take_due(channel)
            due = self.cuts.due(channel)
        messages, size_bytes = making.room()
        if due is not None and piece.number < due.first:
            messages = min(messages, due.first - piece.number)
        return self._cut_off(making, piece, messages, size_bytes)

    def _cut_off(self, making: _Making, piece: Piece, messages: int, size_bytes: int | None) -> Piece:
        """Leave what is more than fits to the batch after it."""
        most_bytes = piece.batch.size_bytes if size_bytes is None else size_bytes
        head, rest = self._inlet.codec.cut(piece.batch, most_bytes=max(1, most_bytes), most_messages=messages)
        if rest.count:
            making.following.appendleft(piece.rest(head.count, rest))
            piece.batch = head
        return piece

    def _begins(self, making: _Making, piece: Piece) -> bool:
        """Whether a batch that was cut in an earlier part of the run begins with `piece`."""
        due = self.cuts.due(making.reader.channel)
        return due is not None and due.first == piece.number

    def _making_of(self, piece: Piece) -> _Making:
        return next(making for making in self._makings if making.reader is piece.reader)


def _next_attempt(batch: RunBatch) -> None:
    attempt = batch.attempt + 1
    for piece in batch.pieces:
        piece.attempt = attempt


def acknowledge(pieces: Sequence[Piece]) -> None:
    """All messages of `pieces` are done with."""
    for piece in pieces:
        piece.reader.acknowledge(piece.number, piece.batch.count)
