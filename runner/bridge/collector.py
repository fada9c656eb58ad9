"""Program to channel: reads one output port of one run of a program, and delivers whole messages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from runner.bridge.feeder import unread_bytes
from runner.bridge.guard import sift
from runner.bridge.outlet import Delivery
from runner.channel.base import Reader
from runner.codec.base import Batch, Codec
from runner.errors import CodecError, ContractError, RunnerError

_MOST_READ_BYTES = 256 << 10
_END_READ_BYTES = 4096
_BREATH_S = 0.001
_HELD_ELSEWHERE_S = 0.5


class Collector:
    """See the module. It owns `descriptor` (the non-blocking read end of a pipe).

    `skip` messages are discarded first (`resume = "skip"`). A bad message or a broken contract stops the reading and is
    told by `on_error`, once. Nothing is read before `begin`.
    """

    def __init__(
        self,
        descriptor: int,
        codec: Codec,
        delivery: Delivery,
        *,
        port: str,
        max_message_bytes: int,
        skip: int = 0,
        is_data: Callable[[bytes], bool] | None = None,
        on_stray: Callable[[bytes], None] | None = None,
        on_error: Callable[[RunnerError], None],
        on_end: Callable[[], None],
    ) -> None:
        self.port = port
        self.ended = asyncio.Event()
        self.delivered = 0
        self.paused = False
        self._descriptor = descriptor
        self._codec = codec
        self._decoder = codec.decoder(max_message_bytes)
        self._delivery = delivery
        self._to_skip = skip
        self._skipped = 0
        self._is_data = is_data
        self._on_stray = on_stray
        self._on_error = on_error
        self._on_end = on_end
        self._failed = False
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._breath: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Read from now on; may be called again."""
        if not self._begun and self._descriptor >= 0:
            self._begun = True
            self._loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        # Asking first makes the buffer as large as what is read: no megabyte for a line, no holes in the heap.
        there = unread_bytes(self._descriptor)
        try:
            data = os.read(self._descriptor, min(there, _MOST_READ_BYTES) or _END_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            self.close()
            return
        try:
            batch = self._decoder.feed(data)
            if batch.count:
                self._deliver(batch)
        except CodecError as error:
            self._fail(error)
            return
        except ContractError as error:
            self._failed = True
            self.close()
            self._on_error(error)
            return
        if self._delivery.full:
            self._pause()
        elif self._delivery.ahead:
            self._breathe()

    def _breathe(self) -> None:
        """Let the readers catch up for a moment. Should they not, the channel fills up all the same, a bit later."""
        self._loop.remove_reader(self._descriptor)
        self._breath = self._loop.call_later(_BREATH_S, self._go_on)

    def _go_on(self) -> None:
        self._breath = None
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._readable)

    def _fail(self, error: CodecError) -> None:
        """A bad message: what was good before it is delivered, the program is told on."""
        if self._failed:
            return
        self._failed = True
        told: RunnerError
        try:
            rescued = self._decoder.rescued()
            if rescued.count:
                self._deliver(rescued)
            told = self._numbered(error)
        except (CodecError, ContractError) as other:
            told = other
        self.close()
        self._on_error(told)

    def _numbered(self, error: CodecError) -> CodecError:
        """`error` with the number of the bad message on this port, unless it says a number already."""
        if error.what.startswith("message"):
            return error
        number = self._skipped + self.delivered + 1
        return CodecError(f"message {number:,} on `{self.port}`: {error.what}", remedy=error.remedy)

    def _deliver(self, batch: Batch) -> None:
        if self._is_data is not None:
            batch, stray = sift(batch, self._codec, self._is_data)
            if self._on_stray is not None:
                for payload in stray:
                    self._on_stray(payload)
        if self._to_skip and batch.count:
            skipped, batch = self._codec.skip(batch, min(self._to_skip, batch.count))
            self._to_skip -= skipped.count
            self._skipped += skipped.count
        if batch.count:
            self._delivery.deliver(batch)
            self.delivered += batch.count

    def _pause(self) -> None:
        if self.paused or self._descriptor < 0:
            return
        self.paused = True
        self._loop.remove_reader(self._descriptor)
        self._delivery.when_room(self._resume)

    def _resume(self) -> None:
        if not self.paused:
            return
        if self._delivery.full:
            self._delivery.when_room(self._resume)
            return
        self.paused = False
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._readable)

    @property
    def blocked_by(self) -> tuple[Reader, ...]:
        """The readers that make it wait."""
        return self._delivery.blocked_by

    @property
    def trouble(self) -> str | None:
        """Why it waits where no reader makes it wait."""
        return self._delivery.trouble

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the program has written and nobody has read yet."""
        return unread_bytes(self._descriptor) if self._descriptor >= 0 else 0

    async def read_to_end(self) -> None:
        """After the whole tree is dead: wait until everything it wrote is read.

        The pipe ends by itself then, as soon as its readers have room. Somebody outside of the tree may have been given
        its other end: when nothing comes any more it counts as ended.
        """
        self.begin()
        while not self.ended.is_set():
            try:
                await asyncio.wait_for(self.ended.wait(), _HELD_ELSEWHERE_S)
            except TimeoutError:
                if not self.paused and not self.waiting_bytes:
                    self.close()

    def finish(self, *, clean: bool) -> None:
        """The run is over, with exit 0 if `clean`: deliver what is a last message.

        Raises CodecError when the rest is none, ContractError when it answers nothing.
        """
        if self._failed:
            return
        try:
            batch = self._decoder.finish(clean=clean)
        except CodecError as error:
            raise self._numbered(error) from error
        if batch.count:
            self._deliver(batch)

    def close(self) -> None:
        """Read no more. A program that goes on writing gets EPIPE."""
        if self._descriptor < 0:
            return
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
        elif self._begun and not self.paused:
            self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self.paused = False
        self.ended.set()
        self._on_end()
