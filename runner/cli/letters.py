"""Dead letters for the command line: in the state where no runner has it, else over the control socket."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from runner.cli import control
from runner.store import letters as table
from runner.store.letters import Letter
from runner.store.store import Store
from runner.supervise.letter_verbs import REFUSED, Left, Outcome, Shown

_Result = TypeVar("_Result")
_AT_ONCE = 1000
"""So many letters are named in one request."""


class Desk(ABC):
    """See the module. `under_way` (known once `letters` has given it) are back at their readers, without an outcome."""

    running = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.under_way: set[int] = set()

    @abstractmethod
    def letters(self) -> Iterator[Letter]:
        """All of them, oldest first. Raises MachineError and DamageError."""

    @abstractmethod
    def replay(self, numbers: Sequence[int]) -> Outcome:
        """Give them back to their readers."""

    @abstractmethod
    def discard(self, numbers: Sequence[int]) -> Outcome:
        """Give them up."""


def desk_of(folder: Path) -> Desk:
    """The one for the state in `folder`. Raises MachineError."""
    return _Asked(folder) if control.at_work(folder) else _Stored(folder)


class _Asked(Desk):
    """A runner has the state."""

    running = True

    def letters(self) -> Iterator[Letter]:
        """See `Desk`."""
        answers = control.ask(self._folder, "letters", {})
        last = next(answers)
        for answer in answers:
            shown, last = msgspec.json.decode(last, type=Shown), answer
            if shown.under_way:
                self.under_way.add(shown.letter.id)
            yield shown.letter

    def replay(self, numbers: Sequence[int]) -> Outcome:
        """See `Desk`: now."""
        return self._ask("replay", numbers)

    def discard(self, numbers: Sequence[int]) -> Outcome:
        """See `Desk`."""
        return self._ask("discard", numbers)

    def _ask(self, verb: str, numbers: Sequence[int]) -> Outcome:
        whole = Outcome([], [])
        for first in range(0, len(numbers), _AT_ONCE):
            *_, answer = control.ask(self._folder, verb, {"letters": numbers[first : first + _AT_ONCE]})
            outcome = msgspec.json.decode(answer, type=Outcome)
            whole = Outcome(whole.done + outcome.done, whole.left + outcome.left)
        return whole


class _Stored(Desk):
    """Nobody else has the state."""

    def letters(self) -> Iterator[Letter]:
        """See `Desk`."""
        return iter(self._work(lambda store: list(table.letters(store))))

    def replay(self, numbers: Sequence[int]) -> Outcome:
        """See `Desk`: at the next start."""

        def mark(store: Store) -> Outcome:
            outcome = Outcome([], [])
            for item in filter(None, (table.letter(store, number) for number in numbers)):
                if item.kind == "refused":
                    outcome.left.append(Left(item.id, REFUSED))
                else:
                    table.put(store, msgspec.structs.replace(item, replay=True))
                    outcome.done.append(item.id)
            return outcome

        return self._work(mark)

    def discard(self, numbers: Sequence[int]) -> Outcome:
        """See `Desk`."""

        def delete(store: Store) -> Outcome:
            for number in numbers:
                table.delete(store, number)
            return Outcome(list(numbers), [])

        return self._work(delete)

    def _work(self, work: Callable[[Store], _Result]) -> _Result:
        """Do `work` with the store, and commit it."""

        async def at_work() -> _Result:
            store = Store.open(self._folder, sync=True, capacity_bytes={})
            try:
                result = work(store)
                await store.flush()
            finally:
                store.close()
            return result

        return asyncio.run(at_work())
