"""The log of a container that somebody else has started: the standard error of its first process, which its shim shows.

Only pipes and terminals are written to, never waiting for who reads them: a container could hand over anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat

from runner.launch.shim_client import LARGEST_PACKET_BYTES


class ContainerLog:
    """A log to write lines into; `descriptor` None: there is none. It owns the descriptor."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self.lost_lines = 0
        if descriptor is None:
            return
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(descriptor)):
            os.set_blocking(descriptor, False)
        else:
            self.close()

    def write(self, text: str) -> bool:
        """Write a line; one for which there is no room is counted, and told of later. False: there is no log."""
        if self._descriptor is None:
            return False
        missing = f"… {self.lost_lines} lines are missing: nobody read them in time\n" if self.lost_lines else ""
        line = f"{missing}{_harmless(text)}\n".encode()
        try:
            whole = os.write(self._descriptor, line) == len(line)
        except BlockingIOError:
            whole = False
        except OSError:
            self.close()
            return False
        self.lost_lines = 0 if whole else self.lost_lines + 1
        return True

    def close(self) -> None:
        """Write no more. May be called more than once."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


async def first_packet(channel: socket.socket) -> tuple[bytes, ContainerLog]:
    """The first packet of a shim, and the log that came with it. Raises OSError."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            data, descriptors, _, _ = socket.recv_fds(channel, LARGEST_PACKET_BYTES, 1, flags)
        except BlockingIOError:
            await _readable(loop, channel)
        else:
            return data, ContainerLog(descriptors[0] if descriptors else None)


async def _readable(loop: asyncio.AbstractEventLoop, channel: socket.socket) -> None:
    there: asyncio.Future[None] = loop.create_future()
    loop.add_reader(channel.fileno(), lambda: None if there.done() else there.set_result(None))
    try:
        await there
    finally:
        with contextlib.suppress(OSError, ValueError):
            loop.remove_reader(channel.fileno())


def _harmless(text: str) -> str:
    """As one line that no terminal takes for anything but text."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\t" else f"\\x{ord(each):02x}" for each in text)
