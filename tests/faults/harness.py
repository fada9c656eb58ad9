"""Kills programs of a running pipeline at random moments of a seeded generator, then compares what came with what went.

A run is source -> victim -> sink: numbered messages until a file appears, a program that answers each with itself, a
file. Only processes that run exactly the victim's command are killed, through a pidfd: those below the runner, or, for
a container, those that `find` finds. How else a victim can come to its end is in `deaths`.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import random
import signal
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.children.build import sink, source
from tests.children.messages import frame, message, unframe
from tests.e2e.connector import Connector, Result, Running, chain, kill_exactly, until

DEFAULT_SEED = 20_130_101
RATE_PER_S = 5_000
SIZE_BYTES = 100
FINISH_LIMIT_S = 120.0
KILL_LIMIT_S = 20.0


def seed() -> int:
    """CONNECTOR_SEED, or a fixed number; printed, so that a failure can be had again."""
    chosen = int(os.environ.get("CONNECTOR_SEED", DEFAULT_SEED))
    print(f"CONNECTOR_SEED={chosen}")
    return chosen


@dataclass(frozen=True)
class Plan:
    """What is run and how often it is killed; `pause_s` bounds the random time between two kills.

    `more` are further keys of the victim; `home` goes to `connector run --home`.
    """

    seed: int
    kills: int
    command: list[str]
    codec: str = "lines"
    form: str = "number"
    contract: str = "one-to-one"
    replicas: int = 1
    pause_s: float = 0.05
    rate_per_s: int = RATE_PER_S
    more: dict[str, Any] = field(default_factory=dict)
    home: str | None = None
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or ' '.join(self.command[-2:])[-60:]} {self.codec} x{self.replicas}"


@dataclass(frozen=True)
class Outcome:
    """What became of a run under kills: numbers of messages; `ordered` says that none came early."""

    result: Result
    sent: int
    lost: int
    doubled: int
    foreign: int
    ordered: bool
    kills: int

    def expect_nothing_lost(self) -> None:
        """0 lost, 0 doubled, order kept, and a ledger that says the same."""
        report = self.result.completed()
        assert (self.lost, self.doubled, self.foreign) == (0, 0, 0), f"{self.summary()}\n{self.result}"
        assert self.ordered, f"{self.summary()}\n{self.result}"
        for channel, reader in (("c1", "victim"), ("c2", "sink")):
            account = self.result.account(channel, reader)
            assert account == {"written": self.sent, "acknowledged": self.sent}, f"{channel}\n{self.result}"
        assert report["processors"]["victim"]["restarts"] == self.kills, f"{self.summary()}\n{self.result}"

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.kills} kills, {self.sent} sent, {self.lost} lost, {self.doubled} doubled, {self.foreign} foreign, "
            f"{'in order' if self.ordered else 'OUT OF ORDER'}, {self.result.took_s:.1f} s"
        )


def run_kills(connector: Connector, plan: Plan, find: Find | None = None, kill: Kill = kill_exactly) -> Outcome:
    """Run the pipeline, kill the victim `plan.kills` times, let it finish, compare; `find`, `kill`: see `Killer`."""
    with running_pipeline(connector, plan, "--quiet") as run:
        return run.kill_all(Killer(run.running, plan, random.Random(plan.seed), kill, find))


@dataclass
class Run:
    """A pipeline under way: source -> victim -> sink, until `stop` is there."""

    running: Running
    plan: Plan
    stop: Path
    total: Path
    out: Path

    def kill_all(self, killer: Killer) -> Outcome:
        """Have the killer do its work, let it finish, compare."""
        self.begun()
        return self.finish(sum(killer.kill_one() for _ in range(self.plan.kills)))

    def begun(self) -> None:
        """Wait for the first message at the sink."""
        until(lambda: self.running.process.poll() is not None or self.arrived(), "a first message", FINISH_LIMIT_S)

    def arrived(self) -> int:
        """How many bytes the sink has."""
        return self.out.stat().st_size if self.out.exists() else 0

    def finish(self, kills: int) -> Outcome:
        """Let it finish after so many kills, compare."""
        self.stop.touch()
        result = self.running.finish(FINISH_LIMIT_S)
        outcome = compare(result, self.plan, _sent(self.total, result), self.out, kills)
        print(f"{self.plan}: {outcome.summary()}")
        return outcome


@contextlib.contextmanager
def running_pipeline(
    connector: Connector, plan: Plan, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Run]:
    """Start the pipeline of a plan."""
    folder = connector.folder
    stop, total, out = folder / "stop", folder / "total", folder / "out"
    home = () if plan.home is None else ("--home", plan.home)
    with connector.start(_pipeline(plan, stop, total, out), *home, *options, environment=environment) as running:
        yield Run(running, plan, stop, total, out)


def _sent(total: Path, result: Result) -> int:
    """What the source says that it wrote; what the runner had taken from it where the run was cut short."""
    if total.exists():
        return int(total.read_text())
    return int(result.channel("c1")["written"]) if result.report is not None else 0


def _pipeline(plan: Plan, stop: Path, total: Path, out: Path) -> dict[str, Any]:
    writing = source(
        None, "--until", stop, "--total", total, "--codec", plan.codec, "--form", plan.form,
        "--rate", plan.rate_per_s, size=SIZE_BYTES,
    )  # fmt: skip
    victim = {
        "command": plan.command,
        "codec": plan.codec,
        "contract": plan.contract,
        "replicas": plan.replicas,
        "restart": {"backoff": "0s", "limit": f"{10 * plan.kills + 100} in 60s"},
    }
    shown = {} if plan.home is None else {"mounts": [f"{out.parent}:rw"]}
    return chain(
        source={"command": writing, "codec": plan.codec} | shown,
        victim=victim | plan.more,
        sink={"command": sink(out), "codec": plan.codec} | shown,
    )


Kill = Callable[[psutil.Process, list[str]], bool]
Find = Callable[[list[str]], list[psutil.Process]]


@dataclass
class Killer:
    """Kills one victim after another; `kill` does it and says whether it hit. `hit` are those that have been.

    `find` finds the living ones; None: they are below the runner.
    """

    running: Running
    plan: Plan
    chance: random.Random
    kill: Kill = kill_exactly
    find: Find | None = None
    hit: set[psutil.Process] = field(default_factory=set)

    def kill_one(self) -> bool:
        """Wait a random time, then kill one of the living victims, none twice; False when the run is over."""
        time.sleep(self.chance.uniform(0, self.plan.pause_s))
        find = self.find or self.running.programs
        deadline = time.monotonic() + KILL_LIMIT_S
        while self.running.process.poll() is None:
            assert time.monotonic() < deadline, f"no victim for {KILL_LIMIT_S} s:\n{self.running.output()}"
            living = [each for each in find(self.plan.command) if each not in self.hit]
            if not living:
                continue
            chosen = self.chance.choice(living)
            if self.kill(chosen, self.plan.command):
                self.hit.add(chosen)
                return True
        return False


def kill_with_input(process: psutil.Process, command: list[str]) -> bool:
    """Kill a victim that has input which it will never answer: stopped first, until there is some in its stdin."""
    if not kill_exactly(process, command, signal.SIGSTOP):
        return False
    try:
        until(lambda: _unread_bytes(process) > 0, "input that nobody reads", KILL_LIMIT_S)
    except OSError:  # it had ended by something else
        return False
    return kill_exactly(process, command)


def _unread_bytes(process: psutil.Process) -> int:
    unread = array.array("i", [0])
    with open(f"/proc/{process.pid}/fd/0", "rb", opener=_opened_at_once) as stdin:
        fcntl.ioctl(stdin, termios.FIONREAD, unread)
    return unread[0]


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def compare(result: Result, plan: Plan, sent: int, out: Path, kills: int) -> Outcome:
    """Compare the sink's file with what the source wrote, message by message."""
    got, rest = unframe(out.read_bytes() if out.exists() else b"", plan.codec)
    due = [message(number, SIZE_BYTES, plan.codec, plan.form) for number in range(1, sent + 1)]
    numbers = {payload: number for number, payload in enumerate(due)}
    places = [numbers[each] for each in got if each in numbers]
    distinct = set(places)
    return Outcome(
        result=result,
        sent=sent,
        lost=sent - len(distinct),
        doubled=len(places) - len(distinct),
        foreign=len(got) - len(places) + bool(rest),
        ordered=places == sorted(places),
        kills=kills,
    )


@dataclass
class ReadByKilled:
    """How many whole messages each killed run of a `counted` program had read from its stdin."""

    folder: Path
    framed_bytes: int
    runs: list[int] = field(default_factory=list)

    def kill(self, process: psutil.Process, command: list[str]) -> bool:
        """Stop a program, take its count, kill it: nothing of it runs between the count and its death."""
        if not kill_exactly(process, command, signal.SIGSTOP):
            return False
        try:
            until(lambda: process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE), "it to stop")
            counted = int(Path(f"/proc/{process.pid}/io").read_text().split("rchar:")[1].split()[0])
        except (psutil.NoSuchProcess, OSError):
            return False
        before = self.folder / str(process.pid)
        read_bytes = counted - int(before.read_text()) if before.exists() else 0
        if not kill_exactly(process, command):
            return False
        before.unlink(missing_ok=True)
        self.runs.append(read_bytes // self.framed_bytes)
        return True


def run_counted_kills(connector: Connector, plan: Plan) -> tuple[Outcome, int]:
    """`run_kills` for a `counted` program under `stream`; also how many messages its killed runs had read."""
    counts = connector.folder / "counts"
    counts.mkdir()
    plan = Plan(**{**vars(plan), "command": [*plan.command, str(counts)], "contract": "stream"})
    framed_bytes = len(frame(message(1, SIZE_BYTES, plan.codec), plan.codec))
    read = ReadByKilled(counts, framed_bytes)
    with running_pipeline(connector, plan, "--quiet") as run:
        outcome = run.kill_all(Killer(run.running, plan, random.Random(plan.seed), read.kill))
    print(f"stream: {sum(read.runs)} read by killed runs")
    return outcome, sum(read.runs)
