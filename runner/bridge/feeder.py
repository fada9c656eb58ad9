"""Channel to program: writes the messages of an inlet into one input port of one run of a program.

Nothing is acknowledged here but what is known to be read: the kernel says, to the byte, how much of a pipe is unread,
also after its reader has died (ioctl FIONREAD on the write end). So a death costs exactly what was read.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

from runner.bridge.inlet import MANY_PIECES, Inlet, Piece, merged
from runner.bridge.left import InputLeft
from runner.bridge.spout import Spout, unread_bytes
from runner.channel.base import Reader

__all__ = ["Feeder", "InputLeft", "StreamFeeder", "unread_bytes"]

_HELD_BYTES = 256 << 10
_LOOK_FIRST_S = 0.002
_LOOK_LAST_S = 0.25


class Feeder(Spout, ABC):
    """See the module."""

    def __init__(self, descriptor: int, inlet: Inlet, *, on_progress: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self.port = inlet.port
        self.inlet = inlet
        self._on_progress = on_progress
        inlet.attach(self)

    @property
    def readers(self) -> Sequence[Reader]:
        """See `Spout`."""
        return self.inlet.readers

    @property
    def starved(self) -> bool:
        """See `Spout`."""
        return not (self.input_closed or self._rest or self.inlet.queued_messages or self.unread_bytes)

    def _refill(self) -> bool:
        piece = self._next()
        if piece is None:
            if self.inlet.ended:
                self._close_input()
                self._on_progress()
            self._idle()
            return False
        piece.start = self.written_bytes
        piece.end = piece.start + piece.batch.size_bytes
        self._hold(piece)
        self._rest = list(piece.batch.parts)
        return True

    @abstractmethod
    def _next(self) -> Piece | None:
        """The next piece to write, None for now."""

    @abstractmethod
    def _hold(self, piece: Piece) -> None:
        """`piece` is about to be written: remember it."""

    def _idle(self) -> None:
        """Everything that there is has been written."""

    def stop(self) -> None:
        """See `Spout`."""
        self.inlet.detach(self)
        super().stop()

    def settle(self) -> InputLeft:
        """See `Spout`."""
        return self._account(self._left_bytes)

    @abstractmethod
    def _account(self, unread: int) -> InputLeft:
        """Settle everything held, `unread` bytes being left in the pipe."""


class StreamFeeder(Feeder):
    """Contract `stream`: what was read is out of our hands; what was not goes to the next.

    Pieces are held while any byte of them may still be in the pipe, so that a torn message can be sent again, whole.
    """

    def __init__(self, descriptor: int, inlet: Inlet, *, on_progress: Callable[[], None]) -> None:
        super().__init__(descriptor, inlet, on_progress=on_progress)
        self._held: deque[Piece] = deque()
        self._consumed: dict[int, int] = {}
        self._tells = any(reader.claims for reader in inlet.readers)
        self._look_s = _LOOK_FIRST_S
        self._looking: asyncio.TimerHandle | None = None

    def _next(self) -> Piece | None:
        return self.inlet.take()

    def _hold(self, piece: Piece) -> None:
        held = self._held
        if held and (len(held) >= MANY_PIECES or piece.start - held[0].start >= _HELD_BYTES):
            # Not from the size of the pipe: a program may have made its end of it larger.
            self._consume_read()
        if len(held) < MANY_PIECES or not merged(held, piece, self.inlet.codec):
            held.append(piece)

    def _consume_read(self) -> None:
        held, read_before = self._held, self.written_bytes - self.unread_bytes
        while held and held[0].end <= read_before:
            self._consume(held.popleft(), None)

    def _idle(self) -> None:
        """The kernel does not say when a pipe is read: look now and then, so that a channel gets its room back."""
        if self._tells and self._held:
            self._look_s = _LOOK_FIRST_S
            if self._looking is None:
                self._looking = self._loop.call_later(self._look_s, self._look)

    def _look(self) -> None:
        self._looking = None
        self._consume_read()
        if self._held:
            self._look_s = min(_LOOK_LAST_S, 2 * self._look_s)
            self._looking = self._loop.call_later(self._look_s, self._look)

    def stop(self) -> None:
        """See `Feeder`."""
        super().stop()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _consume(self, piece: Piece, messages: int | None) -> None:
        key, count = id(piece.reader), piece.batch.count if messages is None else messages
        self._consumed[key] = self._consumed.get(key, 0) + count
        if count:
            piece.reader.passed(piece.number, count)

    @property
    def in_flight(self) -> list[tuple[object, int]]:
        """See `Feeder`."""
        held: list[tuple[object, int]] = [(piece.reader, piece.batch.count) for piece in self._held]
        return held + [(reader, self._consumed.get(id(reader), 0)) for reader in self.inlet.readers]

    def hand_in(self, reader: object) -> int:
        """After `settle`: whole messages of `reader` that this run has read; asked once, for the account."""
        return self._consumed.pop(id(reader), 0)

    def _account(self, unread: int) -> InputLeft:
        read = self.written_bytes - unread
        returned: list[Piece] = []
        for piece in self._held:
            if read < 0 or piece.end <= read:  # below 0: who knows what it has read
                self._consume(piece, None)
            elif piece.start >= read:
                returned.append(piece)
            else:
                whole, _ = self.inlet.codec.locate(piece.batch, read - piece.start)
                self._consume(piece, whole)
                rest = self.inlet.codec.skip(piece.batch, whole)[1]
                returned.append(Piece(piece.reader, rest, piece.number + whole, piece.order))
        self._held.clear()
        self.inlet.give_back(returned)
        self._check_possible(unread)
        return InputLeft(
            ended=self.input_closed and not returned,
            unread=sum(piece.batch.count for piece in returned),
            consumed=sum(self._consumed.values()),
        )
