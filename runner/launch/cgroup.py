"""Control groups: where this process may make them, and one for each instance that has limits (cgroups(7)).

Both versions of the interface, and both at once: each controller is in one hierarchy, and each hierarchy is looked at
for itself. Groups are made below the group that the runner is in, so that its own limits hold for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runner.plan.limits import asked
from runner.spec.model import Resources

CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
"""The resources that control groups can hold, each with its controller."""

_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000  # the kernel takes no less
_LEAF = "runner"
_OWNED = re.compile(r"connector-(\d+)-(\d+)-(\d+)")
_ROUNDS = 20
_PAUSE_S = 0.002
_MOST_TRIES = 250


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


def settings(version: int, held: frozenset[str], resources: Resources, spare_pids: int) -> list[tuple[str, str, bool]]:
    """(File, what is written into it, whether the kernel must take it), in order, for what of `resources` is `held`."""
    lines: list[tuple[str, str, bool]] = []
    if "memory" in held and resources.memory_bytes is not None:
        size = str(resources.memory_bytes)
        if version == 2:
            lines += [("memory.max", size, True), ("memory.swap.max", "0", False), ("memory.oom.group", "1", False)]
        else:
            lines += [("memory.limit_in_bytes", size, True), ("memory.memsw.limit_in_bytes", size, False)]
            lines += [("memory.swappiness", "0", False)]  # where the kernel does not count swap
    if "cpus" in held and resources.cpus is not None:
        quota = str(max(_LEAST_QUOTA_US, round(resources.cpus * _PERIOD_US)))
        if version == 2:
            lines.append(("cpu.max", f"{quota} {_PERIOD_US}", True))
        else:  # refused where a group above has less, which then holds anyway
            lines += [("cpu.cfs_period_us", str(_PERIOD_US), True), ("cpu.cfs_quota_us", quota, False)]
    if "pids" in held and resources.pids is not None:
        lines.append(("pids.max", str(resources.pids + spare_pids), True))
    return lines


class Group:
    """The control group of one instance: a folder in each hierarchy that holds a limit of it.

    `held`: the names of the resources that it holds.
    """

    def __init__(self, folders: Mapping[Path, Place]) -> None:
        self._folders = dict(folders)
        self.held = frozenset[str]().union(*(place.resources for place in folders.values()))
        self._events = [
            folder / ("memory.events" if place.version == 2 else "memory.oom_control")
            for folder, place in folders.items()
            if "memory" in place.resources
        ]

    def spawn(self, spawn: Callable[[], int]) -> int:
        """Have `spawn` start a process, and return its id; where it can be done it begins its life in the group.

        To move one in costs a grace period of the kernel in each hierarchy, 10 ms and more, since it may be forking. A
        thread that moves itself (version 1) waits for nobody, and what it starts begins where it is. `add` does the
        rest.
        """
        places = [(folder, place.folder) for folder, place in self._folders.items() if place.version == 1]
        if not places:
            return spawn()

        def inside() -> int:
            try:
                for group, _ in places:
                    with contextlib.suppress(OSError):
                        (group / "tasks").write_text("0")
                return spawn()
            finally:  # before it ends, or it might still count among the processes when the first program is started
                for _, above in places:
                    with contextlib.suppress(OSError):
                        (above / "tasks").write_text("0")

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(inside).result()

    def add(self, pid: int) -> None:
        """Put a process into it, if it is not there, and with it all that it starts from now on. Raises OSError."""
        for folder in self._folders:
            if pid not in _pids_in(folder):
                (folder / "cgroup.procs").write_text(str(pid))

    def oom_kills(self) -> int:
        """How many of its processes were killed for want of memory, from its beginning on."""
        for file in self._events:
            with contextlib.suppress(OSError):
                counts = dict(line.split(" ", 1) for line in file.read_text().splitlines())
                return int(counts.get("oom_kill", "0"))
        return 0

    def pids(self) -> set[int]:
        """The processes in it."""
        return {pid for folder in self._folders for pid in _pids_in(folder)}

    def kill(self) -> None:
        """SIGKILL to every process in it; none of them is waited for.

        One write where the kernel can (`cgroup.kill`, version 2). Else all are stopped first: so they start no more.
        """
        left = []
        for folder in self._folders:
            try:
                (folder / "cgroup.kill").write_text("1")
            except OSError:
                left.append(folder)
        stopped: set[int] = set()
        for _ in range(_ROUNDS):
            new = {pid for folder in left for pid in _pids_in(folder)} - stopped
            if not new:
                break
            stopped |= new
            _send(new, signal.SIGSTOP)
        _send(stopped, signal.SIGKILL)

    async def remove(self) -> bool:
        """Kill what is in it and take it away; False when something in it does not die (it is left for `sweep`)."""
        for _ in range(_MOST_TRIES):
            self._folders = {folder: place for folder, place in self._folders.items() if not _rmdir(folder)}
            if not self._folders:
                return True
            self.kill()
            await asyncio.sleep(_PAUSE_S)
        return False


class CgroupHome:
    """Where this process may make groups.

    `enforced`: the names of the resources that its groups hold. `missing`: the other ones that control groups could
    hold, each with the reason why not here.
    """

    def __init__(self, places: Iterable[Place], missing: Mapping[str, str]) -> None:
        self.places = tuple(places)
        self.missing = dict(missing)
        self.enforced = frozenset[str]().union(*(place.resources for place in self.places))
        self._owned = f"connector-{_pid_namespace()}-{os.getpid()}-{_started(os.getpid())}"
        self._ready: set[Place] = set()

    @classmethod
    def find(cls) -> CgroupHome:
        """Look where groups can be made. Reads a few files, changes nothing, raises nothing."""
        places: list[Place] = []
        missing: dict[str, str] = {}
        try:
            mounts = hierarchies(Path("/proc/self/mountinfo").read_text())
            paths = own_paths(Path("/proc/self/cgroup").read_text())
        except OSError as error:
            return cls((), dict.fromkeys(CONTROLLERS, f"/proc cannot be read: {error.strerror}"))
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
        return cls(places, missing)

    def make(self, name: str, resources: Resources, *, spare_pids: int) -> Group | None:
        """A group of that name with those limits, empty; None when it holds nothing of what is asked for.

        `name` is unique among this process's groups, letters, digits and `._-`. `spare_pids` is how many processes more
        than `resources.pids` it may have: the runner's own. Raises OSError when it is refused after all.
        """
        folders: dict[Path, Place] = {}
        try:
            for place in self.places:
                held = place.resources & asked(resources)
                if held:
                    folder = self._folder(place) / name
                    folder.mkdir()
                    folders[folder] = Place(place.version, place.folder, held)
                    _write_settings(folder, settings(place.version, held, resources, spare_pids))
        except OSError:
            for folder in folders:
                _rmdir(folder)
            raise
        return Group(folders) if folders else None

    def sweep(self) -> int:
        """Take away the empty groups that dead runners of this PID namespace have left; how many runners those were."""
        swept = 0
        for place in self.places:
            for folder in _folders_in(place.folder):
                match = _OWNED.fullmatch(folder.name)
                if match is None or int(match[1]) != _pid_namespace() or _started(int(match[2])) == int(match[3]):
                    continue
                for child in _folders_in(folder):
                    _rmdir(child)
                swept += _rmdir(folder)
        return swept

    def close(self) -> None:
        """Take away the folder that this process's groups were in, unless some are left."""
        for place in self._ready:
            _rmdir(place.folder / self._owned)
        self._ready.clear()

    def _folder(self, place: Place) -> Path:
        """The folder for this process's groups, made when the first of them needs it."""
        owned = place.folder / self._owned
        if place in self._ready and owned.is_dir():
            return owned
        owned.mkdir(exist_ok=True)
        if place.version == 2:
            if place.leaf:
                (owned / _LEAF).mkdir(exist_ok=True)
                (owned / _LEAF / "cgroup.procs").write_text(str(os.getpid()))
            if place.enable:
                _enable(place.folder, place.enable)
            _enable(owned, frozenset(CONTROLLERS[name] for name in place.resources))
        self._ready.add(place)
        return owned


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
    inside = _pids_in(folder)
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
    return all(_words(folder / name, "max") <= {"max", str(_PERIOD_US)} for name in ("memory.max", "cpu.max"))


def _words(file: Path, missing: str = "") -> set[str]:
    try:
        return set(file.read_text().split())
    except OSError:
        return set(missing.split())


def _write_settings(folder: Path, lines: Iterable[tuple[str, str, bool]]) -> None:
    for name, value, must in lines:
        try:
            (folder / name).write_text(value)
        except OSError:
            if must:
                raise


def _enable(folder: Path, controllers: frozenset[str]) -> None:
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(controllers)))


def _pids_in(folder: Path) -> set[int]:
    """The processes in a group; 0 stands for those of another PID namespace."""
    try:
        return {int(word) for word in (folder / "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def _send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        if pid > 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _folders_in(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            yield from [Path(entry.path) for entry in entries if entry.is_dir()]
    except OSError:
        return


def _rmdir(folder: Path) -> bool:
    """Whether it is gone."""
    try:
        folder.rmdir()
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _started(pid: int) -> int:
    """When it was started, in clock ticks after the boot (proc(5)); 0 when it is not there."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0
