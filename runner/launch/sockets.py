"""Private folders with a listening socket each, by which the shim of a container finds the runner.

`BASE/connector-OWNER-RANDOM/N/socket`: the first folder may be entered by nobody else (0700), and only the last one is
shown to a container. What dead runners left in BASE goes with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from runner.errors import MachineError
from runner.launch.owner import started, this_owner
from runner.plan.containers import SOCKET
from runner.plan.owners import is_dead, owner_in

_PREFIX = "connector-"
_LONGEST_PATH_BYTES = 107  # unix(7): 108 with the zero byte
_LONGEST_TAIL = f"/1234567/{SOCKET}"


class Door:
    """A listening socket in a folder of its own. Whoever comes first is let in, and nobody after."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / SOCKET
        folder.mkdir()
        folder.chmod(0o755)  # its user in the container may be anybody
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._listener.setblocking(False)  # noqa: FBT003 - the library's own shape
            self._listener.bind(str(self._path))
            self._path.chmod(0o666)
            self._listener.listen(1)
        except BaseException:
            self.close()
            raise

    async def first(self) -> socket.socket:
        """Wait for the first to connect; then the door is shut."""
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self.shut()
        return connection

    def shut(self) -> None:
        """Let nobody in any more. May be called more than once."""
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Shut it and remove its folder. May be called more than once."""
        self.shut()
        with contextlib.suppress(OSError):
            self.folder.rmdir()


class SocketFolder:
    """The folder of one run; see the module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._doors = 0

    @classmethod
    def make(cls, environ: Mapping[str, str] = os.environ) -> SocketFolder:
        """A new one, in the first place that is private and not too deep. Raises MachineError where there is none."""
        owner = this_owner()
        tried: list[str] = []
        for base in bases(environ):
            try:
                _make_private(base)
                path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{owner}-", dir=base))
            except OSError as error:
                tried.append(f"{base}: {error.strerror or error}")
                continue
            if len(os.fsencode(path)) + len(_LONGEST_TAIL) <= _LONGEST_PATH_BYTES:
                return cls(path)
            path.rmdir()
            tried.append(f"{base}: the path is too long for a socket")
        raise MachineError(
            f"there is no place for the runner's sockets ({'; '.join(tried)})",
            remedy="set XDG_RUNTIME_DIR to a short folder of your own with mode 0700",
        )

    def let_others_pass(self) -> None:
        """Other users may go through here to what is theirs in it; there is nothing for them to list or change."""
        for folder in (self.path, self.path.parent):
            status = folder.stat()
            if status.st_uid == os.geteuid() and not status.st_mode & 0o001:
                folder.chmod(stat.S_IMODE(status.st_mode) | 0o011)

    def door(self) -> Door:
        """A new listening socket."""
        self._doors += 1
        return Door(self.path / str(self._doors))

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def bases(environ: Mapping[str, str]) -> list[Path]:
    """Where such a folder may be made, best first."""
    found = [Path("/run/connector")] if os.geteuid() == 0 else []
    if environ.get("XDG_RUNTIME_DIR", "").startswith("/"):
        found.append(Path(environ["XDG_RUNTIME_DIR"], "connector"))
    return [*found, *dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp")))]  # noqa: S108 - by mkdtemp


def _make_private(base: Path) -> None:
    """Make `base` when it is not there; raises OSError when others could put something else in our place."""
    with contextlib.suppress(FileExistsError):
        base.mkdir(0o700)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(20, "it is no folder")
    writable_by_others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if status.st_uid not in {0, os.geteuid()} or writable_by_others:
        raise PermissionError(1, "others may change what is in it")


def sweep(environ: Mapping[str, str] = os.environ) -> int:
    """Remove what dead runners left, as far as it is ours; how many folders those were."""
    me, removed = this_owner(), 0
    for base in bases(environ):
        with contextlib.suppress(OSError):
            for folder in base.iterdir():
                owner = owner_in(folder.name, _PREFIX)
                if owner is None or not is_dead(owner, me, started) or folder.lstat().st_uid != os.geteuid():
                    continue
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed
