"""Channel to program: writes the messages of an inlet into one input port of one run of a program.

Nothing is acknowledged here but what is known to be read: the kernel says, to the byte, how much of a pipe is unread,
also after its reader has died (ioctl FIONREAD on the write end). So a death costs exactly what was read.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import termios
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from runner.bridge.inlet import MANY_PIECES, Inlet, Piece, merged
from runner.codec.base import Buffer
from runner.errors import ContractError

_READERS_GONE_S = 1.0
_POLL_S = 0.001
_HELD_BYTES = 256 << 10
_MOST_PARTS = os.sysconf("SC_IOV_MAX")
_ANSWER = array("i", [0])


def unread_bytes(descriptor: int) -> int:
    """How many bytes wait in a pipe, asked at either end."""
    fcntl.ioctl(descriptor, termios.FIONREAD, _ANSWER)
    return _ANSWER[0]


@dataclass(frozen=True, slots=True)
class InputLeft:
    """What a run of a program left of its input.

    `ended`: it was given the end of its input and had read everything before. `unread` counts messages, the torn one
    included. `unanswered` counts messages it had read whole and not answered (one-to-one; else 0), the first of which
    `first_unanswered` names; `touched` counts the torn one as well.
    """

    ended: bool
    unread: int
    consumed: int
    unanswered: int = 0
    first_unanswered: str = ""
    touched: int = 0


class Feeder(ABC):
    """See the module. It owns `descriptor` (the non-blocking write end of a pipe)."""

    def __init__(self, descriptor: int, inlet: Inlet, *, on_progress: Callable[[], None]) -> None:
        self.inlet = inlet
        self.written_bytes = 0
        self.input_closed = False
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._on_progress = on_progress
        self._rest: list[Buffer] = []
        self._flowing = False
        self._awaiting_room = False
        self._refused = False
        self._left_bytes = 0
        inlet.attach(self)

    def begin(self) -> None:
        """The program is ready: messages flow from now on."""
        self._flowing = True
        self.wake()

    def wake(self) -> None:
        """See `runner.bridge.inlet.Hungry`."""
        if self._flowing and not self._awaiting_room and not self.input_closed and not self._refused:
            self._pump()

    @property
    def refused(self) -> bool:
        """Whether the program has closed this port."""
        return self._refused

    @property
    def unread_bytes(self) -> int:
        """Bytes that the program was given and has not read."""
        return unread_bytes(self._descriptor) if self._descriptor >= 0 else 0

    @property
    def backlog_bytes(self) -> int:
        """See `runner.bridge.inlet.Hungry`."""
        return self.unread_bytes + sum(len(part) for part in self._rest)

    @property
    def starved(self) -> bool:
        """Whether there is nothing that the program could be given on this port, and its input has not ended."""
        return not (self.input_closed or self._rest or self.inlet.queued_messages or self.unread_bytes)

    @property
    def inode(self) -> int:
        """The pipe's inode number."""
        return os.fstat(self._descriptor).st_ino if self._descriptor >= 0 else -1

    def _pump(self) -> None:
        descriptor = self._descriptor
        while True:
            if not self._rest:
                piece = self._next()
                if piece is None:
                    if self.inlet.ended:
                        self._end_input()
                    return
                piece.start = self.written_bytes
                piece.end = piece.start + piece.batch.size_bytes
                self._hold(piece)
                self._rest = list(piece.batch.parts)
            try:
                count = os.writev(
                    descriptor, self._rest if len(self._rest) <= _MOST_PARTS else self._rest[:_MOST_PARTS]
                )
            except BlockingIOError:
                self._awaiting_room = True
                self._loop.add_writer(descriptor, self._room)
                return
            except BrokenPipeError:
                self._refused = True
                return
            self.written_bytes += count
            self._advance(count)

    def _advance(self, count: int) -> None:
        rest = self._rest
        gone = 0
        while gone < len(rest) and count >= len(rest[gone]):
            count -= len(rest[gone])
            gone += 1
        del rest[:gone]
        if count:
            rest[0] = memoryview(rest[0])[count:]

    def _room(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._awaiting_room = False
        self.wake()

    def _end_input(self) -> None:
        """Give the end of input. A read end of our own stays, to count what is unread once the program is gone."""
        self.input_closed = True
        tail = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(self._descriptor)
        self._descriptor = tail
        self._on_progress()

    @abstractmethod
    def _next(self) -> Piece | None:
        """The next piece to write, None for now."""

    @abstractmethod
    def _hold(self, piece: Piece) -> None:
        """`piece` is about to be written: remember it."""

    @property
    @abstractmethod
    def in_flight(self) -> list[tuple[object, int]]:
        """(reader, messages) that are handed out and have no outcome, for the ledger."""

    def stop(self) -> None:
        """Write no more: the program has died."""
        self.inlet.detach(self)
        self._flowing = False
        if self._awaiting_room:
            self._loop.remove_writer(self._descriptor)
            self._awaiting_room = False

    async def count_unread(self) -> None:
        """After `stop`, and once the whole tree is dead: see what it has not read; for `settle`."""
        await self._readers_gone()
        self._left_bytes = unread_bytes(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def settle(self) -> InputLeft:
        """After `count_unread`, and once all output is read: account for what was read, give back what was not.

        Raises ContractError for numbers that cannot be (the program wrote into its own input, say); then nothing that
        the program may have read is given back.
        """
        return self._account(self._left_bytes)

    async def _readers_gone(self) -> None:
        if self.input_closed:
            return  # ours is the read end now
        poller = select.poll()
        poller.register(self._descriptor, select.POLLERR)
        deadline = self._loop.time() + _READERS_GONE_S
        while not poller.poll(0) and self._loop.time() < deadline:  # noqa: ASYNC110 - a settled pipe has no event
            await asyncio.sleep(_POLL_S)

    @abstractmethod
    def _account(self, unread: int) -> InputLeft:
        """Settle everything held, `unread` bytes being left in the pipe."""

    def _check_possible(self, unread: int) -> None:
        if unread > self.written_bytes:
            raise ContractError(
                f"{unread:,} bytes are unread on `{self.inlet.port}`, but only {self.written_bytes:,} were written:"
                " the program wrote into its own input"
            )

    def abandon(self) -> None:
        """Close without an account: the program was never started."""
        self.stop()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class StreamFeeder(Feeder):
    """Contract `stream`: what was read is out of our hands; what was not goes to the next.

    Pieces are held while any byte of them may still be in the pipe, so that a torn message can be sent again, whole.
    """

    def __init__(self, descriptor: int, inlet: Inlet, *, on_progress: Callable[[], None]) -> None:
        super().__init__(descriptor, inlet, on_progress=on_progress)
        self._held: deque[Piece] = deque()
        self._consumed: dict[int, int] = {}

    def _next(self) -> Piece | None:
        return self.inlet.take()

    def _hold(self, piece: Piece) -> None:
        held = self._held
        if held and (len(held) >= MANY_PIECES or piece.start - held[0].start >= _HELD_BYTES):
            # Not from the size of the pipe: a program may have made its end of it larger.
            read_before = self.written_bytes - self.unread_bytes
            while held and held[0].end <= read_before:
                self._consume(held.popleft(), None)
        if len(held) < MANY_PIECES or not merged(held, piece, self.inlet.codec):
            held.append(piece)

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
