"""Everything that can be tried in one run: each attempt is a test, in each home, and once with no wall at all.

One run per home makes all attempts (programs/attempts.py) beside a trusted neighbour. With the home "process" nothing
is walled off: what gets through there proves that the attempt itself works.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import signal
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner.launch.cgroup import CgroupHome
from runner.launch.shim.locate import shim_path
from tests.conftest import has_image, without
from tests.e2e.connector import Result, Running, check_ledger
from tests.hostile import outside
from tests.hostile.calls import SOURCE, build_attempt
from tests.hostile.harness import HOMES, MIB, Arena, Spec, answers, arena, failure, need, private_folders, walled
from tests.hostile.programs.attempts import ATTEMPTS

ENGINE_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
SYSTEM_FOLDERS = (
    *("/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/bin", "/lib", "/var", "/var/tmp", "/root", "/home", "/run"),
    *("/opt", "/srv", "/mnt", "/dev", "/sys", "/proc", "/.connector", "/.connector/run", "/hostile"),
)
SYSTEM_FILES = ("/usr/bin/env", "/usr/bin/sh", "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/hostile/attempts.py")

ALLOWED = {"write-shared-mount"}
"""What gets through in every home, since the file says so."""

TOLD_BY_OTHERS = {"signal-everybody"}
"""What the hostile processor cannot tell itself; `test_the_victim_was_left_alone` sees it."""

NEVER_THROUGH = {
    "inherited-descriptors": "no program gets one: test_an_inherited_descriptor_would_be_seen",
    "core-dumps": "the machine may forbid them for all",
    "larger-limits": "root itself may lack CAP_SYS_RESOURCE",
    "call-socket_ping": "as net.ipv4.ping_group_range says, for root as well",
    "call-tioclinux": "of a console only",
}
LISTED, _, OF_X86 = SOURCE.read_text().partition("attempts[] = {")[2].partition("#if defined __x86_64__")
CALLS = tuple(re.findall(r"TRY\((?!name)(\w+)\)", LISTED + (OF_X86 if platform.machine() == "x86_64" else "")))
"""The attempts of syscalls.c on this machine."""

UNSAFE = {
    "signal-everybody": "it would reach processes that are not the test's own",
    **dict.fromkeys(
        (f"call-{name}" for name in CALLS if name.endswith("_init")), "the first process is not the test's own there"
    ),
    **dict.fromkeys(
        (f"call-{name}" for name in ("kexec_load", "init_module", "finit_module", "reboot", "swapon", "quotactl")),
        "not as root itself; tests/launch/test_seccomp.py proves them",
    ),
}
"""What is not even tried without a wall."""

NOT_THERE = {
    "ENOSYS",
    "EAFNOSUPPORT",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
    "EOPNOTSUPP",
    "ENODEV",
    "ENOENT",
    "ended by",
}
"""What a kernel says that has no such thing: then there is nothing to prove."""

NAMES = {*ATTEMPTS, *(f"call-{name}" for name in CALLS)}


@dataclass
class Told:
    """What one run has told, and what was seen from outside."""

    home: str
    answers: dict[str, dict[str, Any]]
    result: Result
    victim_signals: dict[str, int]
    victim_unharmed: bool
    came: dict[str, int]
    shim_before: str
    shim_after: str
    hostile_uids: set[int]
    there: list[str]
    left: list[str]
    neighbour: str | None
    host: str | None


@dataclass
class Targets:
    """All that attempts are aimed at."""

    victim: outside.Victim
    listeners: outside.Listeners
    segment: int
    shm_file: str
    container: outside.ContainerListener | None

    def skipped(self) -> set[str]:
        """Attempts for which this machine has no target."""
        return set() if self.container is not None else {"other-container"}


@contextlib.contextmanager
def targets(place: Arena, container: outside.ContainerListener | None) -> Iterator[Targets]:
    with contextlib.ExitStack() as stack:
        victim = outside.Victim(place.canary.parent / "victim-files", place.token)
        stack.callback(victim.close)
        listeners = outside.Listeners(place.sockets)
        stack.callback(listeners.close)
        segment, file = stack.enter_context(outside.shared_memory(place.token))
        yield Targets(victim, listeners, segment, file, container)


def facts(place: Arena, running: Running, aims: Targets) -> dict[str, Any]:
    """What the hostile processor is told: where everything is that it must not reach."""
    hostile, bystanders = place.pids("attempts.py"), place.pids("bystander-")
    shims = [pid for pid in [process.pid for process in running.family()] if is_shim(pid)]
    neighbours = [process.pid for process in running.family() if process.pid not in {*hostile, *bystanders, *shims}]
    held = outside.unix_sockets_of([running.pid, *shims, *(outside.parent(pid) for pid in bystanders)])
    held += [str(door / "socket") for folder in private_folders(running.pid) for door in folder.iterdir()]
    process = place.home == "process"
    system, fill = place.folder / "system", place.folder / "fill"
    return {
        "token": place.token,
        "runner": running.pid,
        "runner_uid": os.getuid(),
        "victim": aims.victim.pid,
        "victim_mark": aims.victim.mark,
        "victim_address": aims.victim.address,
        "neighbours": neighbours,
        "bystanders": bystanders,
        "shims": shims,
        "own_shim": outside.parent(hostile[0]) if process else 0,
        "shim_files": [str(system / "shim")] if process else ["/.connector/shim", str(shim_path())],
        "shadow": [hashlib.sha256(Path("/etc/shadow").read_bytes()).hexdigest()] if os.geteuid() == 0 else [],
        "host_file": str(place.canary / "secret"),
        "handle": outside.file_handle(place.canary / "secret").hex(),
        "programs": place.seen("programs"),
        "shared": place.seen("shared"),
        "readonly": place.seen("readonly"),
        "tmp": str(fill) if process else "/tmp",
        "shm": str(fill) if process else "/dev/shm",
        "shm_file": aims.shm_file,
        "shm_segment": aims.segment,
        "system_folders": [str(system)] if process else list(SYSTEM_FOLDERS),
        "system_files": [str(system / "program")] if process else list(SYSTEM_FILES),
        "setuid": f"{place.seen('programs')}/setuid",
        "engine": list(ENGINE_SOCKETS),
        "sockets": [*held, aims.listeners.path],
        "abstract": aims.listeners.abstract,
        "loopback": aims.listeners.loopback,
        "loopback_v6": aims.listeners.loopback_v6,
        "datagram": aims.listeners.datagram,
        "container": aims.container.address if aims.container is not None else None,
        "host_name": os.uname().nodename,
        "calls": f"{place.seen('programs')}/attempt",
        "call_names": list(CALLS),
    }


def is_shim(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "connector-shim" in str(Path(f"/proc/{pid}/exe").readlink())
    return False


def build(place: Arena) -> None:
    """The program of system calls, static since images may have an older libc; and what may be written."""
    attempt = build_attempt(place.programs)
    shutil.copy(attempt, place.programs / "setuid")
    (place.programs / "setuid").chmod(0o4755)
    system = place.folder / "system"
    system.mkdir()
    shutil.copy(shim_path(), system / "shim")
    (system / "program").write_text("a program")
    (place.folder / "fill").mkdir()
    (place.folder / "victim-files").mkdir()


def digest_of_shim() -> str:
    return hashlib.sha256(shim_path().read_bytes()).hexdigest()


LIMITS = {"disk": "16MiB", "memory": "256MiB", "cpus": 1}


def run(
    home: str,
    *,
    only: Collection[str] = NAMES,
    loosened: Callable[[Arena], Spec] | None = None,
    container: outside.ContainerListener | None = None,
) -> Told:
    """All attempts, or some, in one run; `loosened` gives keys that are put over those of the hostile processor.

    Without `container` there is none to connect to.
    """
    came = container.came if container is not None else 0
    with arena(home) as place:
        build(place)
        with targets(place, container) as aims:
            skipped = NAMES - set(only) | aims.skipped() | (set(UNSAFE) if home == "process" else set())
            hostile = place.placed(place.python("attempts", ",".join(sorted(skipped))))
            if home != "process":
                hostile["resources"] = LIMITS
            if loosened is not None:
                hostile |= loosened(place)
            before = digest_of_shim()
            asleep = ["sh", "-c", "cat > /dev/null; exit", f"bystander-{place.mark}"]
            bystander = place.placed(asleep, reads="facts", env={"HELD": place.token})
            with place.start({"hostile": hostile}, more={"bystander": bystander}) as running:
                place.until_up(running)
                place.until(running, lambda: place.pids("attempts.py") and place.pids("bystander-"), "both programs")
                uids = {Path(f"/proc/{pid}").stat().st_uid for pid in place.pids("attempts.py")}
                place.go(**facts(place, running, aims))
                place.until(running, lambda: "end" in answers(place), "all attempts", 60)
                place.until_neighbour_went_on(running)
                there = place.left(running.pid)
                place.stop.touch()
                result = running.finish(30)
                left = place.left(running.pid)
            print(result)
            return Told(
                home=home,
                answers=answers(place),
                result=result,
                victim_signals={each.name: aims.victim.signals(each) for each in (signal.SIGUSR1, signal.SIGURG)},
                victim_unharmed=aims.victim.unharmed,
                came=aims.listeners.came | {"container": container.came - came if container else 0},
                shim_before=before,
                shim_after=digest_of_shim(),
                hostile_uids=uids,
                there=there,
                left=left,
                neighbour=failure(lambda: place.check_neighbour(result)),
                host=failure(place.check_host),
            )


@pytest.fixture(scope="module")
def container() -> Iterator[outside.ContainerListener | None]:
    """Another container, which listens; None without an engine."""
    if shutil.which("docker") is None or not has_image(outside.IMAGE):
        yield None
        return
    listening = outside.ContainerListener()
    try:
        yield listening
    finally:
        listening.close()


@pytest.fixture(scope="module")
def attempted(request: pytest.FixtureRequest, container: outside.ContainerListener | None) -> Told:
    """The run of a home."""
    if request.param == "process" and os.geteuid() != 0:
        pytest.skip("without root, users hold what walls are to hold, so nothing is proved")
    need(request)
    return run(request.param, container=container)


walls = walled("attempted")
bare = walled("attempted", "process")
everywhere = walled("attempted", "process", *HOMES)


def answer(attempted: Told, name: str) -> dict[str, Any]:
    if name == "other-container" and name not in attempted.answers:
        without("there is no engine for the other container")
    assert name in attempted.answers, f"{name} was not tried:\n{attempted.result}"
    return attempted.answers[name]


@walls
@pytest.mark.parametrize("name", sorted(NAMES - ALLOWED - TOLD_BY_OTHERS))
def test_contained(attempted: Told, name: str) -> None:
    told = answer(attempted, name)
    assert told["through"] is False, told["detail"]
    assert "Traceback" not in told["detail"], told["detail"]
    assert not told["detail"].startswith("ended"), f"it was not even tried: {told['detail']}"


@bare
@pytest.mark.parametrize("name", sorted(NAMES - set(NEVER_THROUGH) - set(UNSAFE)))
def test_works_where_there_is_no_wall(attempted: Told, name: str) -> None:
    told = answer(attempted, name)
    missing = name.startswith("call-") and any(told["detail"].startswith(each) for each in NOT_THERE)
    assert told["through"] is True or missing, told["detail"]


@everywhere
@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_what_the_file_allows_is_allowed(attempted: Told, name: str) -> None:
    told = answer(attempted, name)
    assert told["through"] is True, told["detail"]


@walls
def test_the_victim_was_left_alone(attempted: Told) -> None:
    assert attempted.victim_signals == {"SIGUSR1": 0, "SIGURG": 0}
    assert attempted.victim_unharmed


@bare
def test_a_signal_would_be_seen(attempted: Told) -> None:
    assert attempted.victim_signals["SIGUSR1"] >= 1
    assert attempted.victim_unharmed


@walls
def test_nobody_came_to_a_listener(attempted: Told) -> None:
    assert not any(attempted.came.values()), attempted.came


@bare
def test_who_comes_would_be_seen(attempted: Told) -> None:
    due = {"loopback", "loopback-v6", "datagram", "path", "abstract"}
    assert {name for name, count in attempted.came.items() if count} >= due, attempted.came


@everywhere
def test_the_shim_is_as_it_was(attempted: Told) -> None:
    assert attempted.shim_before == attempted.shim_after


@walls
def test_the_host_is_as_it_was(attempted: Told) -> None:
    assert attempted.host is None


@bare
def test_what_is_written_would_be_seen(attempted: Told) -> None:
    assert attempted.host is not None


@walls
@pytest.mark.skipif(os.geteuid() != 0, reason="without root there are no users of their own")
def test_its_user_is_nobodys(attempted: Told) -> None:
    assert len(attempted.hostile_uids) == 1
    assert min(attempted.hostile_uids) >= 1 << 30


@everywhere
def test_the_neighbour_was_undisturbed(attempted: Told) -> None:
    assert attempted.neighbour is None
    attempted.result.completed()
    check_ledger(attempted.result)
    assert attempted.result.processor("hostile")["state"] == "exited"
    assert attempted.result.report is not None
    assert attempted.result.report["supervisor"]["peak_rss_bytes"] < 120 * MIB


@everywhere
def test_nothing_is_left(attempted: Told) -> None:
    assert attempted.left == []


@everywhere
def test_what_is_left_would_be_seen(attempted: Told) -> None:
    """While it runs there is something of each kind."""
    kinds = {each.split()[0] for each in attempted.there}
    assert (
        kinds
        >= {"process": {"process"}, "sandbox": {"process"}, "container": {"process", "container", "file"}}[
            attempted.home
        ]
    )
    if attempted.home == "sandbox" and CgroupHome.find().enforced:
        assert "control" in kinds


@walls
def test_limits_are_where_they_should_be(attempted: Told) -> None:
    """How much was had of each, not only that it ended."""
    opened = int(answer(attempted, "open-all-descriptors")["detail"].split()[0])
    assert 200 < opened <= 256
    written = int(answer(attempted, "fill-tmp")["detail"].split()[0])
    assert MIB <= written <= 16 * MIB, attempted.answers["fill-tmp"]
    shared = answer(attempted, "fill-shared-memory")["detail"]
    if attempted.home == "container":
        assert "No such file" in shared  # with a private IPC of kind "none" there is no /dev/shm
    else:
        assert MIB <= int(shared.split()[0]) <= 16 * MIB, shared
