"""The newest committed records of a channel, in memory, for readers that keep up."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from runner.store.record import Record


def _first(record: Record) -> int:
    return record.first


class Tail:
    """Consecutive records up to the last committed message, at most `most_bytes` of them (and the last one anyway)."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._records: deque[Record] = deque()
        self.size_bytes = 0

    def add(self, record: Record) -> None:
        """One more; the oldest go when there are too many bytes."""
        self._records.append(record)
        self.size_bytes += len(record.data)
        while self.size_bytes > self._most_bytes and len(self._records) > 1:
            self._forget()

    def passed(self, number: int) -> None:
        """Nobody asks for messages up to `number` any more."""
        while self._records and self._records[0].last <= number:
            self._forget()

    def find(self, number: int) -> Record | None:
        """The record with message `number`; None when it is not here (any more)."""
        records = self._records
        if not records or number < records[0].first or number > records[-1].last:
            return None
        if number <= records[0].last:
            return records[0]
        return records[bisect_right(records, number, key=_first) - 1]

    def _forget(self) -> None:
        self.size_bytes -= len(self._records.popleft().data)
