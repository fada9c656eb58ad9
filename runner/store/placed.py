"""Which records of a channel are in the store: 24 bytes of memory for each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from runner.store.record import HEAD_BYTES

_WORTH_MOVING = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """A record's first number, its size with its head, and the first page of its own (0: none, or not known)."""

    first: int
    size_bytes: int
    page: int


class Placed:
    """The places of all records of a channel, the oldest first."""

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._sizes = array("Q")
        self._pages = array("Q")
        self._gone = 0

    def __len__(self) -> int:
        return len(self._firsts) - self._gone

    def __getitem__(self, at: int) -> Place:
        """The one at `at`, from 0 on."""
        at += self._gone
        return Place(self._firsts[at], self._sizes[at], self._pages[at])

    def columns(self) -> tuple[array[int], array[int], array[int]]:
        """The first numbers, the sizes and the pages, as they are now."""
        return self._firsts[self._gone :], self._sizes[self._gone :], self._pages[self._gone :]

    def add(self, first: int, size_bytes: int, page: int = 0) -> None:
        """One more at the end."""
        self._firsts.append(first)
        self._sizes.append(size_bytes)
        self._pages.append(page)

    def extend(self, keys: Sequence[bytes], sizes: Sequence[int], pages: Sequence[int]) -> None:
        """Many more; their first numbers are as they are stored, as keys."""
        firsts = array("Q", b"".join(keys))
        firsts.byteswap()  # big-endian, in an order that LMDB sorts
        self._firsts += firsts
        self._sizes.extend(sizes)
        self._pages.extend(pages)

    def grow_last(self, size_bytes: int) -> None:
        """The last one was written anew, with this size."""
        self._sizes[-1] = size_bytes
        self._pages[-1] = 0

    def drop(self, count: int) -> None:
        """The oldest `count` are gone."""
        self._gone += count
        if self._gone > _WORTH_MOVING and self._gone * 2 > len(self._firsts):
            for column in (self._firsts, self._sizes, self._pages):
                del column[: self._gone]
            self._gone = 0

    @property
    def data_bytes(self) -> int:
        """What all of them take, without their heads."""
        return sum(self._sizes[self._gone :]) - HEAD_BYTES * len(self)
