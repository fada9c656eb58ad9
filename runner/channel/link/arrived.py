"""What has come over a connection: frames that wait to be received, bounded in bytes, or are handed over at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from runner.channel.link.transport import DownError
from runner.codec.base import Buffer

_MOST_WAITING_BYTES = 1 << 20


def _nothing() -> None:
    """For a connection that cannot be paused."""


class Arrived:
    """See the module. `pause` is called when more than `most_bytes` wait, `resume` when half of that is left.

    Neither is called once it has ended. `pause` may be called while `put` is, `resume` only while frames are received.
    """

    def __init__(
        self,
        pause: Callable[[], None] = _nothing,
        resume: Callable[[], None] = _nothing,
        *,
        most_bytes: int = _MOST_WAITING_BYTES,
    ) -> None:
        self.why: str | None = None
        """Why no more comes; None: more may come."""
        self.paused = False
        self._pause = pause
        self._resume = resume
        self._most_bytes = most_bytes
        self._frames: deque[Buffer] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._take: Callable[[Buffer], None] | None = None
        self._over: asyncio.Future[None] | None = None

    def put(self, frame: Buffer) -> None:
        """A frame has come."""
        if self._take is not None:
            try:
                self._take(frame)
            except Exception as error:  # noqa: BLE001 - whoever waits in `hand_to` gets it
                self._hand_no_more(error)
            return
        self._frames.append(frame)
        self._waiting_bytes += len(frame)
        self._changed.set()
        if not self.paused and self._waiting_bytes > self._most_bytes and self.why is None:
            self.paused = True
            self._pause()

    def end(self, why: str) -> None:
        """No more comes. May be called again; the first reason stays."""
        if self.why is None:
            self.why = why
        self._changed.set()
        self._hand_no_more(DownError(self.why))

    async def receive(self) -> Buffer:
        """See `Connection`: what came before the end is still given out."""
        while not self._frames:
            if self.why is not None:
                raise DownError(self.why)
            self._changed.clear()
            await self._changed.wait()
        return self._next()

    async def hand_to(self, take: Callable[[Buffer], None]) -> None:
        """See `Connection`."""
        while self._frames:
            take(self._next())
        if self.why is not None:
            raise DownError(self.why)
        self._take = take
        self._over = asyncio.get_running_loop().create_future()
        try:
            await self._over
        finally:
            self._take = self._over = None

    def _next(self) -> Buffer:
        frame = self._frames.popleft()
        self._waiting_bytes -= len(frame)
        if self.paused and self._waiting_bytes <= self._most_bytes // 2 and self.why is None:
            self.paused = False
            self._resume()
        return frame

    def _hand_no_more(self, error: Exception) -> None:
        self._take = None
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)
