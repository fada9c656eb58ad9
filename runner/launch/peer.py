"""Who is at the other end of a unix socket, and what runs below it, as seen from here."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

from runner.launch.tree import children_of

_CREDENTIALS = struct.Struct("3i")


def peer_of(channel: socket.socket) -> int:
    """The process at the other end, 0 where it cannot be seen from here (unix(7), SO_PEERCRED)."""
    raw = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[0])


def seen_from_here(init: int, inside: int) -> int:
    """The process id here of what is `inside` below the container's `init`; 0 where it cannot be seen."""
    for child in children_of(init) if init else ():
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
            numbers = next(line for line in lines if line.startswith("NSpid:")).split()
            if numbers[-1] == str(inside):
                return child
    return 0
