"""Who made what outlives its maker (a container, a folder of sockets), and whether that runner still lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that no later one can be taken for: its boot, its pid namespace, its id there, its start in ticks.

    As text it has only letters, digits and dashes, so that it may be part of a file's name.
    """

    boot: str
    namespace: int
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.boot}-{self.namespace}-{self.pid}-{self.started}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner whose text that is; None when it is nobody's."""
        boot, *numbers = text.split("-")
        if not boot or len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
            return None
        return cls(boot, *map(int, numbers))


def is_dead(owner: Owner, me: Owner, started: Callable[[int], int | None]) -> bool:
    """Whether `owner` is known to live no more, as `me` sees it.

    `started` gives the start of a living process of my pid namespace, None when there is none. One of another namespace
    cannot be seen from here: it counts as alive.
    """
    if owner.boot != me.boot:
        return True
    return owner.namespace == me.namespace and started(owner.pid) != owner.started


def leftovers(found: Mapping[str, str], me: Owner, started: Callable[[int], int | None]) -> list[str]:
    """Which of the things in `found` (their ids, each with its owner's text) a dead runner left behind.

    What names no owner as we write it is none of ours and stays.
    """
    owners = {name: Owner.parse(text) for name, text in found.items()}
    return [name for name, owner in owners.items() if owner is not None and is_dead(owner, me, started)]


def owner_in(file_name: str, prefix: str) -> Owner | None:
    """The owner in a name made of `prefix`, the owner, a dash and something random; None where there is none."""
    middle = file_name.removeprefix(prefix).rpartition("-")[0]
    return Owner.parse(middle) if file_name.startswith(prefix) else None
