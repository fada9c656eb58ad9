"""Our end of the pipe into a program: writes what it is given bit by bit, and says what is unread once it has died."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import termios
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence

from runner.bridge.left import InputLeft
from runner.channel.base import Reader
from runner.codec.base import Buffer
from runner.errors import ContractError

_READERS_GONE_S = 1.0
_POLL_S = 0.001
_MOST_PARTS = os.sysconf("SC_IOV_MAX")
_ANSWER = array("i", [0])


def unread_bytes(descriptor: int) -> int:
    """How many bytes wait in a pipe, asked at either end."""
    fcntl.ioctl(descriptor, termios.FIONREAD, _ANSWER)
    return _ANSWER[0]


class Spout(ABC):
    """See the module. It owns `descriptor` (the non-blocking write end of a pipe)."""

    port: str

    def __init__(self, descriptor: int) -> None:
        self.written_bytes = 0
        self.input_closed = False
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._rest: list[Buffer] = []
        self._flowing = False
        self._awaiting_room = False
        self._refused = False
        self._ends_soon = False
        self._left_bytes = 0

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
    def input_ended(self) -> bool:
        """Whether the program was told that nothing more comes, or wants nothing."""
        return self.input_closed or self._refused

    @property
    def unread_bytes(self) -> int:
        """Bytes that the program was given and has not read."""
        return unread_bytes(self._descriptor) if self._descriptor >= 0 else 0

    @property
    def backlog_bytes(self) -> int:
        """See `runner.bridge.inlet.Hungry`."""
        return self.unread_bytes + sum(len(part) for part in self._rest)

    @property
    def unconnected(self) -> bool:
        """Whether the program has still to connect to this port."""
        return False

    @property
    def inode(self) -> int:
        """The pipe's inode number."""
        return os.fstat(self._descriptor).st_ino if self._descriptor >= 0 else -1

    @property
    @abstractmethod
    def readers(self) -> Sequence[Reader]:
        """Whose messages it hands out."""

    @property
    @abstractmethod
    def starved(self) -> bool:
        """Whether there is nothing that the program could be given on this port, and its input has not ended."""

    @property
    @abstractmethod
    def in_flight(self) -> list[tuple[object, int]]:
        """(reader, messages) that are handed out and have no outcome, for the ledger."""

    @abstractmethod
    def _refill(self) -> bool:
        """Put what is to be written next into `_rest`; False when there is nothing for now."""

    def _pump(self) -> None:
        descriptor = self._descriptor
        while self._rest or (not self._ends_soon and self._refill()):
            try:
                count = os.writev(
                    descriptor, self._rest if len(self._rest) <= _MOST_PARTS else self._rest[:_MOST_PARTS]
                )
            except BlockingIOError:
                self._awaiting_room = True
                self._loop.add_writer(descriptor, self._room)
                return
            except (BrokenPipeError, ConnectionResetError):
                self._closed_by_program()
                return
            self.written_bytes += count
            self._advance(count)
        if self._ends_soon and not self.input_closed:
            self._close_input()

    def _closed_by_program(self) -> None:
        self._refused = True

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

    def _close_input(self) -> None:
        """Give the end of input. A read end of our own stays, to count what is unread once the program is gone."""
        self.input_closed = True
        tail = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(self._descriptor)
        self._descriptor = tail

    def end_soon(self) -> None:
        """No message more is begun: the end of input comes when those under way are written."""
        self._ends_soon = True
        self.wake()

    def end_now(self) -> None:
        """Nothing more is written, whatever there is: the end of input comes at once."""
        if not (self.input_closed or self._refused) and self._descriptor >= 0:
            if self._awaiting_room:
                self._loop.remove_writer(self._descriptor)
                self._awaiting_room = False
            self._rest = []
            self._close_input()

    def stop(self) -> None:
        """Write no more: the program has died."""
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

    @abstractmethod
    def settle(self) -> InputLeft:
        """After `count_unread`, and once all output is read: account for what was read, give back what was not.

        Raises ContractError for numbers that cannot be (the program wrote into its own input, say); then nothing that
        the program may have read is given back.
        """

    def _check_possible(self, unread: int) -> None:
        if unread > self.written_bytes:
            raise ContractError(
                f"{unread:,} bytes are unread on `{self.port}`, but only {self.written_bytes:,} were written:"
                " the program wrote into its own input"
            )

    async def _readers_gone(self) -> None:
        if self.input_closed:
            return  # ours is the read end now
        poller = select.poll()
        poller.register(self._descriptor, select.POLLERR)
        deadline = self._loop.time() + _READERS_GONE_S
        while not poller.poll(0) and self._loop.time() < deadline:  # noqa: ASYNC110 - a settled pipe has no event
            await asyncio.sleep(_POLL_S)

    def abandon(self) -> None:
        """Close without an account: the program was never started."""
        self.stop()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
