"""Rings of waits: who waits for whom, and whether it comes round. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
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


def stuck(waits: Iterable[Wait]) -> list[Wait]:
    """Those of `waits` that cannot end by themselves, if nobody but those who wait is to move.

    Whoever waits for room goes on only when the one reader has made some; whoever waits for a message goes on as soon
    as any of those that could write one does, so it is stuck only when all of them are.
    """
    by_who: dict[str, list[Wait]] = {}
    for wait in waits:
        by_who.setdefault(wait.who, []).append(wait)
    while True:
        free = [who for who, found in by_who.items() if not _is_stuck(found, by_who)]
        if not free:
            return [wait for found in by_who.values() for wait in found if wait.whom in by_who]
        for who in free:
            del by_who[who]


def _is_stuck(found: list[Wait], by_who: Mapping[str, list[Wait]]) -> bool:
    messages = [wait for wait in found if not wait.full]
    if any(wait.full and wait.whom in by_who for wait in found):
        return True
    return bool(messages) and all(wait.whom in by_who for wait in messages)


def ring_of(waits: Iterable[Wait]) -> tuple[Wait, ...] | None:
    """A shortest ring among `waits` in which somebody waits for room, beginning there; None when there is none."""
    by_who: dict[str, list[Wait]] = {}
    for wait in waits:
        by_who.setdefault(wait.who, []).append(wait)
    rings = (_ring_from(wait, by_who) for found in by_who.values() for wait in found if wait.full)
    return min((ring for ring in rings if ring is not None), key=len, default=None)


def _ring_from(first: Wait, by_who: Mapping[str, list[Wait]]) -> tuple[Wait, ...] | None:
    """The shortest way from `first` back to who waits there, breadth first."""
    ways: deque[tuple[Wait, ...]] = deque([(first,)])
    seen = {first.whom}
    while ways:
        way = ways.popleft()
        here = way[-1].whom
        if here == first.who:
            return way
        for wait in by_who.get(here, ()):
            if wait.whom not in seen:
                seen.add(wait.whom)
                ways.append((*way, wait))
    return None
