"""A shim that stays, and the runners that it connects to one after the other."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.launch.shim_client import DEADLINE_S, Shim

VERSION = 1


def listen_at(path: Path) -> socket.socket:
    """A runner's door, in place of the one before it."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(8)
    listener.settimeout(DEADLINE_S)
    return listener


class StayingShim(Shim):
    """See the module; `listener` is the door of the runner that is there now, if any."""

    def __init__(
        self, binary: str, path: Path, *, wrap: Callable[[list[str]], list[str]] = lambda command: command, **popen: Any
    ) -> None:
        self.path = path
        self.listener: socket.socket | None = None
        self.process = subprocess.Popen(wrap([binary, "--stay", str(path)]), **popen)
        self.socket = socket.socket()
        self.socket.close()  # nobody has come yet

    def __exit__(self, *_: object) -> None:
        self.leave()
        self.process.kill()
        self.process.communicate()

    def come(self, *, hello: bool = True) -> None:
        """A runner comes, and the shim to it."""
        if self.listener is None:
            self.listener = listen_at(self.path)
        self.socket = self.listener.accept()[0]
        self.socket.settimeout(DEADLINE_S)
        if hello:
            assert self.expect("H") == struct.pack("<I", VERSION) + str(self.path).encode()

    def leave(self, *, door: bool = True) -> None:
        """The runner goes; not `door`: somebody else listens on."""
        self.socket.close()
        if door and self.listener is not None:
            self.listener.close()
            self.listener = None

    def say_over(self, code: int) -> None:
        self.send(b"O" + struct.pack("<i", code))
