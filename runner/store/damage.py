"""What is wrong with a store, and which messages are lost by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.errors import RunnerError


@dataclass(frozen=True, slots=True)
class Damage:
    """One finding. `why` says what was found.

    `channel` None: it is not known which channels are hit, or none is. `first` and `last` are the numbers of the
    messages that are lost; None where they are not known (everything from `first` on, everything up to `last`).
    """

    why: str
    channel: str | None = None
    first: int | None = None
    last: int | None = None

    def __str__(self) -> str:
        if self.channel is None:
            return self.why
        return f"{self._messages()} of channel `{self.channel}`: {self.why}"

    def _messages(self) -> str:
        if self.first is None and self.last is None:
            return "all messages"
        if self.first is None:
            return f"messages up to {self.last:,}"
        if self.last is None:
            return f"messages from {self.first:,} on"
        if self.first == self.last:
            return f"message {self.first:,}"
        return f"messages {self.first:,} to {self.last:,}"


class DamageError(RunnerError):
    """The store is damaged; `damages` (at least one) name what is lost. Nothing else of it is said to be."""

    def __init__(self, folder: str, damages: Sequence[Damage]) -> None:
        self.damages = tuple(damages)
        more = f", and {len(damages) - 1:,} more" if len(damages) > 1 else ""
        super().__init__(
            f"the store is damaged: {damages[0]}{more}",
            where=folder,
            remedy="`connector state check` lists all of it, `connector state reset` gives up what is in the store",
        )
