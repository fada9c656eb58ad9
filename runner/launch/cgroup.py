"""Control groups: one for each instance that has limits (cgroups(7)), in the places that `cgroup_places` finds.

Groups are made below the group that the runner is in, so that its own limits hold for all of them.
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
from pathlib import Path

from runner.launch.cgroup_places import CONTROLLERS, PERIOD_US, Place, find_places, pids_in
from runner.launch.owner import started, this_owner
from runner.plan.limits import asked
from runner.spec.model import Resources

_LEAST_QUOTA_US = 1_000  # the kernel takes no less
_LEAF = "runner"
_OWNED = re.compile(r"connector-(\d+)-(\d+)-(\d+)")
_ROUNDS = 20
_PAUSE_S = 0.002
_MOST_TRIES = 250


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
        quota = str(max(_LEAST_QUOTA_US, round(resources.cpus * PERIOD_US)))
        if version == 2:
            lines.append(("cpu.max", f"{quota} {PERIOD_US}", True))
        else:  # refused where a group above has less, which then holds anyway
            lines += [("cpu.cfs_period_us", str(PERIOD_US), True), ("cpu.cfs_quota_us", quota, False)]
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
            if pid not in pids_in(folder):
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
        return {pid for folder in self._folders for pid in pids_in(folder)}

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
            new = {pid for folder in left for pid in pids_in(folder)} - stopped
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
        owner = this_owner()
        self._owned = f"connector-{owner.namespace}-{owner.pid}-{owner.started}"
        self._ready: set[Place] = set()

    @classmethod
    def find(cls) -> CgroupHome:
        """Look where groups can be made. Changes nothing, raises nothing."""
        return cls(*find_places())

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
        swept, here = 0, this_owner().namespace
        for place in self.places:
            for folder in _folders_in(place.folder):
                match = _OWNED.fullmatch(folder.name)
                if match is None or int(match[1]) != here or started(int(match[2])) == int(match[3]):
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


def _write_settings(folder: Path, lines: Iterable[tuple[str, str, bool]]) -> None:
    for name, value, must in lines:
        try:
            (folder / name).write_text(value)
        except OSError:
            if must:
                raise


def _enable(folder: Path, controllers: frozenset[str]) -> None:
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(controllers)))


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
