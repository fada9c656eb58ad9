"""Where this process may make control groups: what the kernel's texts and the folders say (cgroups(7)); reads only.

Both versions of the interface, and both at once: each controller is in one hierarchy, and each hierarchy is looked at
for itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
"""The resources that control groups can hold, each with its controller."""
PERIOD_US = 100_000
"""Over which a share of the processors is counted: the kernel's own default."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mounted hierarchy: its version, its controllers (version 1 only), and which of its folders lies where."""

    version: int
    controllers: frozenset[str]
    root: str
    point: str


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in which groups can be made that hold `resources`.

    Version 2 only: `enable` are the controllers that must be switched on for its groups before, and with `leaf` this
    process has to go into a group of its own before that ("no internal processes").
    """

    version: int
    folder: Path
    resources: frozenset[str]
    enable: frozenset[str] = frozenset()
    leaf: bool = False


def hierarchies(mountinfo: str) -> list[Mounted]:
    """The hierarchies in the text of /proc/self/mountinfo (proc(5)); a later mount hides an earlier one."""
    found: dict[str, Mounted] = {}
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind not in {"cgroup", "cgroup2"}:
            continue
        root, point = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), word) for word in fields.split()[3:5])
        controllers = frozenset(options.split(",")) & frozenset(CONTROLLERS.values())
        found[point] = Mounted(2 if kind == "cgroup2" else 1, controllers, root, point)
    return list(found.values())


def own_paths(cgroup: str) -> dict[str, str]:
    """Controller to path in its hierarchy, "" for version 2, of the text of /proc/self/cgroup (cgroups(7))."""
    paths: dict[str, str] = {}
    for line in cgroup.splitlines():
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    return paths


def own_folder(mounted: Mounted, path: str) -> Path | None:
    """Where this process's group is seen; None where the mount does not show it (a container, another namespace)."""
    pure = PurePosixPath(path)
    if ".." in pure.parts or not pure.is_relative_to(mounted.root):
        return None
    return Path(mounted.point) / pure.relative_to(mounted.root)


def find_places() -> tuple[tuple[Place, ...], dict[str, str]]:
    """Where groups can be made; and the resources that none could hold, each with the reason why not here.

    Reads a few files, changes nothing, raises nothing.
    """
    places: list[Place] = []
    missing: dict[str, str] = {}
    try:
        mounts = hierarchies(Path("/proc/self/mountinfo").read_text())
        paths = own_paths(Path("/proc/self/cgroup").read_text())
    except OSError as error:
        return (), dict.fromkeys(CONTROLLERS, f"/proc cannot be read: {error.strerror}")
    wanted = set(CONTROLLERS)
    for mounted in mounts:
        held = frozenset(name for name in wanted if CONTROLLERS[name] in mounted.controllers)
        if mounted.version == 1 and held:
            wanted -= held
            path = next((paths[name] for name in mounted.controllers if name in paths), "/")
            folder = own_folder(mounted, path) or Path(mounted.point)
            if may_make_groups(folder):
                places.append(Place(1, folder, held))
            else:
                missing.update(dict.fromkeys(held, _why_not(folder)))
    for mounted in mounts if wanted else ():
        if mounted.version == 2:
            place, why = search(mounted, paths.get("", "/"), frozenset(wanted))
            places += [place] if place is not None else []
            missing.update((name, why) for name in wanted - (place.resources if place else frozenset()))
            break
    else:
        missing.update(dict.fromkeys(wanted, "the kernel shows no control group hierarchy for it"))
    return tuple(places), missing


def search(mounted: Mounted, path: str, wanted: frozenset[str]) -> tuple[Place | None, str]:
    """The best place of a version 2 hierarchy for `wanted`, and why what it lacks is not there.

    The group of this process itself, when it is alone in it, else the next one above where groups can be made; never
    past a group with a limit of its own, which would not hold for what is started then.
    """
    folder = own_folder(mounted, path)
    if folder is None:
        return None, f"its control group is not shown below {mounted.point}"
    best: Place | None = None
    why = ""
    while True:
        place = _place_in(folder, wanted)
        if place is not None and (best is None or len(place.resources) > len(best.resources)):
            best = place
        if best is not None and best.resources == wanted:
            return best, ""
        why = why or _why_not(folder)
        if folder == Path(mounted.point) or not _unlimited(folder):
            break
        folder = folder.parent
    return best, why if best is None else f"{best.folder} has no such controller to give"


def _place_in(folder: Path, wanted: frozenset[str]) -> Place | None:
    if not may_make_groups(folder) or _words(folder / "cgroup.type", "domain") != {"domain"}:
        return None
    there = _words(folder / "cgroup.controllers")
    enabled = _words(folder / "cgroup.subtree_control")
    held = frozenset(name for name in wanted if CONTROLLERS[name] in there)
    enable = frozenset(CONTROLLERS[name] for name in held) - enabled
    if not held:
        return None
    inside = pids_in(folder)
    if not enable or not inside or not (folder / "cgroup.type").exists():  # the real root may have processes
        return Place(2, folder, held, enable)
    if inside == {os.getpid()}:
        return Place(2, folder, held, enable, leaf=True)
    given = frozenset(name for name in held if CONTROLLERS[name] in enabled)
    return Place(2, folder, given) if given else None


def may_make_groups(folder: Path) -> bool:
    """Whether this process may make groups in it and put processes into those (the file checks of cgroups(7))."""
    files = [folder / "cgroup.procs"]
    files += [folder / "cgroup.subtree_control"] if (folder / "cgroup.subtree_control").exists() else []
    return os.access(folder, os.W_OK | os.X_OK) and all(os.access(file, os.W_OK) for file in files)


def _why_not(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is not there"
    if may_make_groups(folder):
        return f"other processes are in the runner's own control group {folder}"
    try:
        read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        read_only = False
    return f"{folder} is mounted read-only" if read_only else f"{folder} cannot be written by this user"


def _unlimited(folder: Path) -> bool:
    return all(_words(folder / name, "max") <= {"max", str(PERIOD_US)} for name in ("memory.max", "cpu.max"))


def _words(file: Path, missing: str = "") -> set[str]:
    try:
        return set(file.read_text().split())
    except OSError:
        return set(missing.split())


def pids_in(folder: Path) -> set[int]:
    """The processes in a group; 0 stands for those of another PID namespace."""
    try:
        return {int(word) for word in (folder / "cgroup.procs").read_text().split()}
    except OSError:
        return set()
