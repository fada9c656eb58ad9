"""Contract `batch`: the messages of an input cut into batches, each of which is given to one run of a program."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from runner.bridge.batch_cuts import Cut, Cuts
from runner.bridge.inlet import Inlet, Piece
from runner.channel.base import Reader
from runner.codec.base import Buffer
from runner.spec.model import BatchPolicy

_SHOWN_BYTES = 80


@dataclass(slots=True, eq=False)
class RunBatch:
    """What one run of a program is given: messages of one reader, in order. `attempt` is that of this run, from 1."""

    pieces: list[Piece]
    attempt: int = 1

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
        channel = self.reader.channel
        if self.count > 1:
            return f"messages {self.first:,} to {self.last:,} of channel `{channel}`"
        (payload,) = self.reader.codec.payloads(self.pieces[0].batch)
        shown = payload[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        more = "…" if len(payload) > _SHOWN_BYTES else ""
        return f"message {self.first:,} of channel `{channel}`, {shown!r}{more}"


Asked = asyncio.Future[RunBatch | None]
"""Who waits for a batch; None: nothing more comes for anybody."""


class Batches:
    """See the module; the replicas of a processor share it.

    A batch is cut when somebody asks for one, holds consecutive messages of one channel, and keeps its boundaries
    until its run has succeeded: what came back goes first, to whoever asks.
    """

    backlog_bytes = 0

    def __init__(self, inlet: Inlet, policy: BatchPolicy, cuts: Cuts) -> None:
        self.cuts = cuts
        self._inlet = inlet
        self._policy = policy
        self._forming: list[Piece] = []
        self._plan: Cut | None = None
        """What the batch in the making was cut like in an earlier part of the run."""
        self._following: Piece | None = None
        """What was taken and belongs to the batch after it."""
        self._again: deque[RunBatch] = deque()
        self._running: list[RunBatch] = []
        self._asked: deque[Asked] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        inlet.attach(self)

    def wake(self) -> None:
        """See `runner.bridge.inlet.Hungry`."""
        self._advance()

    def ask(self) -> Asked:
        """The next batch, once there is one; it is then followed by `done`, `again` or `withdraw`."""
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
        batch.attempt += 1
        self._again.append(batch)
        self._advance()

    def leave(self) -> None:
        """The processor wants no more, and its inlet has left: what is in no run counts as unread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pieces = [*(piece for batch in self._again for piece in batch.pieces), *self._forming]
        if self._following is not None:
            pieces.append(self._following)
        self._again.clear()
        self._forming, self._following, self._plan = [], None, None
        self._inlet.give_back(pieces)

    def held(self, reader: Reader) -> int:
        """Messages of `reader` that were taken from its channel and have no outcome."""
        batches = [*self._again, *self._running]
        pieces = [*(piece for batch in batches for piece in batch.pieces), *self._forming]
        if self._following is not None:
            pieces.append(self._following)
        return sum(piece.batch.count for piece in pieces if piece.reader is reader)

    @property
    def starved(self) -> bool:
        """Whether whoever waits for a batch waits for its first message."""
        return not (self._forming or self._following)

    @property
    def last_ones(self) -> bool:
        """Whether nothing is left but what is being run."""
        return self._inlet.ended and not (self._again or self._forming or self._following)

    # -- how they are cut

    def _advance(self) -> None:
        while self._asked:
            batch = self._again.popleft() if self._again else self._formed()
            if batch is None:
                break
            self._running.append(batch)
            self._asked.popleft().set_result(batch)
        if self._asked and self.last_ones and not self._running:
            for asked in self._asked:
                asked.set_result(None)
            self._asked.clear()

    def _formed(self) -> RunBatch | None:
        """The next batch; None while it may become larger, or there is nothing."""
        complete = self._gather()
        if not self._forming:
            return None
        if not complete and not self._due and self._policy.wait_s > 0:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._policy.wait_s, self._waited)
            return None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        attempt = 1 if self._plan is None else self._plan.attempt + 1
        batch = RunBatch(self._forming, attempt)
        self._forming, self._plan, self._due = [], None, False
        return batch

    def _waited(self) -> None:
        self._timer = None
        self._due = True
        self._advance()

    def _gather(self) -> bool:
        """Take what there is; whether nothing more fits, or comes."""
        while True:
            messages, size_bytes = self._room()
            if messages <= 0 or size_bytes == 0:
                return True
            piece = self._take(messages, size_bytes)
            if piece is None:
                return self._inlet.ended
            if self._forming and not self._follows(piece, size_bytes):
                self._following = piece
                return True
            self._forming.append(piece)

    def _room(self) -> tuple[int, int | None]:
        """How many messages, and bytes (None: not bounded), may still come into the batch in the making."""
        count = sum(piece.batch.count for piece in self._forming)
        if self._plan is not None:
            return self._plan.last - self._plan.first + 1 - count, None
        size_bytes = sum(piece.batch.size_bytes for piece in self._forming)
        return self._policy.messages - count, max(0, self._policy.size_bytes - size_bytes)

    def _follows(self, piece: Piece, room_bytes: int | None) -> bool:
        """Whether `piece` belongs to the batch in the making."""
        last = self._forming[-1]
        if piece.reader is not last.reader or piece.number != last.number + last.batch.count:
            return False
        return room_bytes is None or piece.batch.size_bytes <= room_bytes

    def _take(self, messages: int, size_bytes: int | None) -> Piece | None:
        if self._following is not None:
            piece, self._following = self._following, None
            return piece
        if self._forming:
            return self._inlet.take(reader=self._forming[0].reader, most_messages=messages, most_bytes=size_bytes)
        return self._planned() or self._inlet.take(most_messages=messages, most_bytes=size_bytes)

    def _planned(self) -> Piece | None:
        """The beginning of a batch that was cut in an earlier part of the run, and had not succeeded."""
        for reader in self._inlet.readers:
            plan = self.cuts.due(reader.channel)
            if plan is None:
                continue
            piece = self._inlet.take(reader=reader, most_messages=plan.last - plan.first + 1)
            if piece is None:
                continue
            if piece.number == plan.first:
                self._plan = plan
            else:
                self.cuts.forget_due(reader.channel)  # it belongs to a pipeline that was another one then
            return piece
        return None


def acknowledge(pieces: Sequence[Piece]) -> None:
    """All messages of `pieces` are done with."""
    for piece in pieces:
        piece.reader.acknowledge(piece.number, piece.batch.count)
