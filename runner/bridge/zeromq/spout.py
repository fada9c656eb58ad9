"""What goes to a ZeroMQ socket of the program: nothing is taken from a channel before that is there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
from array import array

from runner.bridge.spout import Spout
from runner.codec.base import Buffer
from runner.protocol.zmtp import MOST_PINGS

_ANSWER = array("i", [0])


class SocketSpout(Spout):
    """Mixed into a spout whose descriptor is a connection: it comes after a while, may go, and may come again."""

    def __init__(self, *arguments: object, **more: object) -> None:
        super().__init__(*arguments, **more)  # type: ignore[arg-type]  # a mixin passes on what it is given
        self._pongs: list[Buffer] = []
        self._stopped = False

    @property
    def starved(self) -> bool:
        """Whoever reads messages from a socket waits for its library's threads, and nobody sees it wait."""
        return False

    @property
    def unconnected(self) -> bool:
        """See `Spout`."""
        return self._descriptor < 0 and not (self._stopped or self.input_closed)

    def wake(self) -> None:
        """See `Spout`."""
        if self._descriptor >= 0:
            super().wake()

    @property
    def unread_bytes(self) -> int:
        """Something above 0 while the kernel holds anything that the program's library has not read."""
        if self._descriptor < 0:
            return 0
        fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, _ANSWER)  # SIOCOUTQ: with the kernel's own overhead
        return _ANSWER[0]

    @property
    def inode(self) -> int:
        """There is no pipe."""
        return -1

    def _connected(self, descriptor: int) -> None:
        """It is there; to be followed by `wake`."""
        self._descriptor = descriptor

    def _disconnected(self) -> None:
        """It has gone. Of what is written next nothing has been sent: `_rest` begins with a frame, or is empty."""
        if self._descriptor < 0:
            return
        if self._awaiting_room:
            self._loop.remove_writer(self._descriptor)
            self._awaiting_room = False
        os.close(self._descriptor)
        self._descriptor = -1
        self._pongs.clear()

    def answer(self, pongs: list[bytes]) -> None:
        """Send what the program's library waits for as a sign of life: at once, or behind what is being written."""
        if not pongs or self._descriptor < 0:
            return
        if self._rest:
            self._pongs = [*self._pongs, *pongs][-MOST_PINGS:]
        else:
            with contextlib.suppress(OSError):  # who does not read gets no answer
                os.write(self._descriptor, b"".join(pongs))
        pongs.clear()

    def _refill(self) -> bool:
        if self._pongs:
            self._rest, self._pongs = self._pongs, []
            return True
        return super()._refill()  # type: ignore[safe-super]  # a mixin: there is one behind it

    def stop(self) -> None:
        """See `Spout`."""
        self._stopped = True
        super().stop()

    async def count_unread(self) -> None:
        """See `Spout`. Nobody sees into the program's queues: what was sent counts as read, but for a torn message."""
        self._left_bytes = 0
        self._disconnected()

    def abandon(self) -> None:
        """See `Spout`."""
        self.stop()
        self._disconnected()
