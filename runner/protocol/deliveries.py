"""Which of the messages delivered in a session are answered: a floor and ranges beyond it.

There are at most as many ranges as there are messages in flight, however a program answers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class Deliveries:
    """Deliveries count from 1 without gaps."""

    def __init__(self) -> None:
        self.next = 1
        """The number of the next one."""
        self.floor = 0
        """All up to here are answered."""
        self.in_flight = 0
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, count: int) -> int:
        """Deliver `count` more; returns the number of the first."""
        first = self.next
        self.next += count
        self.in_flight += count
        return first

    def is_open(self, delivery: int) -> bool:
        """Whether it was delivered and not answered."""
        if not self.floor < delivery < self.next:
            return False
        if not self._starts:
            return True
        before = bisect_right(self._starts, delivery) - 1
        return before < 0 or self._ends[before] < delivery

    def answer(self, first: int, last: int) -> bool:
        """Take `first` to `last` as answered; False, and nothing happens, where one of them is not open."""
        if not self.floor < first <= last < self.next:
            return False
        place = bisect_right(self._starts, first)
        if place and self._ends[place - 1] >= first:
            return False
        if place < len(self._starts) and self._starts[place] <= last:
            return False
        self.in_flight -= last - first + 1
        if first == self.floor + 1:
            self.floor = last
            if self._starts and self._starts[0] == last + 1:
                self.floor = self._ends[0]
                del self._starts[0], self._ends[0]
            return True
        joins_before = place > 0 and self._ends[place - 1] == first - 1
        joins_after = place < len(self._starts) and self._starts[place] == last + 1
        if joins_before and joins_after:
            self._ends[place - 1] = self._ends[place]
            del self._starts[place], self._ends[place]
        elif joins_before:
            self._ends[place - 1] = last
        elif joins_after:
            self._starts[place] = first
        else:
            self._starts.insert(place, first)
            self._ends.insert(place, last)
        return True

    def unanswered(self) -> Iterator[tuple[int, int]]:
        """The ranges (first, last) that are in flight, in order."""
        first = self.floor + 1
        for start, end in zip(self._starts, self._ends, strict=True):
            yield first, start - 1
            first = end + 1
        if first < self.next:
            yield first, self.next - 1
