"""What sinks and stores have of numbered messages, compared with what was sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MESSAGE = re.compile(rb"([ab])(\d{9}) (x*)")
Sent = Mapping[str, int]
"""How many messages each source sent, by its letter."""
Origin = tuple[str, int]
"""A message: the letter of its source, and its number there."""


def read(payload: bytes) -> Origin | None:
    """Which message it is; None: none that anybody sent, whole."""
    found = MESSAGE.fullmatch(payload)
    if found is None or len(found[3]) != int(found[2]) % 90:
        return None
    return found[1].decode(), int(found[2])


def _torn(payload: bytes) -> bool:
    """Whether it may be the beginning of a message."""
    return len(payload) < 11 or (MESSAGE.fullmatch(payload) is not None and len(payload) < 11 + int(payload[1:10]) % 90)


@dataclass
class Seen:
    """The messages of one channel, by their numbers in it: what a number meant once it means for ever."""

    where: str
    numbers: dict[int, Origin] = field(default_factory=dict)
    places: dict[Origin, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, number: int, payload: bytes) -> None:
        """Message `number` of the channel."""
        origin = read(payload)
        if origin is None:
            self.wrong.append(f"message {number} is {payload[:100]!r}")
            return
        if self.numbers.setdefault(number, origin) != origin:
            self.wrong.append(f"message {number} was {self.numbers[number]} and is {origin}")
        if self.places.setdefault(origin, number) != number:
            self.wrong.append(f"{origin} is message {self.places[origin]} and {number}")

    def faults(self, sent: Sent, *, ordered: bool, complete: bool = True) -> list[str]:
        """What is not as it has to be."""
        found = [f"{self.where}: {each}" for each in self.wrong[:5]]
        found += _foreign(self.where, self.places, sent)
        if complete:
            found += _lost(self.where, self.places, sent)
            if len(self.numbers) != max(self.numbers, default=0):
                found.append(f"{self.where}: {max(self.numbers)} numbers, {len(self.numbers)} messages")
        if ordered:
            found += _disorder(self.where, [self.numbers[number] for number in sorted(self.numbers)])
        return found


class File:
    """What a sink has in its file, read on as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[tuple[bytes, bytes]] = []
        """(number or -, payload) of every whole line, those of torn ones among them."""
        self.origins: dict[Origin, None] = {}
        self._at = 0

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        return self.path.stat().st_size if self.path.exists() else 0

    def read_on(self) -> int:
        """How many different messages it has by now."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._at)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._at += len(whole) + len(newline)
            for line in filter(None, whole.split(b"\n")):
                number, _, payload = line.partition(b" ")
                self.lines.append((number, payload))
                origin = read(payload)
                if origin is not None:
                    self.origins.setdefault(origin)
        return len(self.origins)

    def faults(self, sent: Sent, *, ordered: bool, alone: bool, again: bool) -> list[str]:
        """What is not as it has to be.

        `ordered`: the channel is; `alone`: one program wrote it; `again`: a message may be there more than once, as
        its program was killed.
        """
        self.read_on()
        where = self.path.name
        numbered = Seen(where)
        whole: list[Origin] = []
        found = []
        for number, payload in self.lines:
            origin = read(payload)
            if origin is None:
                if not (again and _torn(payload)):
                    found.append(f"{where}: {payload[:100]!r} was never sent")
                continue
            whole.append(origin)
            if number != b"-":
                numbered.add(int(number), payload)
        if numbered.numbers:
            found += numbered.faults(sent, ordered=ordered)
        if not again:
            found += [f"{where}: {origin} is there {n} times" for origin, n in Counter(whole).items() if n > 1][:5]
        if ordered and alone:
            found += _disorder(where, list(dict.fromkeys(whole)))
        return [*found[:10], *_foreign(where, whole, sent), *_lost(where, whole, sent)]


def _foreign(where: str, origins: Iterable[Origin], sent: Sent) -> list[str]:
    found = [each for each in origins if not 1 <= each[1] <= sent.get(each[0], 0)]
    return [f"{where}: {len(found)} were never sent: {found[:5]}"] if found else []


def _lost(where: str, origins: Iterable[Origin], sent: Sent) -> list[str]:
    there = set(origins)
    lost = [(letter, n) for letter, count in sent.items() for n in range(1, count + 1) if (letter, n) not in there]
    return [f"{where}: {len(lost)} of {sum(sent.values())} are lost: {lost[:5]}"] if lost else []


def _disorder(where: str, origins: list[Origin]) -> list[str]:
    last: dict[str, int] = {}
    for letter, number in origins:
        if number < last.get(letter, 0):
            return [f"{where}: {letter} {number} comes after {last[letter]}"]
        last[letter] = number
    return []
