"""A link's frames over TCP, straight from and to a socket.

asyncio's transports would join the parts of a frame, and copy what the kernel does not take at once. Here the kernel
takes the parts where they are, and fills the very bytes that become the batch: of a long frame the buffer of the socket
is waited for to have all (SO_RCVLOWAT, socket(7)), so that it comes in one piece and wakes us once.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import termios
from array import array

from runner.channel.link.framed import FramedConnection
from runner.channel.link.framing import Framing
from runner.channel.link.reasons import named, reason
from runner.codec.base import Buffer

_SHORT_BYTES = 64 << 10
"""So much is read at once where frames are short. Behind one that is longer than half of it only a head is read."""
_MOST_AT_ONCE_BYTES = 1 << 20
_MOST_PARTS = os.sysconf("SC_IOV_MAX")


class SocketConnection(FramedConnection):
    """See the module. `sock` is connected, does not block, and is this connection's own."""

    def __init__(self, sock: socket.socket, framing: Framing) -> None:
        super().__init__(framing, _SHORT_BYTES, _SHORT_BYTES // 2)
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._descriptor = sock.fileno()
        self._look_bytes = _SHORT_BYTES
        self._long: list[Buffer] = []
        self._missing = 0
        """Of a long frame: what has come, and how much has not."""
        self._expected = 1
        self._unsent: list[Buffer] = []
        self._closes = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.remote = named(sock.getpeername())
        except OSError:
            self.remote = "somebody"  # it is gone already
        self._read_on()

    # -- what comes

    def _read_on(self) -> None:
        self._loop.add_reader(self._descriptor, self._readable)

    def _read_no_more(self) -> None:
        self._loop.remove_reader(self._descriptor)

    def _readable(self) -> None:
        try:
            if self._missing:
                self._read_long()
            else:
                self._read_short()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.close(reason(error))
        if self._arrived.why is None:
            self._expect(min(self._missing, _MOST_AT_ONCE_BYTES) or 1)

    def _read_long(self) -> None:
        """Mostly all that is missing, and the head of the frame behind it, where that has come as well."""
        chunk = self._socket.recv(min(self._missing + self._framing.most_head_bytes, _MOST_AT_ONCE_BYTES))
        if not chunk:
            self.close("it has closed the connection")
            return
        self._take_long(chunk)

    def _take_long(self, chunk: Buffer) -> None:
        self._received_bytes += len(chunk)
        over = len(chunk) - self._missing
        if over > 0:
            self._view[:over] = chunk[self._missing :]
            self._filled = over
            chunk = memoryview(chunk)[: self._missing]
        self._long.append(chunk)
        self._missing -= len(chunk)
        if not self._missing:
            self._put_long(self._long)
            self._long.clear()
            self._cut()

    def _read_short(self) -> None:
        count = self._socket.recv_into(self._view[self._filled : self._filled + self._look_bytes])
        if not count:
            self.close("it has closed the connection")
            return
        self._take_short(count)

    def _take_short(self, count: int) -> None:
        self._received_bytes += count
        self._filled += count
        self._look_bytes = _SHORT_BYTES
        self._cut()

    def _begin_long(self, first: int, length: int) -> None:
        if first < self._filled:
            self._long.append(bytes(self._view[first : self._filled]))
        self._missing = length - (self._filled - first)
        self._look_bytes = self._framing.most_head_bytes
        self._filled = 0

    def feed(self, data: bytes) -> None:
        """See `FramedConnection`."""
        while data and self._arrived.why is None:
            if self._missing:
                chunk, data = data[: self._missing], data[self._missing :]
                self._take_long(chunk)
            else:
                room = _SHORT_BYTES - self._filled
                chunk, data = data[:room], data[room:]
                self._view[self._filled : self._filled + len(chunk)] = chunk
                self._take_short(len(chunk))

    def _expect(self, size_bytes: int) -> None:
        """Wake us when so much is there. The kernel wakes us earlier where it has no room for it."""
        if self._expected != size_bytes:
            self._expected = size_bytes
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)

    def progress(self) -> int:
        """See `Connection`: what waits in the socket counts."""
        if self._arrived.why is not None:
            return self._received_bytes
        waiting = array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
        return self._received_bytes + waiting[0]

    # -- what is sent

    def _write(self, pieces: tuple[Buffer, ...]) -> None:
        self._unsent += pieces
        if self._room.is_set():
            self._flush()

    def _flush(self) -> None:
        """Give the kernel as much as it takes, and go on when it takes more."""
        unsent = self._unsent
        try:
            while unsent:
                _advance(unsent, self._socket.sendmsg(unsent[:_MOST_PARTS]))
        except (BlockingIOError, InterruptedError):
            if self._room.is_set():
                self._room.clear()
                self._loop.add_writer(self._descriptor, self._flush)
            return
        except OSError as error:
            self.close(reason(error))
            return
        if not self._room.is_set():
            self._loop.remove_writer(self._descriptor)
            if self._closes:
                self.close("the connection was closed")
            else:
                self._has_room()

    # -- its end

    def _close_when_sent(self, why: str) -> None:
        self._closes = True
        if self._room.is_set():
            self.close(why)

    def close(self, why: str) -> None:
        """See `Connection`."""
        if self._arrived.why is not None:
            return
        self._down(why)
        self._read_no_more()
        self._loop.remove_writer(self._descriptor)
        self._socket.close()
        self._unsent.clear()

    async def finish(self) -> None:
        """See `Connection`."""
        await self._bid_farewell()
        self.close("the connection was closed")


def _advance(parts: list[Buffer], count: int) -> None:
    """Take the first `count` bytes off `parts`."""
    gone = 0
    while gone < len(parts) and count >= len(parts[gone]):
        count -= len(parts[gone])
        gone += 1
    del parts[:gone]
    if count:
        parts[0] = memoryview(parts[0])[count:]
