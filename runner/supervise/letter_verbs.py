"""What the control socket answers about dead letters, while the pipeline runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from runner.store.letters import Letter
from runner.supervise.control import Verb
from runner.supervise.letters import DeadLetters

if TYPE_CHECKING:
    from runner.supervise.replay import Replays  # and with it all of a run, which whoever asks has no need of

REFUSED = "a refused message has no reader: export it, mend it, and write it again"


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which letters."""

    letters: tuple[int, ...]


class Shown(msgspec.Struct, frozen=True):
    """A letter. `under_way`: it was given back to its reader, and nothing has become of it yet."""

    letter: Letter
    under_way: bool


class Left(msgspec.Struct, frozen=True):
    """A letter with which that was not done, and why."""

    letter: int
    why: str


class Outcome(msgspec.Struct, frozen=True):
    """With which letters it was done, and with which not."""

    done: list[int]
    left: list[Left]


class LetterVerbs:
    """See the module."""

    def __init__(self, letters: DeadLetters, replays: Replays) -> None:
        self._letters = letters
        self._replays = replays

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """By their names."""
        return {"letters": self._show, "replay": self._replay, "discard": self._discard}

    async def _show(self, arguments: msgspec.Raw) -> AsyncIterator[Shown | Outcome]:
        """Every letter, oldest first; none is held while it is sent."""
        del arguments
        for number in self._letters.numbers():
            letter = self._letters.find(number)
            if letter is not None:
                yield Shown(letter, number in self._letters.under_way)
        yield Outcome([], [])

    async def _replay(self, arguments: msgspec.Raw) -> AsyncIterator[Outcome]:
        """Give them back to their readers, now; what cannot be, at the next start."""
        done: list[int] = []
        left: list[Left] = []
        for letter in self._asked(arguments, left):
            if letter.kind == "refused":
                left.append(Left(letter.id, REFUSED))
                continue
            why_not = self._replays.now(letter)
            if why_not is None:
                done.append(letter.id)
            else:
                left.append(Left(letter.id, f"to be replayed at the next start: {why_not}"))
        await self._letters.committed()
        yield Outcome(done, left)

    async def _discard(self, arguments: msgspec.Raw) -> AsyncIterator[Outcome]:
        """Give them up."""
        done: list[int] = []
        left: list[Left] = []
        for letter in self._asked(arguments, left):
            self._letters.discard(letter)
            done.append(letter.id)
        await self._letters.committed()
        yield Outcome(done, left)

    def _asked(self, arguments: msgspec.Raw, left: list[Left]) -> list[Letter]:
        """Those that are there and not on their way to their reader."""
        found = []
        for number in msgspec.json.decode(arguments, type=Asked).letters:
            letter = self._letters.find(number)
            if letter is None:
                left.append(Left(number, "it is gone"))
            elif number in self._letters.under_way:
                left.append(Left(number, "it was given back to its reader, which has not answered yet"))
            else:
                found.append(letter)
        return found
