"""Contract `acknowledged`: the messages that one session was given, until what became of them is committed."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from runner.bridge.inlet import Inlet, Piece
from runner.codec.base import Codec

_SHOWN_BYTES = 80
EACH_BYTES = 64
"""What a message counts beside its bytes, so that empty ones are bounded too."""


@dataclass(slots=True, eq=False)
class Given:
    """A piece as it was handed out: its payloads have the deliveries from `first` on. `open` are not answered.

    Its frames were written from byte `position` on, each of them `beside_bytes` longer than its payload.
    """

    first: int
    inlet: Inlet
    piece: Piece
    payloads: list[bytes]
    open: int
    position: int = 0
    beside_bytes: Sequence[int] = ()

    def begun(self, read_bytes: int) -> int:
        """How many of its messages a program has read at least in part that has read so many bytes of its input."""
        at = self.position
        for index, (payload, beside_bytes) in enumerate(zip(self.payloads, self.beside_bytes, strict=True)):
            if at >= read_bytes:
                return index
            at += beside_bytes + len(payload)
        return len(self.payloads)


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive messages of one piece, `start` (from 0) to before `stop`."""

    given: Given
    start: int
    stop: int

    @property
    def count(self) -> int:
        """How many messages."""
        return self.stop - self.start

    @property
    def number(self) -> int:
        """That of the first."""
        return self.given.piece.number + self.start

    @property
    def weight_bytes(self) -> int:
        """What they count in a window: their bytes, and what it takes to keep each."""
        return sum(map(len, self.given.payloads[self.start : self.stop])) + EACH_BYTES * self.count

    def name(self, at: int = 0) -> str:
        """One of them by its number, channel and beginning, for an error."""
        payload = self.given.payloads[self.start + at]
        shown = payload[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        more = "…" if len(payload) > _SHOWN_BYTES else ""
        number = self.given.piece.identity[0] + self.start + at
        return f"message {number:,} of channel `{self.given.piece.reader.channel}`, {shown!r}{more}"

    def parted(self, read_bytes: int) -> tuple[Span | None, Span | None]:
        """(What a program has begun to read that has read so many bytes of its input, and what it has not)."""
        at = min(max(self.start, self.given.begun(read_bytes)), self.stop)
        begun = Span(self.given, self.start, at) if at > self.start else None
        return begun, Span(self.given, at, self.stop) if at < self.stop else None

    def again(self, *, attempts: int = 1) -> Piece:
        """The same, to be handed out once more; `attempts` were made with it here."""
        piece = self.given.piece
        batch = piece.batch
        if self.count < batch.count:
            codec: Codec = self.given.inlet.codec
            batch = codec.batch_of(self.given.payloads[self.start : self.stop])
        return replace(piece, batch=batch, number=self.number, attempt=piece.attempt + attempts)


class Handed:
    """See the module. Deliveries are those of one session: they count from 1 without gaps."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._given: list[Given] = []

    def add(
        self,
        first: int,
        inlet: Inlet,
        piece: Piece,
        payloads: list[bytes],
        *,
        position: int = 0,
        beside_bytes: Sequence[int] = (),
    ) -> None:
        """`piece` was handed out, its first message as delivery `first`. See `Given`."""
        self._firsts.append(first)
        self._given.append(Given(first, inlet, piece, payloads, len(payloads), position, beside_bytes))

    def find(self, first: int, last: int) -> list[Span]:
        """The messages with these deliveries, which must be there."""
        at = bisect_right(self._firsts, first) - 1
        found = []
        while first <= last:
            given = self._given[at]
            stop = min(last, given.first + len(given.payloads) - 1) - given.first + 1
            found.append(Span(given, first - given.first, stop))
            first = given.first + stop
            at += 1
        return found

    def answer(self, first: int, last: int) -> list[Span]:
        """The same; they are answered now, each once."""
        spans = self.find(first, last)
        for span in spans:
            span.given.open -= span.count
            if not span.given.open:
                at = bisect_right(self._firsts, span.given.first) - 1
                del self._firsts[at], self._given[at]
        return spans


def by_reader(spans: Iterable[Span]) -> list[tuple[object, int]]:
    """(reader, messages) of `spans`."""
    return [(span.given.piece.reader, span.count) for span in spans]


def returning(
    answered: Iterable[Span], unanswered: Iterable[Span], read_bytes: int
) -> tuple[dict[Inlet, list[Piece]], dict[Inlet, list[Piece]]]:
    """What comes again of a program that died, by inlet: (what it had begun to read, what it had not).

    It has read so many bytes of its input, and of what it `answered` nothing was committed.
    """
    begun: defaultdict[Inlet, list[Piece]] = defaultdict(list)
    unread: defaultdict[Inlet, list[Piece]] = defaultdict(list)
    for span in answered:
        begun[span.given.inlet].append(span.again())
    for span in unanswered:
        first, rest = span.parted(read_bytes)
        if first is not None:
            begun[span.given.inlet].append(first.again())
        if rest is not None:
            unread[span.given.inlet].append(rest.again(attempts=0))
    return begun, unread
