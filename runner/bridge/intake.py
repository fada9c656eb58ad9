"""Our end of a pipe that a program writes: reads it while there is room, and to its end after a death."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable

from runner.bridge.outlet import Room
from runner.bridge.spout import unread_bytes
from runner.channel.base import Reader
from runner.errors import RunnerError

_MOST_READ_BYTES = 256 << 10
_END_READ_BYTES = 4096
_BREATH_S = 0.001
_HELD_ELSEWHERE_S = 0.5


class Intake(ABC):
    """See the module. It owns `descriptor` (the non-blocking read end of a pipe).

    `room` says when there is room. What is wrong with the program's output stops the reading and is told by
    `on_error`, once. Nothing is read before `begin`.
    """

    def __init__(
        self,
        descriptor: int,
        room: Room,
        *,
        port: str,
        on_error: Callable[[RunnerError], None],
        on_end: Callable[[], None],
    ) -> None:
        self.port = port
        self.ended = asyncio.Event()
        self.delivered = 0
        self.paused = False
        self._descriptor = descriptor
        self._room = room
        self._on_error = on_error
        self._on_end = on_end
        self._failed = False
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._breath: asyncio.TimerHandle | None = None

    @property
    def unconnected(self) -> bool:
        """Whether the program has still to connect to this port."""
        return False

    @property
    def delivered_by_port(self) -> dict[str, int]:
        """How many messages of this run went into the channels of each port."""
        return {self.port: self.delivered}

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
        except ConnectionResetError:
            data = b""  # a socket's way to say that its end did not read everything
        if data:
            self._received(data)
        else:
            self._at_end()

    def _at_end(self) -> None:
        """Nothing more comes from this descriptor."""
        self.close()

    def _received(self, data: bytes) -> None:
        if not self._take(data):
            return
        if self._room.full:
            self._pause()
        elif self._room.ahead:
            self._breathe()

    @abstractmethod
    def _take(self, data: bytes) -> bool:
        """What was read; False: it was wrong, this is closed and everybody knows."""

    @abstractmethod
    def finish(self, *, clean: bool) -> None:
        """The run is over, with exit 0 if `clean`, and everything is read. Raises CodecError and ContractError."""

    def _fail_with(self, error: RunnerError) -> None:
        self._failed = True
        self.close()
        self._on_error(error)

    def _breathe(self) -> None:
        """Let the readers catch up for a moment. Should they not, the channel fills up all the same, a bit later."""
        self._loop.remove_reader(self._descriptor)
        self._breath = self._loop.call_later(_BREATH_S, self._go_on)

    def _go_on(self) -> None:
        self._breath = None
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._readable)

    def _pause(self) -> None:
        if self.paused or self._descriptor < 0:
            return
        self.paused = True
        self._loop.remove_reader(self._descriptor)
        self._room.when_room(self._resume)

    def _resume(self) -> None:
        if not self.paused:
            return
        if self._room.full:
            self._room.when_room(self._resume)
            return
        self.paused = False
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._readable)

    @property
    def blocked_by(self) -> tuple[Reader, ...]:
        """The readers that make it wait."""
        return self._room.blocked_by

    @property
    def trouble(self) -> str | None:
        """Why it waits where no reader makes it wait."""
        return self._room.trouble

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the program has written and nobody has read yet."""
        return unread_bytes(self._descriptor) if self._descriptor >= 0 else 0

    def program_has_ended(self) -> None:  # noqa: B027 - a pipe ends by itself
        """From now on the end of what there is to be read is the end."""

    async def read_to_end(self) -> None:
        """After the whole tree is dead: wait until everything it wrote is read.

        The pipe ends by itself then, as soon as its readers have room. Somebody outside of the tree may have been given
        its other end: when nothing comes any more it counts as ended.
        """
        self.begin()
        while not self.ended.is_set():
            try:
                async with asyncio.timeout(_HELD_ELSEWHERE_S):
                    await self.ended.wait()
            except TimeoutError:
                if not self.paused and not self.waiting_bytes:
                    self.close()

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
