"""Control groups: what is read from the kernel's texts, and real groups where this machine lets us make them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from runner.launch.cgroup import CgroupHome, Group, settings
from runner.launch.cgroup_places import Mounted, hierarchies, may_make_groups, own_folder, own_paths
from runner.spec.model import MIB, Resources
from tests.conftest import without
from tests.e2e.connector import until

ALL = Resources(memory_bytes=64 * MIB, cpus=0.5, pids=8)
HELD = frozenset({"memory", "cpus", "pids"})
SLEEPS = "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & exit' &); echo up; sleep 1000"
VERSION_1 = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,relatime master:3 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/with\\040space rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


# -- the kernel's texts


def test_hierarchies_are_found_with_their_controllers() -> None:
    assert hierarchies(VERSION_1) == [
        Mounted(1, frozenset({"cpu"}), "/", "/sys/fs/cgroup/cpu,cpuacct"),
        Mounted(1, frozenset({"memory"}), "/docker/abc", "/sys/fs/cgroup/memory"),
        Mounted(1, frozenset({"pids"}), "/", "/sys/fs/cgroup/with space"),
        Mounted(1, frozenset(), "/", "/sys/fs/cgroup/systemd"),
        Mounted(2, frozenset(), "/", "/sys/fs/cgroup/unified"),
    ]


def test_a_later_mount_hides_an_earlier_one() -> None:
    both = "35 31 0:32 /a /c ro - cgroup cgroup rw,memory\n36 31 0:32 /b /c rw - cgroup cgroup rw,memory\n"
    assert hierarchies(both) == [Mounted(1, frozenset({"memory"}), "/b", "/c")]


def test_own_paths_are_by_controller() -> None:
    text = "9:name=systemd:/s\n4:memory:/user/one:two\n2:cpu,cpuacct:/\n0::/user.slice/a.scope\n"
    assert own_paths(text) == {
        "name=systemd": "/s",
        "memory": "/user/one:two",
        "cpu": "/",
        "cpuacct": "/",
        "": "/user.slice/a.scope",
    }


@pytest.mark.parametrize(
    ("root", "path", "folder"),
    [
        ("/", "/", "/c"),
        ("/", "/user.slice/a.scope", "/c/user.slice/a.scope"),
        ("/docker/abc", "/docker/abc", "/c"),
        ("/docker/abc", "/docker/abc/inner", "/c/inner"),
        ("/docker/abc", "/docker/abcdef", None),
        ("/docker/abc", "/", None),
        ("/", "/../outside", None),
    ],
)
def test_the_own_folder_is_where_the_mount_shows_it(root: str, path: str, folder: str | None) -> None:
    assert own_folder(Mounted(2, frozenset(), root, "/c"), path) == (None if folder is None else Path(folder))


def test_settings_of_version_2() -> None:
    assert settings(2, HELD, ALL, 3) == [
        ("memory.max", str(64 * MIB), True),
        ("memory.swap.max", "0", False),
        ("memory.oom.group", "1", False),
        ("cpu.max", "50000 100000", True),
        ("pids.max", "11", True),
    ]


def test_settings_of_version_1() -> None:
    assert settings(1, HELD, ALL, 1) == [
        ("memory.limit_in_bytes", str(64 * MIB), True),
        ("memory.memsw.limit_in_bytes", str(64 * MIB), False),
        ("memory.swappiness", "0", False),
        ("cpu.cfs_period_us", "100000", True),
        ("cpu.cfs_quota_us", "50000", False),
        ("pids.max", "9", True),
    ]


def test_only_what_is_held_and_asked_for_is_set() -> None:
    assert settings(2, frozenset({"pids"}), ALL, 0) == [("pids.max", "8", True)]
    assert settings(2, HELD, Resources(files=7), 0) == []
    assert settings(2, HELD, Resources(cpus=0.001), 0) == [("cpu.max", "1000 100000", True)]  # the kernel's least


# -- real groups


@pytest.fixture
def home() -> Iterator[CgroupHome]:
    found = CgroupHome.find()
    if found.missing:
        without(f"control groups cannot be made for everything here: {found.missing}")
    yield found
    found.close()


@contextlib.contextmanager
def made(home: CgroupHome, resources: Resources) -> Iterator[Group]:
    group = home.make("run.p.1", resources, spare_pids=0)
    assert group is not None
    try:
        yield group
    finally:
        assert asyncio.run(group.remove())
        home.close()


@contextlib.contextmanager
def waiting(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A program that begins when its stdin ends, so that it can be put into a group before."""
    script = 'cat > /dev/null; exec "$@"'
    with subprocess.Popen(
        ["sh", "-c", script, "sh", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def go(started: subprocess.Popen[str]) -> None:
    assert started.stdin is not None
    started.stdin.close()


def folders(home: CgroupHome) -> list[Path]:
    return [folder for place in home.places for folder in place.folder.glob(f"connector-*-{os.getpid()}-*")]


@pytest.mark.alone  # it measures
def test_finding_out_is_quick() -> None:
    took_s = []
    for _ in range(20):
        before_s = time.perf_counter()
        CgroupHome.find()
        took_s.append(time.perf_counter() - before_s)
    assert min(took_s) < 0.002


def test_nothing_is_made_by_looking(home: CgroupHome) -> None:
    assert home.enforced == HELD
    assert not folders(home)


def test_nothing_is_made_for_what_groups_cannot_hold(home: CgroupHome) -> None:
    assert home.make("run.p.1", Resources(files=7, disk_bytes=MIB), spare_pids=0) is None
    assert not folders(home)


def test_a_group_is_made_and_taken_away(home: CgroupHome) -> None:
    with made(home, ALL) as group:
        assert group.held == HELD
        assert group.pids() == set()
        assert len(folders(home)) == len(home.places)
        with waiting("sleep", "1000") as started:
            group.add(started.pid)
            assert group.pids() == {started.pid}
    assert not folders(home)


@pytest.mark.skipif(not any(place.version == 1 for place in CgroupHome.find().places), reason="no version 1 here")
def test_a_process_begins_in_it_and_nobody_else_stays(home: CgroupHome) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def spawn() -> int:
        started.append(subprocess.Popen(["sleep", "1000"]))
        return started[0].pid

    with made(home, ALL) as group:
        try:
            pid = group.spawn(spawn)
            assert group.pids() == {pid}
            own = {line.rpartition(":")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
            assert sum("run.p.1" in each for each in own) >= 1
            for place in home.places:
                if place.version == 1:
                    (inside,) = place.folder.glob(f"connector-*-{os.getpid()}-*/run.p.1")
                    assert (inside / "tasks").read_text().split() == [str(pid)]
            group.add(pid)
        finally:
            started[0].kill()
            started[0].wait()


def test_a_group_holds_only_what_is_asked_for(home: CgroupHome) -> None:
    with made(home, Resources(pids=3)) as group:
        assert group.held == {"pids"}
        assert group.oom_kills() == 0


def test_two_groups_of_one_name_are_refused(home: CgroupHome) -> None:
    with made(home, ALL), pytest.raises(FileExistsError):
        home.make("run.p.1", ALL, spare_pids=0)


def test_memory_is_held_and_its_kills_are_counted(home: CgroupHome) -> None:
    with made(home, Resources(memory_bytes=32 * MIB)) as group:
        with waiting(sys.executable, "-S", "-c", "b = bytearray(200 << 20)") as started:
            group.add(started.pid)
            assert group.oom_kills() == 0
            go(started)
            assert started.wait(30) == -signal.SIGKILL
        assert group.oom_kills() == 1


def test_processes_are_held(home: CgroupHome) -> None:
    with made(home, Resources(pids=3)) as group, waiting("sh", "-c", SLEEPS) as started:
        group.add(started.pid)
        go(started)
        assert started.wait(30) != 0
        assert len(group.pids()) <= 3


def test_cpu_time_is_held(home: CgroupHome) -> None:
    """A fifth of a second of it at a tenth of a core takes most of two seconds."""
    spin = "import time\nwhile time.process_time() < 0.2: pass"
    with made(home, Resources(cpus=0.1)) as group, waiting(sys.executable, "-S", "-c", spin) as started:
        group.add(started.pid)
        before_s = time.monotonic()
        go(started)
        assert started.wait(30) == 0
        assert time.monotonic() - before_s > 1.0


def test_all_in_a_group_are_killed(home: CgroupHome) -> None:
    with made(home, ALL) as group, waiting("sh", "-c", SLEEPS) as started:
        group.add(started.pid)
        go(started)
        assert started.stdout is not None
        assert started.stdout.readline() == "up\n"
        assert len(group.pids()) > 3
        group.kill()
        assert started.stdout.read() == ""  # nobody has it any more
        assert started.wait(10) == -signal.SIGKILL


def test_one_that_is_always_another_process_is_killed(home: CgroupHome) -> None:
    """It forks and leaves, again and again: whoever only kills what was seen comes too late each time."""
    chain = (
        "import os\nprint('up', flush=True)\nfor _ in range(3000):\n    if os.fork(): os._exit(0)\n"
        "print('survived', flush=True)"
    )
    with made(home, ALL) as group, waiting(sys.executable, "-S", "-c", chain) as started:
        group.add(started.pid)
        go(started)
        assert started.stdout is not None
        assert started.stdout.readline() == "up\n"
        group.kill()
        assert started.stdout.read() == ""


def test_removing_kills_what_is_left(home: CgroupHome) -> None:
    group = home.make("run.p.1", ALL, spare_pids=0)
    assert group is not None
    with waiting("sh", "-c", SLEEPS) as started:
        group.add(started.pid)
        go(started)
        assert started.stdout is not None
        assert started.stdout.readline() == "up\n"
        assert asyncio.run(group.remove())
        assert started.stdout.read() == ""
    home.close()
    assert not folders(home)


def test_a_process_that_has_ended_cannot_be_added(home: CgroupHome) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with made(home, ALL) as group, pytest.raises(ProcessLookupError):
        group.add(ended.pid)


def test_what_a_dead_runner_has_left_is_swept_and_nothing_else(home: CgroupHome) -> None:
    script = (
        "import sys\nfrom runner.launch.cgroup import CgroupHome\nfrom runner.spec.model import Resources\n"
        "home = CgroupHome.find()\nhome.make('r.p.1', Resources(pids=9), spare_pids=0)\nprint('made', flush=True)\n"
        "sys.stdin.read()"
    )
    with made(home, ALL):
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as runner:
            assert runner.stdout is not None
            assert runner.stdout.readline() == "made\n"
            theirs = [folder for place in home.places for folder in place.folder.glob(f"connector-*-{runner.pid}-*")]
            assert theirs
            home.sweep()
            assert all(folder.exists() for folder in theirs)  # it lives
            runner.kill()
            runner.wait()
            home.sweep()  # the runner of another test may be at it as well
            until(lambda: not any(folder.exists() for folder in theirs), "what it left to go")
        assert len(folders(home)) == len(home.places)  # ours


# -- version 2, with whatever controller this kernel has in it


def gone(group: Path) -> bool:
    """Whether it could be taken away: a process that has ended may still count in it for a moment."""
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.fixture
def delegated() -> Iterator[tuple[Path, str]]:
    """A group of version 2 that has a controller to give, and that controller's name."""
    mounted = next((each for each in hierarchies(Path("/proc/self/mountinfo").read_text()) if each.version == 2), None)
    if mounted is None or not may_make_groups(Path(mounted.point)):
        without("no hierarchy of version 2 can be written here")
    top = Path(mounted.point)
    if (top / "cgroup.type").exists() or not (top / "cgroup.controllers").read_text().split():
        without("the root of version 2, with a controller, is not ours here")
    controller = min((top / "cgroup.controllers").read_text().split())
    before = controller in (top / "cgroup.subtree_control").read_text().split()
    (top / "cgroup.subtree_control").write_text(f"+{controller}")
    folder = top / f"tests-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder, controller
    finally:
        for each in [*sorted((each for each in folder.rglob("*/") if each.is_dir()), reverse=True), folder]:
            until(partial(gone, each), f"{each} to be empty")
        if not before:
            (top / "cgroup.subtree_control").write_text(f"-{controller}")


INSIDE = """
import json, os, signal, sys
from pathlib import Path
from runner.launch import cgroup
from runner.launch.cgroup import CgroupHome
from runner.launch.cgroup_places import CONTROLLERS, hierarchies, own_paths, search
from runner.plan import limits
from runner.spec.model import Resources

sys.stdin.readline()
CONTROLLERS["pids"] = sys.argv[1]  # the resource is a name here, the controller whatever there is
if len(sys.argv) > 2:
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
mounted = next(each for each in hierarchies(Path("/proc/self/mountinfo").read_text()) if each.version == 2)
place, why = search(mounted, own_paths(Path("/proc/self/cgroup").read_text())[""], frozenset({"pids"}))
told = {"place": None if place is None else str(place.folder), "leaf": place is not None and place.leaf, "why": why}
if told["leaf"]:
    cgroup.settings = lambda *_: []
    group = CgroupHome([place], {}).make("r.p.1", Resources(pids=5), spare_pids=0)
    child = os.fork()
    if child == 0:
        signal.pause()
    group.add(child)
    told["self"] = own_paths(Path("/proc/self/cgroup").read_text())[""]
    told["child"] = own_paths(Path(f"/proc/{child}/cgroup").read_text())[""]
    told["controllers"] = [(folder / "cgroup.controllers").read_text().split() for folder in group._folders]
    group.kill()
    told["ended"] = os.waitpid(child, 0)[1]
    import asyncio
    told["removed"] = asyncio.run(group.remove())
print(json.dumps(told))
"""


def inside(folder: Path, controller: str, *, uid: int | None = None, company: bool = False) -> dict[str, object]:
    """What a process finds that is in the group `folder`, alone or not."""
    words = [sys.executable, "-c", INSIDE, controller, *([str(uid)] if uid is not None else [])]
    with contextlib.ExitStack() as stack:
        if company:
            other = stack.enter_context(waiting("true"))
            (folder / "cgroup.procs").write_text(str(other.pid))
        started = stack.enter_context(
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        (folder / "cgroup.procs").write_text(str(started.pid))
        said, problem = started.communicate("\n", timeout=30)
        assert not problem, problem
    found: dict[str, object] = json.loads(said)
    return found


def test_alone_in_its_group_a_runner_goes_into_a_leaf(delegated: tuple[Path, str]) -> None:
    folder, controller = delegated
    found = inside(folder, controller)
    assert found["place"] == str(folder)
    assert str(found["self"]).startswith(f"/{folder.name}/connector-")
    assert str(found["self"]).endswith("/runner")
    assert str(found["child"]).endswith("/r.p.1")
    assert found["controllers"] == [[controller]]
    assert found["ended"] == signal.SIGKILL
    assert found["removed"] is True


def test_in_company_a_group_further_up_is_taken_and_nobody_is_moved(delegated: tuple[Path, str]) -> None:
    folder, controller = delegated
    found = inside(folder, controller, company=True)
    assert (found["place"], found["leaf"]) == (str(folder.parent), False)


def test_an_ordinary_user_has_no_place(delegated: tuple[Path, str]) -> None:
    folder, controller = delegated
    found = inside(folder, controller, uid=65534)
    assert found["place"] is None
    assert found["why"] == f"{folder} cannot be written by this user"


def test_a_group_that_was_delegated_to_a_user_is_theirs(delegated: tuple[Path, str]) -> None:
    folder, controller = delegated
    for path in (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control", folder / "cgroup.threads"):
        os.chown(path, 65534, 65534)
    found = inside(folder, controller, uid=65534)
    assert (found["place"], found["leaf"]) == (str(folder), True)
    assert found["ended"] == signal.SIGKILL


def test_a_group_with_a_limit_of_its_own_is_not_left(delegated: tuple[Path, str]) -> None:
    """Climbing past it would lift the limit for what is started."""
    folder, controller = delegated
    if not (folder / "memory.max").exists():
        pytest.skip("the memory controller is not in version 2 here")
    (folder / "memory.max").write_text(str(1 << 30))
    assert inside(folder, controller, company=True)["place"] is None
