"""The search for the message that kills its reader, with the messages themselves in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runner.bridge.inlet import Inlet, Piece
from runner.bridge.portion import Portion
from runner.bridge.sequence import Sequencer
from runner.errors import BugError
from runner.events import Exited
from runner.plan.poison import Blow, Closed, Dead, Elsewhere, NeedsOther, Search, Trial


@dataclass(frozen=True, slots=True)
class Evidence:
    """The last death of a program that had a message alone in flight."""

    exited: Exited | None
    cause: str
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """The inquiry has ended. `cause`: why the processor fails; None: it goes on."""

    cause: str | None = None


class Inquiry:
    """See the module. It holds the messages in question, each of which it hands out in a `Portion` or gives back.

    `proceed` says what comes next; the portion is run, and `ended` told how that went. `dead` is called with a message
    that is to be set aside and what is known against it; whatever it raises ends the inquiry. Answers of all messages
    keep the order of the messages where there is a `sequencer`. `elsewhere` tells whether other replicas have messages
    in flight. `moved` is set when `proceed` may have more to say.
    """

    backlog_bytes = 0

    def __init__(
        self,
        inlet: Inlet,
        group: Iterable[Piece],
        sequencer: Sequencer | None,
        *,
        succeeded: bool,
        dead: Callable[[Piece, Evidence], None],
        elsewhere: Callable[[], bool],
    ) -> None:
        self.moved = asyncio.Event()
        self._inlet = inlet
        self._sequencer = sequencer
        self._dead = dead
        self._elsewhere = elsewhere
        self._pieces: list[tuple[int, Piece]] = []
        self._next = 0
        self._portion: Portion | None = None
        self._trial: tuple[int, ...] = ()
        self._evidence: dict[int, Evidence] = {}
        self._lost = False
        self._seen = inlet.answered
        for piece in group:
            self._add(piece)
        self._search = Search(range(self._next), succeeded=succeeded)
        inlet.search = self
        inlet.attach(self)

    def wake(self) -> None:
        """See `runner.bridge.inlet.Hungry`."""
        self.moved.set()

    def pieces(self) -> list[Piece]:
        """See `runner.bridge.inlet.Held`."""
        return [piece for _, piece in self._pieces] + list(self._portion.pieces() if self._portion is not None else ())

    def lose(self) -> None:
        """See `runner.bridge.inlet.Held`."""
        self._lost = True
        self._pieces.clear()
        if self._portion is not None:
            self._portion.lose()
        self.moved.set()

    def __str__(self) -> str:
        if self._search.accused is not None:
            return "a message has killed it alone: whether others do as well"
        left = self._search.left
        return f"looking for the message that kills it, {left:,} in question" if left else "no message kills it"

    def proceed(self) -> Portion | Over | None:
        """What comes next: messages to be run, or the end. None: wait until `moved`."""
        if self._lost:
            return self._over(None)
        self._hear()
        while True:
            while self._search.wants and self._another():
                pass
            match self._search.next():
                case Trial(messages):
                    self._trial = messages
                    self._portion = Portion(self._inlet, self._cut_out(messages))
                    return self._portion
                case Dead(message):
                    self._set_aside(message)
                case Closed():
                    return self._over(None)
                case Elsewhere(cause):
                    return Over(cause)
                case NeedsOther():
                    if not self._inlet.nobody_else or self._elsewhere():
                        self.moved.clear()
                        return None
                    self._search.no_other()

    def _set_aside(self, message: int) -> None:
        (piece,) = self._cut_out((message,))
        self._pieces.append((message, piece))  # it is held here until it is elsewhere
        self._dead(piece, self._evidence[message])
        self._pieces.pop()
        if piece.slot is not None:
            piece.slot.home.give_up(piece.slot)

    def ended(self, *, answered: int, touched: int, blow: Blow | None, evidence: Evidence) -> None:
        """The run of the portion is over: so many were answered, so many more had been read, at least in part."""
        portion, trial = self._portion, self._trial
        self._portion, self._trial = None, ()
        if self._lost or portion is None:
            return
        at = answered
        for piece in portion.pieces():
            self._pieces.append((trial[at], piece))
            at += piece.batch.count
        self._pieces.sort(key=_ordinal)
        if at != len(trial):
            raise BugError(f"{len(trial)} messages were tried, {at} are accounted for")
        self._seen += answered
        self._hear()
        if len(trial) == 1:
            self._evidence[trial[0]] = evidence
        self._search.ended(answered=answered, read=answered + touched, blow=blow)

    def give_up(self) -> None:
        """Nobody goes on with it: everything is for anybody again."""
        self._over(None)

    def _over(self, cause: str | None) -> Over:
        pieces, self._pieces = self.pieces(), []
        self._portion = None
        self._inlet.detach(self)
        if self._inlet.search is self:
            self._inlet.search = None
        if not self._lost:
            self._inlet.put_back(pieces)
        return Over(cause)

    def _hear(self) -> None:
        """Of messages that others have answered."""
        if self._inlet.answered > self._seen:
            self._seen = self._inlet.answered
            self._search.succeeded()

    def _add(self, piece: Piece) -> int:
        ordinal = self._next
        self._next += piece.batch.count
        self._pieces.append((ordinal, piece))
        if piece.slot is None and self._sequencer is not None:
            piece.slot = self._sequencer.open(piece.reader, piece.number, piece.batch.count, None)
        return ordinal

    def _another(self) -> bool:
        """Get a message that nobody suspects, to be tried beside the accused; whether there was one."""
        piece = self._inlet.take_one()
        if piece is None:
            return False
        self._search.add(self._add(piece))
        return True

    def _cut_out(self, messages: tuple[int, ...]) -> list[Piece]:
        """The pieces of exactly these messages, in ascending order; they are held here no more."""
        found: list[Piece] = []
        first = 0
        for index in range(1, len(messages) + 1):
            if index == len(messages) or messages[index] != messages[index - 1] + 1:
                found += self._cut_range(messages[first], messages[index - 1] + 1)
                first = index
        return found

    def _cut_range(self, first: int, end: int) -> list[Piece]:
        kept: list[tuple[int, Piece]] = []
        found: list[Piece] = []
        for ordinal, whole in self._pieces:
            start, piece = ordinal, whole
            if start + piece.batch.count <= first or start >= end:
                kept.append((start, piece))
                continue
            if start < first:
                rest = self._split(piece, first - start)
                kept.append((start, piece))
                start, piece = first, rest
            if start + piece.batch.count > end:
                kept.append((end, self._split(piece, end - start)))
            found.append(piece)
        self._pieces = kept
        return found

    def _split(self, piece: Piece, head: int) -> Piece:
        piece.batch, rest = self._inlet.codec.skip(piece.batch, head)
        return piece.rest(head, rest)


def _ordinal(held: tuple[int, Piece]) -> int:
    return held[0]
