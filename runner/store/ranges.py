"""Sets of message numbers as sorted ranges that neither touch nor overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Range = tuple[int, int]
"""First and last number, both in it."""
Ranges = tuple[Range, ...]


def _first(one: Range) -> int:
    return one[0]


def _last(one: Range) -> int:
    return one[1]


def covers(ranges: Ranges, first: int, last: int) -> bool:
    """Whether all of `first` to `last` are in."""
    at = bisect_right(ranges, first, key=_first) - 1
    return at >= 0 and ranges[at][1] >= last


def meets(ranges: Ranges, first: int, last: int) -> bool:
    """Whether any of `first` to `last` is in."""
    at = bisect_left(ranges, first, key=_last)
    return at < len(ranges) and ranges[at][0] <= last


def added(ranges: Ranges, first: int, last: int) -> Ranges:
    """With `first` to `last`."""
    low = bisect_left(ranges, first - 1, key=_last)
    high = bisect_right(ranges, last + 1, key=_first)
    if low < high:
        first = min(first, ranges[low][0])
        last = max(last, ranges[high - 1][1])
    return (*ranges[:low], (first, last), *ranges[high:])


def removed(ranges: Ranges, first: int, last: int) -> Ranges:
    """Without `first` to `last`."""
    low = bisect_left(ranges, first, key=_last)
    high = bisect_right(ranges, last, key=_first)
    if low >= high:
        return ranges
    left = ((ranges[low][0], first - 1),) if ranges[low][0] < first else ()
    right = ((last + 1, ranges[high - 1][1]),) if ranges[high - 1][1] > last else ()
    return (*ranges[:low], *left, *right, *ranges[high:])


def gaps(ranges: Ranges, first: int, last: int) -> Ranges:
    """What of `first` to `last` is not in."""
    found: list[Range] = []
    for begin, end in ranges:
        if begin > last:
            break
        if begin > first:
            found.append((first, begin - 1))
        first = max(first, end + 1)
    if first <= last:
        found.append((first, last))
    return tuple(found)


def total(ranges: Iterable[Range]) -> int:
    """How many numbers are in."""
    return sum(last - first + 1 for first, last in ranges)


def sound(ranges: Ranges, base: int) -> bool:
    """Whether `ranges` is what the others make: sorted, apart, and all beyond `base`."""
    before = base
    for first, last in ranges:
        if first <= before + 1 or last < first:
            return False
        before = last
    return True
