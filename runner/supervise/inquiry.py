"""The search for the message that kills its reader, with the messages themselves in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
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

    `inlets` are all whose messages the program answers, each with the group of its suspects. `proceed` says what comes
    next, by port; the instance `owner` runs that, and `ended` is told how that went. Portions are followed by the end
    of input where `ends`. `dead` is called with a message that is to be set aside and what is known against it;
    whatever it raises ends the inquiry. Answers of all messages keep the order of the messages where there is a
    `sequencer`. `elsewhere` tells whether other replicas have messages in flight. `moved` is set when `proceed` may
    have more to say.
    """

    backlog_bytes = 0

    def __init__(
        self,
        inlets: Mapping[Inlet, Iterable[Piece]],
        sequencer: Sequencer | None,
        *,
        owner: int,
        ends: bool,
        succeeded: bool,
        dead: Callable[[Piece, Evidence], None],
        elsewhere: Callable[[], bool],
    ) -> None:
        self.moved = asyncio.Event()
        self._inlets = tuple(inlets)
        self._inlet_of = {id(reader): inlet for inlet in inlets for reader in inlet.readers}
        self._sequencer = sequencer
        self._owner = owner
        self._ends = ends
        self._dead = dead
        self._elsewhere = elsewhere
        self._pieces: list[tuple[int, Piece]] = []
        self._next = 0
        self._portions: dict[Inlet, Portion] = {}
        self._tried: dict[tuple[int, int], int] = {}
        """Of each message of the trial: (its reader, its number), and how it is called here."""
        self._evidence: dict[int, Evidence] = {}
        self._lost = False
        self._seen = self._answered
        for group in inlets.values():
            for piece in group:
                self._add(piece)
        self._search = Search(range(self._next), succeeded=succeeded)
        for inlet in inlets:
            inlet.search = self
            inlet.attach(self)

    @property
    def _answered(self) -> int:
        return sum(inlet.answered for inlet in self._inlets)

    def wake(self) -> None:
        """See `runner.bridge.inlet.Hungry`."""
        self.moved.set()

    def pieces(self, inlet: Inlet) -> list[Piece]:
        """See `runner.bridge.inlet.Held`."""
        held = [piece for _, piece in self._pieces if self._inlet_of[id(piece.reader)] is inlet]
        return held + list(self._portions[inlet].pieces() if inlet in self._portions else ())

    def lose(self, inlet: Inlet) -> None:
        """See `runner.bridge.inlet.Held`."""
        self._lost = True
        self._pieces = [(at, piece) for at, piece in self._pieces if self._inlet_of[id(piece.reader)] is not inlet]
        if inlet in self._portions:
            self._portions[inlet].lose()
        self.moved.set()

    def __str__(self) -> str:
        if self._search.accused is not None:
            return "a message has killed it alone: whether others do as well"
        left = self._search.left
        return f"looking for the message that kills it, {left:,} in question" if left else "no message kills it"

    def proceed(self) -> Mapping[str, Portion] | Over | None:
        """What comes next: what each port is given, or the end. None: wait until `moved`."""
        if self._lost:
            return self._over(None)
        self._hear()
        while True:
            while self._search.wants and self._another():
                pass
            match self._search.next():
                case Trial(messages):
                    return self._try(messages)
                case Dead(message):
                    self._set_aside(message)
                case Closed():
                    return self._over(None)
                case Elsewhere(cause):
                    return Over(cause)
                case NeedsOther():
                    if not all(inlet.nobody_else for inlet in self._inlets) or self._elsewhere():
                        self.moved.clear()
                        return None
                    self._search.no_other()

    def _try(self, messages: tuple[int, ...]) -> Mapping[str, Portion]:
        cut = self._cut_out(messages)
        self._tried = {
            (id(piece.reader), piece.number + index): ordinal + index
            for ordinal, piece in cut
            for index in range(piece.batch.count)
        }
        for inlet in self._inlets:
            mine = [piece for _, piece in cut if self._inlet_of[id(piece.reader)] is inlet]
            self._portions[inlet] = Portion(inlet, mine, ends=self._ends)
        return {inlet.port: portion for inlet, portion in self._portions.items()}

    def _set_aside(self, message: int) -> None:
        ((_, piece),) = self._cut_out((message,))
        self._pieces.append((message, piece))  # it is held here until it is elsewhere
        self._dead(piece, self._evidence[message])
        self._pieces.pop()
        if piece.slot is not None:
            piece.slot.home.give_up(piece.slot)

    def ended(self, *, answered: int, blow: Blow | None, evidence: Evidence) -> None:
        """The run of the portions is over: so many were answered. They hold what is left, and know who was in work."""
        portions, self._portions = self._portions, {}
        tried, self._tried = self._tried, {}
        if self._lost or not portions:
            return
        left: set[int] = set()
        culprits: set[int] = set()
        withdrawn: set[int] = set()
        for portion in portions.values():
            for piece in portion.pieces():
                left.update(self._again(piece, tried))
            for found, pieces in ((culprits, portion.culprits), (withdrawn, portion.withdrawn)):
                found.update(tried[id(piece.reader), number] for piece in pieces for number in _numbers(piece))
        self._pieces.sort(key=_ordinal)
        done = set(tried.values()) - left - withdrawn
        if answered != len(done):
            raise BugError(f"{len(tried)} messages were tried, {len(left)} are left, {answered} were answered")
        self._seen += answered
        self._hear()
        if len(tried) == 1:
            self._evidence[next(iter(tried.values()))] = evidence
        self._search.ended(answered=done, touched=culprits, blow=blow, withdrawn=withdrawn)

    def _again(self, piece: Piece, tried: Mapping[tuple[int, int], int]) -> list[int]:
        """Hold `piece` again, under the names of its messages, which are these."""
        names = [tried[id(piece.reader), number] for number in _numbers(piece)]
        first = 0
        for index in range(1, len(names) + 1):
            if index == len(names):
                self._pieces.append((names[first], piece))
            elif names[index] != names[index - 1] + 1:
                rest = self._split(piece, index - first)
                self._pieces.append((names[first], piece))
                piece, first = rest, index
        return names

    def give_up(self) -> None:
        """Nobody goes on with it: everything is for anybody again."""
        self._over(None)

    def _over(self, cause: str | None) -> Over:
        pieces = {inlet: self.pieces(inlet) for inlet in self._inlets}
        self._pieces, self._portions = [], {}
        for inlet in self._inlets:
            inlet.detach(self)
            if inlet.search is self:
                inlet.search = None
        for inlet in self._inlets if not self._lost else ():
            inlet.put_back(pieces[inlet])
        return Over(cause)

    def _hear(self) -> None:
        """Of messages that others have answered."""
        if self._answered > self._seen:
            self._seen = self._answered
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
        for inlet in self._inlets:
            piece = inlet.take_one(self._owner)
            if piece is not None:
                self._search.add(self._add(piece))
                return True
        return False

    def _cut_out(self, messages: tuple[int, ...]) -> list[tuple[int, Piece]]:
        """The pieces of exactly these messages, in ascending order; they are held here no more."""
        found: list[tuple[int, Piece]] = []
        first = 0
        for index in range(1, len(messages) + 1):
            if index == len(messages) or messages[index] != messages[index - 1] + 1:
                found += self._cut_range(messages[first], messages[index - 1] + 1)
                first = index
        return found

    def _cut_range(self, first: int, end: int) -> list[tuple[int, Piece]]:
        kept: list[tuple[int, Piece]] = []
        found: list[tuple[int, Piece]] = []
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
            found.append((start, piece))
        self._pieces = kept
        return found

    def _split(self, piece: Piece, head: int) -> Piece:
        piece.batch, rest = self._inlet_of[id(piece.reader)].codec.skip(piece.batch, head)
        return piece.rest(head, rest)


def _ordinal(held: tuple[int, Piece]) -> int:
    return held[0]


def _numbers(piece: Piece) -> range:
    return range(piece.number, piece.number + piece.batch.count)
