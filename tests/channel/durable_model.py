"""What has to be true of a durable channel: a model in which messages are single, and what a store has of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from runner.store import Cursor, Store

OPEN, TAKEN, DONE, READ, LOST, DEAD, PAST = "open", "taken", "done", "read", "lost", "dead", "past"
OUTCOMES = {DONE, READ, LOST, DEAD, PAST}
"""In a store a message that was read has an outcome already: nobody gets it again."""


@dataclass
class View:
    """What has to be true of one reader: what became of each message, the first at 0."""

    claims: bool
    codec: str
    fates: list[str] = field(default_factory=list)
    left: bool = False
    gone: bool = False
    """It left for good."""

    def numbers(self, fates: Iterable[str]) -> set[int]:
        """The messages that one of these became of."""
        wanted = set(fates)
        return {number for number, fate in enumerate(self.fates, 1) if fate in wanted}

    def set(self, number: int, count: int, fate: str) -> None:
        """What becomes of so many from `number` on."""
        self.fates[number - 1 : number - 1 + count] = [fate] * count


@dataclass
class Model:
    """The whole. `written` counts also what was stored for nobody."""

    views: dict[str, View]
    sent: list[bytes] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)
    written: int = 0
    ended: bool = False


@dataclass(frozen=True)
class OnDisk:
    """What a store has of it."""

    last: int
    answers: int
    ended: bool
    cursors: dict[str, Cursor]
    first: int

    @classmethod
    def of(cls, store: Store) -> OnDisk:
        """What is committed."""
        ended = store.get("ends", b"c\0w") is not None
        return cls(
            store.state("c").last, store.state("d").last, ended, dict(store.readers("c")), store.state("c").first
        )

    def is_that_of(self, model: Model) -> bool:
        """Whether this was committed at the moment of that model."""
        if (self.last, self.answers, self.ended) != (len(model.sent), len(model.answered), model.ended):
            return False
        for name, view in model.views.items():
            cursor = self.cursors.get(name)
            if (cursor is None) != view.gone:
                return False
            if cursor is None:
                continue
            outcomes = set(range(1, self.last + 1)) - numbers_of(cursor.open_ranges(self.last))
            if outcomes != view.numbers(OUTCOMES) or cursor.dead != len(view.numbers({DEAD})):
                return False
            if cursor.read != len(view.numbers({READ})):  # a program that goes on, or one that has ended
                return False
        return True


def numbers_of(ranges: Iterable[tuple[int, int]]) -> set[int]:
    """Each number in them."""
    return {number for first, last in ranges for number in range(first, last + 1)}
