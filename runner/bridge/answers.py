"""Contract `one-to-one`: each message is answered by one message, in order.

Answers acknowledge; whatever is unanswered when the program dies is sent again, whatever was answered is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from runner.bridge.feeder import Feeder, InputLeft
from runner.bridge.inlet import MANY_PIECES, Inlet, Piece, merged
from runner.bridge.outlet import Delivery, Outlet
from runner.bridge.sequence import Sequencer, Slot, acknowledge
from runner.channel.base import Reader
from runner.codec.base import MERGED_BYTES, Batch, Codec
from runner.errors import CodecError, ContractError

_SHOWN_BYTES = 80


def beginning(payload: bytes) -> str:
    """The first bytes of a message, for an error."""
    shown = payload[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return f"{shown!r}{'…' if len(payload) > _SHOWN_BYTES else ''}"


class OneToOneFeeder(Feeder):
    """Hands out at most a window of unanswered messages, and keeps each until its answer is there.

    `window_bytes` bounds the unanswered bytes, `window_messages` (None: no bound) their count; `most_window_bytes` is
    how far `grow` may go for a program that buffers its output. One message larger than the window passes alone.
    """

    def __init__(
        self,
        descriptor: int,
        inlet: Inlet,
        *,
        on_progress: Callable[[], None],
        window_bytes: int,
        most_window_bytes: int,
        window_messages: int | None,
        sequencer: Sequencer | None,
        owner: int = 1,
        suspect_after: int = 3,
    ) -> None:
        super().__init__(descriptor, inlet, on_progress=on_progress)
        self.blamed = False
        """Whether its program died in a way that may be the fault of a message; said before `settle`."""
        self._owner = owner
        self._suspect_after = suspect_after
        self.window_bytes = window_bytes
        self.answered = 0
        self._most_window_bytes = max(window_bytes, most_window_bytes)
        self._window_messages = window_messages
        self._sequencer = sequencer
        self._pending: deque[Piece] = deque()
        self.pending_bytes = 0
        self.pending_messages = 0
        self._window_full = False

    @property
    def window_full(self) -> bool:
        """Whether messages wait because too much is unanswered."""
        return self._window_full and bool(self.pending_messages)

    def _next(self) -> Piece | None:
        room_bytes = self.window_bytes - self.pending_bytes
        room_messages = None if self._window_messages is None else self._window_messages - self.pending_messages
        self._window_full = (
            bool(self._pending)
            and (
                room_bytes <= 0
                or room_bytes < self.window_bytes // 4
                or (room_messages is not None and room_messages <= 0)
            )
            and self.inlet.waiting_for(self._owner) > 0
        )
        if self._window_full:
            return None
        piece = self.inlet.take(
            owner=self._owner,
            most_bytes=max(1, room_bytes),
            most_messages=room_messages,
            never_over=room_bytes if self._pending else None,
        )
        if piece is None:
            self._window_full = self.inlet.waiting_for(self._owner) > 0
            return None
        if piece.slot is not None:
            piece.slot.home.own(piece.slot, self)
        elif self._sequencer is not None:
            piece.slot = self._sequencer.open(
                piece.reader, piece.number, piece.batch.count, self, after=self._slot_of_last(piece)
            )
        return piece

    def _slot_of_last(self, piece: Piece) -> Slot | None:
        """The slot that the answers to `piece` may share, so that both can be kept as one."""
        if len(self._pending) < MANY_PIECES:
            return None
        last = self._pending[-1]
        if last.deaths != piece.deaths or last.returns != piece.returns:
            return None
        return last.slot if last.batch.size_bytes + piece.batch.size_bytes <= MERGED_BYTES else None

    def _hold(self, piece: Piece) -> None:
        if len(self._pending) < MANY_PIECES or not merged(self._pending, piece, self.inlet.codec):
            self._pending.append(piece)
        self.pending_bytes += piece.batch.size_bytes
        self.pending_messages += piece.batch.count

    def grow(self) -> bool:
        """Double the window, up to its most bytes; False when it was there already."""
        if self.window_bytes >= self._most_window_bytes and (
            self._window_messages is None or self.pending_bytes >= self._most_window_bytes
        ):
            return False
        self.window_bytes = min(self._most_window_bytes, 2 * self.window_bytes)
        if self._window_messages is not None:
            self._window_messages *= 2
        self.wake()
        return True

    def answer(self, batch: Batch, codec: Codec, publish: Callable[[Batch], None]) -> None:
        """`batch` answers the oldest unanswered messages; raises ContractError when there are fewer of those."""
        while batch.count:
            if not self._pending:
                extra = codec.payload(codec.split(batch)[0])
                raise ContractError(
                    f"answers too much: answer {self.answered + 1:,} of this run, {beginning(extra)},"
                    " answers no message",
                    remedy='a program that answers a message with none or several has the contract "stream"',
                )
            piece = self._pending[0]
            open_messages = piece.batch.count - piece.answered
            now, batch = (batch, _NONE) if batch.count <= open_messages else codec.skip(batch, open_messages)
            if piece.slot is not None:
                self._answered(piece, now.count)  # first: whatever comes of them is the sequencer's from here
                piece.slot.home.put(piece.slot, now)
            else:
                try:
                    acknowledge(piece.reader, piece.number + piece.answered, now, publish)
                except CodecError as error:
                    self._answered(piece, error.index)
                    raise
                self._answered(piece, now.count)
            if piece.answered == piece.batch.count:
                self._pending.popleft()
                self.pending_bytes -= piece.batch.size_bytes
        if self._window_full or self.inlet.queued_messages:
            self.wake()
        if self.input_closed and not self._pending:
            self._on_progress()

    def _answered(self, piece: Piece, messages: int) -> None:
        piece.answered += messages
        self.answered += messages
        self.pending_messages -= messages
        self.inlet.count_answers(messages)

    @property
    def in_flight(self) -> list[tuple[object, int]]:
        """See `Feeder`."""
        return [(piece.reader, piece.batch.count - piece.answered) for piece in self._pending]

    def oldest_unanswered(self) -> str:
        """The oldest message without an answer, by its number, channel and beginning, for an error."""
        if not self._pending:
            return "no message"
        piece, codec = self._pending[0], self.inlet.codec
        first = codec.skip(piece.batch, piece.answered)[1]
        payload = codec.payload(codec.split(codec.cut(first, most_bytes=0, most_messages=1)[0])[0])
        number = piece.number + piece.answered
        return f"message {number:,} of channel `{piece.reader.channel}`, {beginning(payload)},"

    def _account(self, unread: int) -> InputLeft:
        codec = self.inlet.codec
        read = self.written_bytes - min(unread, self.written_bytes)
        first_unanswered = self.oldest_unanswered()
        begun: list[Piece] = []
        rest: list[Piece] = []
        unanswered_read = unread_messages = answered_unread = 0
        for piece in self._pending:
            whole = touched = piece.batch.count
            if piece.end > read:
                here = max(0, read - piece.start)
                whole, whole_bytes = codec.locate(piece.batch, here)
                touched = whole + (here > whole_bytes)  # a message may be answered before its delimiter is read
            unread_messages += piece.batch.count - whole
            unanswered_read += max(0, whole - piece.answered)
            answered_unread += max(0, piece.answered - touched)
            if piece.slot is not None:
                piece.slot.home.own(piece.slot, None)
            self._part(piece, max(0, touched - piece.answered), begun, rest)
        self._pending.clear()
        self.pending_bytes = self.pending_messages = 0
        if self.blamed:
            self.inlet.blame(begun, owner=self._owner, answered=self.answered > 0, after=self._suspect_after)
        else:
            self.inlet.give_back(begun, owner=self._owner)
        self.inlet.give_back(rest, owner=self._owner)
        self._check_possible(unread)
        if answered_unread:
            raise ContractError(f"answered {answered_unread:,} messages that it had not read")
        return InputLeft(
            ended=self.input_closed and not unread_messages,
            unread=unread_messages,
            consumed=self.answered + unanswered_read,
            unanswered=unanswered_read,
            first_unanswered=first_unanswered,
            touched=sum(piece.batch.count for piece in begun),
        )

    def _part(self, piece: Piece, touched: int, begun: list[Piece], rest: list[Piece]) -> None:
        """What is unanswered of `piece`, the first `touched` messages of which were read, at least in part."""
        left = self.inlet.codec.skip(piece.batch, piece.answered)[1]
        if not left.count:
            return
        again = replace(piece, batch=left, number=piece.number + piece.answered, start=0, end=0, answered=0)
        if 0 < touched < left.count:
            again.batch, unread = self.inlet.codec.skip(left, touched)
            rest.append(again.rest(touched, unread))
        (begun if touched else rest).append(again)


_NONE = Batch((), 0, 0)


class AnswerDelivery(Delivery):
    """The stdout of a one-to-one program: answers, into its outlet or (a sink) nowhere."""

    def __init__(
        self, feeder: OneToOneFeeder, codec: Codec, outlet: Outlet | None, sequencer: Sequencer | None
    ) -> None:
        self._feeder = feeder
        self._codec = codec
        self._outlet = outlet
        self._sequencer = sequencer

    def _publish(self, batch: Batch) -> None:
        if self._outlet is not None:
            self._outlet.deliver(batch)

    def deliver(self, batch: Batch) -> None:
        """See `Delivery`."""
        self._feeder.answer(batch, self._codec, self._publish)

    @property
    def full(self) -> bool:
        """See `Delivery`."""
        if self._outlet is not None and self._outlet.full:
            return True
        return self._sequencer is not None and self._sequencer.crowded(self._feeder)

    @property
    def ahead(self) -> bool:
        """See `Delivery`."""
        return self._outlet is not None and self._outlet.ahead

    def when_room(self, callback: Callable[[], None]) -> None:
        """See `Delivery`."""
        if self._outlet is not None and self._outlet.full:
            self._outlet.when_room(callback)
        elif self._sequencer is not None and self._sequencer.crowded(self._feeder):
            self._sequencer.when_room(callback)
        else:
            callback()

    @property
    def blocked_by(self) -> tuple[Reader, ...]:
        """See `Delivery`."""
        return self._outlet.blocked_by if self._outlet is not None else ()

    @property
    def trouble(self) -> str | None:
        """See `Delivery`."""
        return self._outlet.trouble if self._outlet is not None else None
