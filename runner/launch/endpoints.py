"""Listening unix sockets for programs that speak ZeroMQ, each where only its own instance can reach it.

An instance has a folder for itself, `BASE/connector-OWNER-RANDOM/N`, in which each run of its program finds sockets
with names of their own. A wall shows that folder, and no other, at `SOCKET_FOLDER`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from runner.errors import MachineError
from runner.launch.base import TakeListener
from runner.launch.sockets import SocketFolder, sweep

_WAITING = 8
"""How many connections the kernel keeps that nobody has let in."""


class EndpointFolder:
    """The folder of one instance. `inside` is its path as the program sees it.

    `user` (uid, gid) may connect besides root; None: whoever the folder is shown to.
    """

    def __init__(self, folder: Path, inside: str, user: tuple[int, int] | None) -> None:
        self.folder = folder
        self._inside = inside
        self._user = user
        self._made: list[Path] = []
        self._number = 0

    def listen(self, endpoints: Mapping[str, TakeListener]) -> dict[str, str]:
        """A new socket for each endpoint, which its taker owns; returns the variables. Those of before are gone.

        Raises MachineError.
        """
        self.clear()
        variables = {}
        for variable, take in endpoints.items():
            self._number += 1
            name = f"z{self._number}"
            take(self._listener(self.folder / name))
            variables[variable] = f"ipc://{self._inside}/{name}"
        return variables

    def _listener(self, path: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)  # noqa: FBT003 - the library's own shape
            listener.bind(str(path))
            self._made.append(path)
            path.chmod(0o666 if self._user is None else 0o600)
            if self._user not in {None, (os.geteuid(), os.getegid())}:
                os.chown(path, *self._user)
            listener.listen(_WAITING)
        except OSError as error:
            listener.close()
            raise MachineError(f"no socket can be made at {path}: {error.strerror or error}") from error
        return listener

    def clear(self) -> None:
        """Nobody finds the sockets any more; connections stay. May be called more than once."""
        for path in self._made:
            path.unlink(missing_ok=True)
        self._made.clear()

    def remove(self) -> None:
        """The same, and the folder goes. May be called more than once."""
        self.clear()
        with contextlib.suppress(OSError):
            self.folder.rmdir()


class EndpointFolders:
    """Those of one run, in a place that is made when the first is asked for."""

    def __init__(self) -> None:
        self._place: SocketFolder | None = None
        self._number = 0

    async def make(self, inside: str | None, user: tuple[int, int] | None = None) -> EndpointFolder:
        """A new one; `inside` None: seen at the path that it has here; `user` None: our own. Raises MachineError."""
        if self._place is None:
            await asyncio.to_thread(sweep)
            self._place = SocketFolder.make()
        if user is not None:
            self._place.let_others_pass()
        self._number += 1
        folder = self._place.path / str(self._number)
        owner = (os.geteuid(), os.getegid()) if user is None else user
        try:
            folder.mkdir(0o700)
            if user is not None:
                os.chown(folder, *user)
        except OSError as error:
            raise MachineError(f"no folder can be made for sockets at {folder}: {error.strerror or error}") from error
        return EndpointFolder(folder, inside or str(folder), owner)

    def close(self) -> None:
        """The run is over."""
        if self._place is not None:
            self._place.remove()
            self._place = None
