"""Whether the disk can read a record: a page that it cannot read ends a process that touches its mapping (SIGBUS).

So what was there when the store was opened is read with a system call before LMDB is asked for it. What was written
since is in the kernel's memory.
"""

from __future__ import annotations

from bisect import bisect_right

from runner.store.pages import BrokenError, Node, PageFile
from runner.store.placed import Placed


class Probe:
    """The places of one channel's records as they were found, up to message `last`; deleted ones are not asked for."""

    def __init__(self, file: PageFile, placed: Placed, last: int) -> None:
        self._file = file
        self._firsts, self._sizes, self._pages = placed.columns()
        self._last = last

    def span(self, number: int) -> tuple[int, int] | None:
        """The first and last message of the record with message `number`; None: it was written since."""
        at = self._at(number)
        if at is None:
            return None
        behind = self._firsts[at + 1] if at + 1 < len(self._firsts) else self._last + 1
        return self._firsts[at], behind - 1

    def readable(self, number: int) -> bool:
        """Whether the record with message `number` can be touched."""
        at = self._at(number)
        if at is None or not self._pages[at]:
            return True  # in a leaf, which was read when the store was opened
        try:
            self._file.value(Node(b"", 0, self._sizes[at], b"", self._pages[at]))
        except BrokenError:
            return False
        return True

    def _at(self, number: int) -> int | None:
        if number > self._last:
            return None
        at = bisect_right(self._firsts, number) - 1
        return at if at >= 0 else None
