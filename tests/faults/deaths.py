"""How a program in a container or a sandbox comes to its end, and what the runner is to say of each: its cause, and
whether it is held against the program.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from runner.launch.cgroup import CgroupHome
from tests.e2e.connector import Connector, Running, kill_exactly
from tests.engine import docker
from tests.faults.doomed import MEMORY_BYTES, alive
from tests.faults.harness import Find, Kill, Killer, Outcome, Plan, kill_with_input, running_pipeline

KILLED = "killed by SIGKILL"
EARLY = "its shim died"
OUT_OF_MEMORY = f"killed by SIGKILL, out of memory: its limit is {MEMORY_BYTES >> 20} MiB"
_CATCHES = sum(1 << number - 1 for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP))
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_FIRST_TO_GO = "1000"  # oom_score_adj: whoever has it is killed first (proc(5))


@dataclass(frozen=True)
class Death:
    """One way to die. `bring` brings it and says whether it hit; `causes` are what the runner may say of it.

    `counts`: it is held against the program, so it counts for the limit of restarts. What does not may come before the
    runner has heard that the program began (`EARLY`).
    """

    name: str
    bring: Kill
    causes: tuple[str, ...]
    counts: bool = True


# -- from inside, and of the program alone


def by_its_own_signal(number: signal.Signals) -> Kill:
    """Have it do what `doomed.c` says of this signal, as soon as it listens."""

    def bring(process: psutil.Process, command: list[str]) -> bool:
        return listens(process) and kill_exactly(process, command, number)

    return bring


def listens(process: psutil.Process) -> bool:
    """Whether it catches its signals by now."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        caught = next(line for line in lines if line.startswith("SigCgt:"))
        return int(caught.split()[1], 16) & _CATCHES == _CATCHES
    return False


PROGRAM = (
    Death("kills itself", by_its_own_signal(signal.SIGUSR1), (KILLED,)),
    Death("killed by its child", by_its_own_signal(signal.SIGUSR2), (KILLED,)),
    Death("killed from the host", kill_exactly, (KILLED,)),
    Death("killed with input unread", kill_with_input, (KILLED,)),
)
SWELLS = Death("out of memory", by_its_own_signal(signal.SIGHUP), (OUT_OF_MEMORY,))


# -- of the home around it


def above(levels: int) -> Callable[[psutil.Process], psutil.Process]:
    """Its parent, or the parent of that, …"""

    def find(process: psutil.Process) -> psutil.Process:
        return process.parents()[levels - 1]

    return find


Above = Callable[[psutil.Process], psutil.Process]


def killing(of: Above, expected: str) -> Kill:
    """SIGKILL of something above it, whose command line has `expected` in it."""

    def bring(process: psutil.Process, command: list[str]) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            if process.cmdline() == command:
                chosen = of(process)
                found = chosen.cmdline()
                assert expected in " ".join(found), f"{found} is above {command}"
                return kill_exactly(chosen, found)
        return False

    return bring


def swelling(of: Above) -> Kill:
    """Out of memory, and something above it is what the kernel kills."""

    def bring(process: psutil.Process, command: list[str]) -> bool:
        if not listens(process):
            return False
        with contextlib.suppress(psutil.NoSuchProcess, IndexError, OSError):
            Path(f"/proc/{of(process).pid}/oom_score_adj").write_text(_FIRST_TO_GO)
            return kill_exactly(process, command, signal.SIGHUP)
        return False

    return bring


def by_the_engine(*verb: str, host: str | None = None) -> Kill:
    """What a person does to its container."""

    def bring(process: psutil.Process, command: list[str]) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            container = container_of(process)
            if container is not None and process.cmdline() == command:
                docker(*verb, container, host=host)
                return True
        return False

    return bring


def container_of(process: psutil.Process) -> str | None:
    """The id of the container that it is in."""
    with contextlib.suppress(OSError):
        found = _CONTAINER.search(Path(f"/proc/{process.pid}/cgroup").read_text())
        return None if found is None else found[0]
    return None


def of_containers() -> tuple[Death, ...]:
    """All deaths of a program in a container."""
    killed, stopped = "its container was killed", "its container was stopped, by the engine or by somebody"
    return (
        *PROGRAM,
        SWELLS,
        Death("its shim out of memory", swelling(above(1)), (OUT_OF_MEMORY,)),
        Death("its shim killed from the host", killing(above(1), "/.connector/shim"), (killed, EARLY), counts=False),
        Death("docker kill", by_the_engine("kill"), (killed, EARLY), counts=False),
        Death("docker stop", by_the_engine("stop"), (stopped, EARLY), counts=False),
        Death("docker rm", by_the_engine("rm", "-f"), (killed, "its container was removed", EARLY), counts=False),
    )


def of_sandboxes() -> tuple[Death, ...]:
    """All deaths of a program in a sandbox; without those by its limit of memory where this machine cannot hold it."""
    found = (
        *PROGRAM,
        Death(
            "inner shim killed",
            killing(above(1), "/proc/self/fd/"),
            (f"{KILLED}, its sandbox was ended from inside", EARLY),
        ),
        Death("bwrap killed", killing(above(2), "bwrap"), ("its sandbox was killed", EARLY), counts=False),
        Death("outer shim killed", killing(above(3), "connector-shim"), (EARLY,), counts=False),
    )
    if "memory" not in CgroupHome.find().enforced:
        return found
    return (
        *found,
        SWELLS,
        Death("inner shim out of memory", swelling(above(1)), (OUT_OF_MEMORY,)),
        Death("bwrap out of memory", swelling(above(2)), (OUT_OF_MEMORY,)),
        Death("outer shim out of memory", swelling(above(3)), (OUT_OF_MEMORY,)),
    )


# -- a run of them


class Schedule:
    """Deaths, about as many of each kind, in a random order; each is brought once."""

    def __init__(self, kinds: Sequence[Death], plan: Plan) -> None:
        self.all = [kinds[number % len(kinds)] for number in range(plan.kills)]
        random.Random(plan.seed).shuffle(self.all)
        self._left = list(self.all)

    @property
    def counted(self) -> int:
        """How many are held against the program."""
        return sum(each.counts for each in self.all)

    def bring(self, process: psutil.Process, command: list[str]) -> bool:
        """Bring the next one; whether it hit."""
        hit = self._left[0].bring(process, command)
        if hit:
            del self._left[0]
        return hit

    def expect(self, causes: Sequence[str]) -> None:
        """Each death was given its cause, one after the other; replicas may change places."""
        left = list(causes)
        for each in sorted(
            self.all, key=lambda death: len(death.causes)
        ):  # who may be called one thing only comes first
            found = next((cause for cause in each.causes if cause in left), None)
            assert found is not None, f"nothing of {each.causes} among {Counter(left)}"
            left.remove(found)
        assert not left, f"said and not done: {Counter(left)}"

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in sorted(Counter(each.name for each in self.all).items()))


def run_deaths(connector: Connector, plan: Plan, kinds: Sequence[Death], find: Find | None = alive) -> Outcome:
    """`run_kills` with these kinds of deaths, and nothing may be lost by any.

    The limit of restarts is exactly how many count, so the run fails when one is held against the program that is not.
    """
    schedule = Schedule(kinds, plan)
    plan.more["restart"] = {"backoff": "0s", "limit": f"{max(1, schedule.counted)} in 10h"}
    with running_pipeline(connector, plan, "--log-format", "json") as run:
        outcome = run.kill_all(Killer(run.running, plan, random.Random(plan.seed), schedule.bring, find))
        causes = causes_told(run.running)
    print(f"    {schedule}")
    outcome.expect_nothing_lost()
    schedule.expect(causes)
    return outcome


def causes_told(running: Running) -> list[str]:
    """Why the victim was started again, each time."""
    lines = [json.loads(line) for line in running.output().splitlines() if line.startswith("{")]
    told = [each for each in lines if each["event"] == "state_changed" and each["processor"] == "victim"]
    return [each["cause"].partition("because: ")[2] for each in told if each["new"] == "backoff"]
