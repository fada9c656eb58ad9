"""What connections over a bare socket and over TLS have in common: frames, and an end that both sides hear of."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence

from runner.channel.link.arrived import Arrived
from runner.channel.link.framing import EndedError, Framing
from runner.channel.link.transport import DownError, PromptConnection
from runner.codec.base import Buffer

CLOSE_S = 1.0
"""So long the other side has to answer what is said last."""


class FramedConnection(PromptConnection):
    """See the module.

    Whoever inherits reads into `_buffer` from `_filled` on and then calls `_cut`, and sends what `_write` is given. It
    clears `_room` while that does not get away, and calls `_has_room` when it has.
    """

    def __init__(self, framing: Framing, buffer_bytes: int, long_bytes: int) -> None:
        """A frame that is longer than `long_bytes` with its head, and not all there, does not come into the buffer."""
        self._framing = framing
        framing.answer = self._answer
        self._buffer = bytearray(buffer_bytes)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._long_bytes = long_bytes
        self._received_bytes = 0
        self._arrived = Arrived(self._read_no_more, self._read_on)
        self._room = asyncio.Event()
        self._room.set()
        self._waiting_answer: bytes | None = None
        self._ending: str | None = None
        """Why it is about to end: the last has been said, and the other side may answer that for a moment."""
        self._ignores = False
        """What comes is no frame any more."""
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()

    # -- what comes

    @abstractmethod
    def _read_no_more(self) -> None:
        """Let what comes wait."""

    @abstractmethod
    def _read_on(self) -> None:
        """Read again, or still."""

    @abstractmethod
    def _begin_long(self, first: int, length: int) -> None:
        """A long frame begins, after its head, at `first` in the buffer and is not all there."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take what somebody else has read from the connection before."""

    def _cut(self) -> None:
        """Take the whole frames out of the buffer; what is left of it goes to its beginning, or is a long one's."""
        if self._ignores or self._arrived.why is not None:
            self._filled = 0
            return
        start = 0
        try:
            while (head := self._framing.head(self._buffer, start, self._filled)) is not None:
                head_bytes, length = head
                first = start + head_bytes
                if self._filled - first >= length:
                    start = first + length
                    frame = self._framing.short(self._view[first:start])
                    if frame is not None:
                        self._arrived.put(frame)
                elif head_bytes + length > self._long_bytes:
                    self._begin_long(first, length)
                    return
                else:
                    break
        except EndedError as ended:
            self._end(ended)
            self._filled = 0
            return
        rest = self._filled - start
        if start and rest:
            self._view[:rest] = self._view[start : self._filled]
        self._filled = rest

    def _put_long(self, body: Sequence[Buffer]) -> None:
        """A long frame has come, in these pieces."""
        try:
            frame = self._framing.long(body)
        except EndedError as ended:
            self._end(ended)
            return
        if frame is not None:
            self._arrived.put(frame)

    async def receive(self) -> Buffer:
        """See `Connection`."""
        return await self._arrived.receive()

    async def hand_to(self, take: Callable[[Buffer], None]) -> None:
        """See `Connection`."""
        await self._arrived.hand_to(take)

    def progress(self) -> int:
        """See `Connection`."""
        return self._received_bytes

    # -- what is sent

    @abstractmethod
    def _write(self, pieces: tuple[Buffer, ...]) -> None:
        """Send these bytes, after all that waits to be sent."""

    async def send(self, *parts: Buffer) -> None:
        """See `Connection`."""
        self._check_open()
        self.send_now(*parts)
        if not self._room.is_set():
            await self._room.wait()
            self._check_open()

    @property
    def ready(self) -> bool:
        """See `PromptConnection`."""
        return self._room.is_set() and self._ending is None and self._arrived.why is None

    def send_now(self, *parts: Buffer) -> None:
        """See `PromptConnection`."""
        if self._ending is None and self._arrived.why is None:
            self._write(self._framing.begun(parts))

    def _check_open(self) -> None:
        why = self._arrived.why or self._ending
        if why is not None:
            raise DownError(why)

    def _answer(self, words: bytes) -> None:
        """Where there is no room only the latest waits: who asks and asks and does not listen gets one answer."""
        if self._ending is not None or self._arrived.why is not None:
            return
        if self._room.is_set():
            self._write((words,))
        else:
            self._waiting_answer = words

    def _has_room(self) -> None:
        self._room.set()
        words, self._waiting_answer = self._waiting_answer, None
        if words is not None:
            self._answer(words)

    # -- its end

    def _end(self, ended: EndedError) -> None:
        """No more frames come. Where there is something to say to that, the other side has a moment to hear it."""
        why = self._ending or str(ended)
        if not ended.words:
            self.close(why)
            return
        self._say_last(why, ended.words)
        self._ignores = True
        if self._arrived.why is None:
            if ended.heard:
                self._close_when_sent(why)
            else:
                self._read_on()  # over what is not read the kernel would take our last words back

    @abstractmethod
    def _close_when_sent(self, why: str) -> None:
        """Close when all has got away that waits to be sent; a timer runs."""

    def _say_last(self, why: str, words: bytes) -> None:
        self._ending = why
        self._write((words,))
        if self._arrived.why is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CLOSE_S, self.close, why)

    async def _bid_farewell(self) -> None:
        """Tell the other side that all is sent, and wait until it has told the same, for a moment."""
        await self._room.wait()
        if self._ending is None and self._arrived.why is None:
            words = self._framing.farewell()
            if not words:
                return
            self._say_last("the connection was closed", words)
        await self._over.wait()

    def _down(self, why: str) -> None:
        """It is no more: whoever waits for anything hears of it."""
        self._arrived.end(self._ending or why)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting_answer = None
        self._room.set()
        self._over.set()
