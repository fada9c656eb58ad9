"""A link's frames over TCP, each after its length, straight from and to a socket.

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
from collections.abc import Callable

from runner.channel.link.arrived import Arrived
from runner.channel.link.reasons import named, reason
from runner.channel.link.transport import Bounds, DownError, PromptConnection
from runner.codec.base import Buffer

_LENGTH_BYTES = 4
_SHORT_BYTES = 64 << 10
"""So much is read at once where frames are short. Behind one that is longer than half of it only a length is read."""
_MOST_AT_ONCE_BYTES = 1 << 20
_MOST_PARTS = os.sysconf("SC_IOV_MAX")


class SocketConnection(PromptConnection):
    """See the module. `sock` is connected, does not block, and is this connection's own."""

    def __init__(self, sock: socket.socket, bounds: Bounds) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._descriptor = sock.fileno()
        self._bounds = bounds
        self._buffer = bytearray(_SHORT_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._look_bytes = _SHORT_BYTES
        self._long: list[Buffer] = []
        self._missing = 0
        """Of a long frame: what has come, and how much has not."""
        self._expected = 1
        self._received_bytes = 0
        self._arrived = Arrived(self._read_no_more, self._read_on)
        self._unsent: list[Buffer] = []
        self._room = asyncio.Event()
        self._room.set()
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
        """Mostly all that is missing, and the length of the frame behind it, where that has come as well."""
        chunk: Buffer = self._socket.recv(min(self._missing + _LENGTH_BYTES, _MOST_AT_ONCE_BYTES))
        if not chunk:
            self.close("it has closed the connection")
            return
        self._received_bytes += len(chunk)
        over = len(chunk) - self._missing
        if over > 0:
            self._view[:over] = chunk[self._missing :]
            self._filled = over
            chunk = memoryview(chunk)[: self._missing]
        self._long.append(chunk)
        self._missing -= len(chunk)
        if not self._missing:
            self._arrived.put(chunk if len(self._long) == 1 else b"".join(self._long))
            self._long.clear()
            self._filled = self._after_frames()

    def _read_short(self) -> None:
        count = self._socket.recv_into(self._view[self._filled : self._filled + self._look_bytes])
        if not count:
            self.close("it has closed the connection")
            return
        self._received_bytes += count
        self._filled += count
        self._look_bytes = _SHORT_BYTES
        self._filled = self._after_frames()

    def _after_frames(self) -> int:
        """Take the whole frames out of the buffer; what is left of it goes to its beginning: how much that is."""
        start = self._cut()
        rest = self._filled - start
        if start and rest:
            self._view[:rest] = self._view[start : self._filled]
        return rest

    def _cut(self) -> int:
        """Take the whole frames out of the buffer; where the rest of it begins."""
        start, filled, buffer = 0, self._filled, self._buffer
        while filled - start >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
            if length > self._bounds.frame_bytes:
                self.close(f"it sends a frame of {length:,} bytes, and {self._bounds.frame_bytes:,} are allowed")
                break
            first = start + _LENGTH_BYTES
            if filled - first >= length:
                start = first + length
                self._arrived.put(bytes(self._view[first:start]))
            elif length + _LENGTH_BYTES > _SHORT_BYTES // 2:
                if first < filled:
                    self._long.append(bytes(self._view[first:filled]))
                self._missing = length - (filled - first)
                self._look_bytes = _LENGTH_BYTES
                return filled
            else:
                break
        return start

    def _expect(self, size_bytes: int) -> None:
        """Wake us when so much is there. The kernel wakes us earlier where it has no room for it."""
        if self._expected != size_bytes:
            self._expected = size_bytes
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)

    async def receive(self) -> Buffer:
        """See `Connection`."""
        return await self._arrived.receive()

    async def hand_to(self, take: Callable[[Buffer], None]) -> None:
        """See `Connection`."""
        await self._arrived.hand_to(take)

    def progress(self) -> int:
        """See `Connection`: what waits in the socket counts."""
        if self._arrived.why is not None:
            return self._received_bytes
        waiting = array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
        return self._received_bytes + waiting[0]

    # -- what is sent

    async def send(self, *parts: Buffer) -> None:
        """See `Connection`."""
        self._check_open()
        self.send_now(*parts)
        if not self._room.is_set():
            await self._room.wait()
            self._check_open()

    @property
    def ready(self) -> bool:
        """See `PromptConnection`: nothing waits to be sent."""
        return not self._unsent and self._arrived.why is None

    def send_now(self, *parts: Buffer) -> None:
        """See `PromptConnection`."""
        self._unsent += (sum(map(len, parts)).to_bytes(_LENGTH_BYTES, "big"), *parts)
        if self._room.is_set():
            self._flush()

    def _check_open(self) -> None:
        if self._arrived.why is not None:
            raise DownError(self._arrived.why)

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
            self._room.set()

    def close(self, why: str) -> None:
        """See `Connection`."""
        if self._arrived.why is not None:
            return
        self._arrived.end(why)
        self._read_no_more()
        self._loop.remove_writer(self._descriptor)
        self._socket.close()
        self._unsent.clear()
        self._room.set()

    async def finish(self) -> None:
        """See `Connection`."""
        await self._room.wait()
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
