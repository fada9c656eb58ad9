"""The reading side of a link: each message is put into the queue once, and acknowledged when it is safe there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from runner.channel.base import Writer
from runner.channel.link.frames import Ack, Bye, CorruptError, Data, End, Frame, Hello, encode
from runner.channel.link.peer import FRAME_BYTES, TIMING, Peer, Timing
from runner.channel.link.sender import behind
from runner.channel.link.transport import Connection, DownError, RefusedError
from runner.channel.network import Here, Queue
from runner.channel.positions import Position, keep_position, position_of
from runner.codec.base import Batch
from runner.errors import CodecError

_MOST_WINDOW_BYTES = 4 << 20
_TOLD_AT_ONCE = 2
"""When this part of the window has come, the writer is told at once what is safe and how much may follow."""
_MOMENT_S = 0.005
"""What is less is told after this long, together with what comes until then."""


class Receiver(Peer):
    """Takes what one far runner writes."""

    role: Literal["writer", "reader"] = "reader"

    def __init__(
        self, runner: str, queue: Queue, here: Here, *, most_message_bytes: int, timing: Timing = TIMING
    ) -> None:
        super().__init__(runner, queue, here, timing)
        self.doubled = 0
        """Messages that came again and were not taken."""
        self.lost = 0
        self.on_lost: Callable[[int], None] = lambda _count: None
        self._most_message_bytes = most_message_bytes
        self._window_bytes = max(1, min(queue.capacity_bytes, _MOST_WINDOW_BYTES))
        self._position: Position = position_of(queue.store, queue.name, self.name)
        self._safe = self._position.number
        self._writer: Writer | None = None
        self._received_bytes = self._credit = self._told_bytes = 0
        self._telling: asyncio.TimerHandle | None = None
        self._told = Ack(-1, 0)
        self._unwanted = False
        self._stopping = False
        self._ended = False
        self._lingering: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """All readers are there: messages can be taken."""
        self._writer = self.queue.open_writer(self.name)
        self.queue.on_readers_left(self._look_whether_wanted)
        if self._writer.ended_before:
            self._end_here()
            self._linger()

    @property
    def writer(self) -> Writer:
        """The end that it writes to."""
        assert self._writer is not None, "a receiver takes nothing before it is opened"
        return self._writer

    # -- the beginning of a connection

    def hello(self) -> Hello:
        """See `Peer`."""
        self._received_bytes = self._told_bytes = 0
        self._credit = 0 if self.writer.full else self._window_bytes
        return Hello(
            self.here.pipeline,
            self.queue.name,
            self.role,
            self.here.runner,
            self.queue.codec.name,
            epoch=self._position.epoch,
            received=self._safe,
            ended=self._position.ended and self._safe == self._position.number,
            credit=self._credit,
        )

    def judge(self, theirs: Hello) -> None:
        """See `Peer`."""
        position = self._position
        if theirs.epoch != position.epoch:
            position = Position(theirs.epoch, 0)
            self._safe = 0
        elif position.number > theirs.last + position.ended:
            raise RefusedError(behind(self.queue.name, position.number, theirs.last))
        had = min(theirs.acknowledged, theirs.last)
        if had > position.number:
            self._lose(had - position.number)
            position = replace(position, number=had)
            self._safe = had
        if position != self._position:
            self._move(position)
        self._told = Ack(-1, 0)
        self._grant()

    def _lose(self, count: int) -> None:
        self.lost += count
        self.queue.lost(count)
        self.on_lost(count)

    def _move(self, position: Position) -> None:
        self._position = position
        keep_position(self.queue.store, self.queue.name, self.name, position)

    # -- what is sent: acknowledgements and credit

    async def act(self, connection: Connection) -> None:
        """See `Peer`."""
        while not self.finished.is_set():
            self._wake.clear()
            if self._stopping or self._unwanted:
                break
            ack = Ack(self._safe, self._credit)
            if ack != self._told:
                self._told, self._told_bytes = ack, self._received_bytes
                await connection.send(encode(ack))
            else:
                await self._wake.wait()
        await connection.send(encode(Ack(self._safe, self._credit)))
        await connection.send(encode(Bye(self._goodbye, final=self._unwanted)))
        if self._unwanted:
            await self._until_known()
        await connection.finish()
        self.finish()

    async def _until_known(self) -> None:
        """Take whatever is still under way until who writes has said bye as well.

        A connection that is closed before its bytes are read is reset, and then the bye is lost with it: tcp(7).
        """
        self._linger()
        while not self.finished.is_set() and not self._stopping:
            self._wake.clear()
            await self._wake.wait()

    @property
    def _goodbye(self) -> str:
        return "all who read there have left" if self._unwanted else "it was stopped"

    def _grant(self) -> None:
        """As much credit as there is room for."""
        if self.writer.full:
            self.writer.when_room(self._grant)
            return
        self._credit = self._received_bytes + self._window_bytes
        self._tell_soon()

    def _tell_soon(self) -> None:
        """The writer is to be told, but not of every frame: it would be woken as often."""
        if self._received_bytes - self._told_bytes >= self._window_bytes // _TOLD_AT_ONCE:
            self.moved()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_MOMENT_S, self._tell)

    def _tell(self) -> None:
        self._telling = None
        self.moved()

    # -- what comes

    def take(self, frame: Frame) -> None:
        """See `Peer`."""
        if self._unwanted and not isinstance(frame, Bye):
            return
        if isinstance(frame, Data):
            self._take_messages(frame)
        elif isinstance(frame, End):
            self._take_end(frame)
        elif isinstance(frame, Bye):
            self.finish()
            raise DownError(frame.why)
        else:
            raise DownError("it sends what only a reader of a channel may send")

    def _take_messages(self, frame: Data) -> None:
        position = self._position
        last = frame.number + frame.count - 1
        self._received_bytes += len(frame.payload)
        if frame.number > position.number + 1:
            raise CorruptError(f"message {position.number + 1:,} is missing before {frame.number:,}")
        fresh = last - position.number
        self.doubled += min(frame.count, frame.count - fresh)
        if fresh > 0:
            if position.ended:
                raise CorruptError("it sends messages after its end")
            batch = self._whole(frame)
            if fresh < frame.count:
                _, batch = self.queue.codec.skip(batch, frame.count - fresh)
            self.writer.publish(batch)
            self._move(replace(position, number=last))
            self.queue.when_committed(lambda: self._is_safe(position.epoch, last))
        self._grant()

    def _whole(self, frame: Data) -> Batch:
        """The messages of the frame, looked at: whole, and as many as it says."""
        try:
            batch = self.queue.codec.whole(frame.payload, self._most_message_bytes + FRAME_BYTES)
        except CodecError as error:
            raise CorruptError(f"it sends what is no message: {error.what}") from error
        if batch.count != frame.count:
            raise CorruptError(f"it sends {batch.count:,} whole messages where it says {frame.count:,}")
        return batch

    def _take_end(self, frame: End) -> None:
        position = self._position
        if frame.number != position.number + (not position.ended):
            raise CorruptError(f"its end is number {frame.number:,}, and {position.number:,} is the last that came")
        if position.ended:
            self.moved()
            return
        self._move(replace(position, number=frame.number, ended=True))
        self._end_here()
        self.queue.when_committed(lambda: self._end_is_safe(position.epoch, frame.number))

    def _end_here(self) -> None:
        if not self._ended:
            self._ended = True
            self.writer.end(for_good=True)
            self.queue.ended()

    def _is_safe(self, epoch: str, number: int) -> None:
        if epoch == self._position.epoch and number > self._safe:
            self._safe = number
            self._tell_soon()

    def _end_is_safe(self, epoch: str, number: int) -> None:
        self._is_safe(epoch, number)
        self.moved()
        self._linger()

    def _linger(self) -> None:
        """All is here; who sent it may want to know. Nobody waits for that for long."""
        if self._lingering is None and not self.finished.is_set():
            self._lingering = asyncio.get_running_loop().call_later(self.timing.linger_s, self.finish)

    @property
    def has_all(self) -> bool:
        """Whether the end has come: the rest is politeness."""
        return self._lingering is not None

    # -- its end

    def _look_whether_wanted(self) -> None:
        if not self._ended and not self.writer.wanted:
            self._unwanted = True
            self._end_here()
            self.moved()

    def stop(self) -> None:
        """See `Peer`: what is on its way stays with who sends it."""
        self._stopping = True
        if self.connection is None:
            self.finish()
        self.moved()

    def connection_lost(self) -> None:
        """See `Peer`."""
        if self._stopping:
            self.finish()

    def settle(self) -> None:
        """Nothing more comes. Where its end has not come, the channel ends here without it."""
        for timer in (self._lingering, self._telling):
            if timer is not None:
                timer.cancel()
        if not self._ended:
            self._ended = True
            self.writer.end(for_good=False)
            self.queue.ended()
