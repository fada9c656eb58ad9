"""The folder that an attached processor's container is shown: the shim, and the socket by which it finds the runner.

Where its mount is writable, whatever is in it may have been put there by the program. So everything in it is named by
one component below the open folder, made anew, and never followed: there is nothing for openat2(2) to refuse.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from runner.errors import MachineError

SHIM = "connector-shim"
SOCKET = "shim.sock"
_ENDPOINT = "z"
_NEW = ".new"


class AttachedFolder:
    """See the module; `path` is made when it is not there. Raises MachineError where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mine: tuple[int, int] | None = None
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o755)
            self._folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise self._refused("cannot be opened", error) from error

    def install(self, shim: Path) -> None:
        """Put the shim there, whole or not at all, whatever is there now (it may be running)."""
        try:
            data = shim.read_bytes()
            new = SHIM + _NEW
            self._remove(new)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755, dir_fd=self._folder)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o755)
                file.write(data)
            self._rename(new, SHIM)
        except OSError as error:
            raise self._refused(f"cannot take the {SHIM}", error) from error

    def listen(self, waiting: int) -> socket.socket:
        """Listen for shims. Raises MachineError where another runner does."""
        if self._is_served():
            raise MachineError(
                f"another runner listens at {self.path / SOCKET}", remedy="one runner serves a processor; end the other"
            )
        self._sweep()
        listener = self._listener(SOCKET, socket.SOCK_SEQPACKET, waiting)
        self._mine = self._which(SOCKET)
        return listener

    def endpoint(self, waiting: int) -> tuple[str, socket.socket]:
        """A new listening stream socket for the program itself, and its name in the folder."""
        name = f"{_ENDPOINT}{secrets.token_hex(4)}"
        return name, self._listener(name, socket.SOCK_STREAM, waiting)

    def remove(self, name: str) -> None:
        """Nobody finds it any more."""
        with contextlib.suppress(OSError):
            self._remove(name)

    def close(self) -> None:
        """Nobody finds the runner here any more. May be called more than once."""
        if self._folder < 0:
            return
        if self._mine is not None and self._which(SOCKET) == self._mine:
            self.remove(SOCKET)
        os.close(self._folder)
        self._folder = -1

    def _listener(self, name: str, kind: socket.SocketKind, waiting: int) -> socket.socket:
        """One that anybody who is shown the folder may connect to, at its name only once it listens."""
        new = name + _NEW
        listener = socket.socket(socket.AF_UNIX, kind)
        try:
            listener.setblocking(False)  # noqa: FBT003 - the library's own shape
            self._remove(new)
            listener.bind(f"/proc/self/fd/{self._folder}/{new}")
            with self._opened(new) as found:
                Path(f"/proc/self/fd/{found}").chmod(0o666)
            listener.listen(waiting)
            self._rename(new, name)
        except OSError as error:
            listener.close()
            raise self._refused(f"can have no socket {name}", error) from error
        return listener

    def _is_served(self) -> bool:
        """Whether somebody listens at the socket."""
        with (
            contextlib.suppress(OSError),
            self._opened(SOCKET) as found,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as knock,
        ):
            knock.setblocking(False)  # noqa: FBT003 - the library's own shape
            with contextlib.suppress(BlockingIOError):  # its queue is full
                knock.connect(f"/proc/self/fd/{found}")
            return True
        return False

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """The socket of that name itself, not what it may point to. Raises OSError when it is none."""
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                raise OSError(95, "it is no socket")
            yield descriptor
        finally:
            os.close(descriptor)

    def _which(self, name: str) -> tuple[int, int] | None:
        try:
            status = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _sweep(self) -> None:
        """Remove the endpoints of a runner that has died."""
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            with os.scandir(listing) as entries:
                old = [each.name for each in entries if each.name.startswith(_ENDPOINT)]
        finally:
            os.close(listing)
        for name in old:
            self.remove(name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder)

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _refused(self, what: str, error: OSError) -> MachineError:
        away = error.errno == errno.ENOENT
        return MachineError(
            f"the bridge folder {self.path} {what}: {error.strerror or error}",
            remedy=f"make {self.path.parent}, or name another folder with --bridges"
            if away
            else "the runner must be able to write there; see docs/sidecar.md",
        )
