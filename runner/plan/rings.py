"""Rings of waits: who waits for whom, and whether it comes round. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """`who` waits for `whom` at `channel`: until there is room (`full`), or until a message comes."""

    who: str
    whom: str
    channel: str
    full: bool

    def __str__(self) -> str:
        state = "is full" if self.full else "is empty"
        return f"`{self.who}` waits for `{self.whom}` (channel `{self.channel}` {state})"


def ring_of(waits: Iterable[Wait]) -> tuple[Wait, ...] | None:
    """A ring among `waits` in which somebody waits for room; None when there is none."""
    by_who: dict[str, list[Wait]] = {}
    for wait in waits:
        by_who.setdefault(wait.who, []).append(wait)
    for start in (wait for found in by_who.values() for wait in found if wait.full):
        ring = _path(by_who, start.whom, start.who, (start,))
        if ring is not None:
            return ring
    return None


def _path(by_who: dict[str, list[Wait]], here: str, goal: str, path: tuple[Wait, ...]) -> tuple[Wait, ...] | None:
    if here == goal:
        return path
    for wait in by_who.get(here, ()):
        if all(wait.who != earlier.who for earlier in path):
            found = _path(by_who, wait.whom, goal, (*path, wait))
            if found is not None:
                return found
    return None
