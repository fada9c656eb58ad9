"""What channels have in common whose messages wait here, between writers and readers of this runner."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from runner.channel.base import Channel
from runner.errors import CodecError
from runner.spec.model import Channel as ChannelSpec


class QueuedChannel(Channel):
    """Knows which of its writers have not ended, who waits for room, and who is to be told when all readers left."""

    def __init__(self, spec: ChannelSpec) -> None:
        self.name = spec.name
        self.capacity_bytes = spec.capacity_bytes
        self.broken_off = False
        """Whether a writer has ended that was not at its end."""
        self._open_writers = 0
        self._waiting: list[Callable[[], None]] = []
        self._when_left: list[Callable[[], None]] = []

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether writers should wait."""

    @property
    def ended(self) -> bool:
        """Whether every writer has ended."""
        return self._open_writers == 0

    def expect_writer(self) -> None:
        """There will be a writer that is opened later than the processors' own, by `expected_writer`."""
        self._open_writers += 1

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the channel is not full; at once when it is not."""
        if self.full:
            self._waiting.append(callback)
        else:
            callback()

    def room(self) -> None:
        """There may be room again: let the writers go on when nothing holds them up."""
        if self._waiting and not self.full:
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()

    def on_readers_left(self, callback: Callable[[], None]) -> None:
        """See `Channel`."""
        self._when_left.append(callback)

    def reader_left(self) -> None:
        """A reader wants no more."""
        self.room()
        if all(reader.left for reader in self.readers):
            self._unwanted()

    def _unwanted(self) -> None:
        """Nobody reads it for now: those who write to it look whether it is `wanted` still."""
        for callback in self._when_left:
            callback()

    def writer_ended(self, *, for_good: bool) -> None:
        """One of the writers has ended."""
        self._open_writers -= 1
        self.broken_off = self.broken_off or not for_good
        if not self._open_writers:
            for reader in self.readers:
                reader.on_data()

    def refuse_one(self, number: int, error: CodecError) -> CodecError:
        """Count a message that a reader could not be given; the error is for its writer."""
        self.refused += 1
        what = f"message {number:,} of channel `{self.name}` is refused: {error.what}"
        return CodecError(what, index=error.index, remedy=error.remedy)
