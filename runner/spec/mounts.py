"""`mounts`: files and folders of this machine that an instance sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from runner.spec import scanner
from runner.spec.findings import Scope, show
from runner.spec.model import Home, Mount
from runner.spec.presence import is_there

_ENGINE_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock")
_OURS = "/.connector"


def mounts_of(
    scope: Scope, written: Sequence[str], home: Home, folder_of: Callable[[scanner.Path], Path]
) -> tuple[Mount, ...]:
    """`written` as mounts, with errors for those that cannot be.

    `folder_of` says where a relative source starts from.
    """
    mounts: list[Mount] = []
    for index, text in enumerate(written):
        path = ("mounts", index)
        mount = _parsed(scope, path, text, folder_of(("mounts",)))
        if mount is None:
            continue
        if any(mount.target == other.target for other in mounts):
            scope.error(path, f"{mount.target} is mounted twice", "leave one of them out")
        elif home is Home.PROCESS and mount.target != str(mount.source):
            scope.error(
                path,
                f"a bare process sees {mount.source} where it is, not at {mount.target}",
                f"leave :{mount.target} out, or run it behind a wall (connector run --home sandbox)",
            )
        else:
            mounts.append(mount)
    return tuple(mounts)


def _parsed(scope: Scope, path: scanner.Path, text: str, folder: Path) -> Mount | None:
    """One mount; None after an error."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) > 1 and parts[-1] in {"rw", "ro"} else "ro"
    if len(parts) > 2 or not all(parts):
        scope.error(path, f"{show(text)} is no mount", 'write "SOURCE", "SOURCE:TARGET" or "SOURCE:TARGET:rw"')
        return None
    source = Path(os.path.normpath(folder / parts[0]))
    target = parts[1] if len(parts) == 2 else str(source)
    clean = PurePosixPath(target)
    if not target.startswith("/") or ".." in clean.parts or str(clean) == "/":
        scope.error(path, f"{show(target)} is no absolute path below /", "a TARGET is where the program sees it")
    elif str(clean) == _OURS or str(clean).startswith(f"{_OURS}/"):
        scope.error(path, f"{_OURS} is the runner's own", "choose another TARGET")
    elif not is_there(source):
        scope.error(path, f"{source} is not there", "a relative path starts from the folder of its file")
    elif source.name in _ENGINE_SOCKETS or source.resolve().name in _ENGINE_SOCKETS:
        scope.error(path, "the engine's socket is never mounted: it gives away this machine", "leave it out")
    else:
        return Mount(source, str(clean), mode == "rw")
    return None
