"""Contract `batch`: one batch into the stdin of one run of a program, and then the end of input."""

from __future__ import annotations

from collections.abc import Sequence

from runner.bridge.left import InputLeft
from runner.bridge.spout import Spout
from runner.channel.base import Reader
from runner.codec.base import Buffer


class BatchFeeder(Spout):
    """See the module. What the program reads of it decides nothing: its exit does, for the batch as a whole."""

    port = "stdin"

    def __init__(self, descriptor: int, parts: Sequence[Buffer]) -> None:
        super().__init__(descriptor)
        self._parts = list(parts)

    @property
    def readers(self) -> tuple[Reader, ...]:
        """See `Spout`."""
        return ()

    @property
    def starved(self) -> bool:
        """See `Spout`: it has all that it gets."""
        return False

    @property
    def in_flight(self) -> list[tuple[object, int]]:
        """See `Spout`: the batch is accounted for where it was cut."""
        return []

    def _refill(self) -> bool:
        if not self._parts:
            self._close_input()
            return False
        self._rest, self._parts = self._parts, []
        return True

    @property
    def read_bytes(self) -> int:
        """After `count_unread`: how much of it the program has read, as far as that can be known."""
        return max(0, self.written_bytes - self._left_bytes)

    def settle(self) -> InputLeft:
        """See `Spout`."""
        return InputLeft(ended=True, unread=0, consumed=0)
