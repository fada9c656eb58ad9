"""Which files of this machine a user can reach, and which of its own are shown to what is not trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runner.errors import MachineError
from runner.launch import bubblewrap
from runner.spec.model import Processor
from runner.spec.visible import SYSTEM_FOLDERS


def look_around() -> bubblewrap.System:
    """What of this machine's files there is to show to what is not trusted."""
    links = {folder: str(Path(folder).readlink()) for folder in SYSTEM_FOLDERS if Path(folder).is_symlink()}
    folders = tuple(folder for folder in SYSTEM_FOLDERS if folder not in links and Path(folder).is_dir())
    etc = Path("/etc")
    if (etc / "localtime").is_symlink():
        links["/etc/localtime"] = str((etc / "localtime").readlink())
    named = [etc / name for name in bubblewrap.ETC]
    found = [path for path in [*named, *sorted(etc.glob("java*"))] if unreachable(path, -1, -1) is None]
    return bubblewrap.System(links, folders, tuple(map(str, found)))


def check_reach(spec: Processor, uid: int, gid: int) -> None:
    """Raises MachineError for what is to be mounted and cannot be reached by the processor's own user."""
    wanted = [(mount.source, mount.writable) for mount in spec.mounts]
    wanted += [] if spec.template is None else [(spec.template, False)]
    for source, writable in wanted:
        why = unreachable(source, uid, gid, writable=writable)
        if why is not None:
            right = "chmod o+rwX" if writable else "chmod o+rX"
            raise MachineError(
                f"{source} cannot be mounted for an untrusted processor, whose user is {uid}: {why}",
                where=spec.name,
                remedy=f"open it ({right}) or put what is needed into a folder that is open",
            )


def unreachable(path: Path, uid: int, gid: int, *, writable: bool = False) -> str | None:
    """Why a user cannot use the file or folder at `path`, with the mode of what is in the way; None: nothing is.

    -1 stands for a user that owns nothing. Access control lists are not looked at: what has one is let pass.
    """
    try:
        real = path.resolve(strict=True)
        for folder in reversed(real.parents):
            if not _may(folder, uid, gid, 1):
                return f"the folder {folder} ({stat.filemode(folder.stat().st_mode)}) is closed to it"
        needed = (5 if real.is_dir() else 4) | (2 if writable else 0)
        if _may(real, uid, gid, needed):
            return None
        what = "cannot write to" if writable and _may(real, uid, gid, needed & ~2) else "cannot read"
        return f"it {what} {real} ({stat.filemode(real.stat().st_mode)})"
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"


def _may(path: Path, uid: int, gid: int, needed: int) -> bool:
    about = path.stat()
    shift = 6 if about.st_uid == uid else 3 if about.st_gid == gid else 0
    if about.st_mode >> shift & needed == needed:
        return True
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return False
