"""Joins runners through proxies, makes faults on a seeded schedule, and compares what came with what went.

A run is a source at the runner `edge` and a sink at `store`, and maybe a runner `middle` between them. Each has a file
of its own that sends who connects to a proxy. With `durable` the channels have their queues in the state at both ends,
the sink is a file channel, and runners are killed among the other faults.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.addresses import free_port
from tests.certificates import authority, curve_keys
from tests.children.build import sink, source
from tests.children.messages import message, number_of
from tests.e2e.connector import RUNNER, Connector, Result, Running, until
from tests.faults.hasty import HASTY, hasty
from tests.faults.proxy import Fault, Proxy, Way, What
from tests.nats_server import NatsServer

SIZE_BYTES = 300
START_LIMIT_S = 60.0
FINISH_LIMIT_S = 60.0
"""A finite pipeline ends by itself within this, after the last fault."""
MOST_MEMORY_BYTES = {False: 32 << 20, True: 96 << 20}
"""A runner grows by less than this, whatever becomes of its connections; a durable one with the store's pages in it."""
CAPACITY = "1MiB"
KILL = "kill"
_SOON_S = 2 * HASTY.silent_s
WEIGHTS = {
    What.RESET: 4, What.FINISH: 3, What.CORRUPT: 4, What.DEAD: 1, What.LOSE: 1, What.STALL: 1, What.DELAY: 1,
    What.THROTTLE: 1, What.AWAY: 1,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is run and how many faults there are.

    `kind` may have its protection behind a `+` ("tcp+tls"); with `middle` there are three runners, and `kind` is of the
    second channel, "tcp" of the first. `first` of all, then `only` these faults are made. `way` is that of `hasty`, or
    "" for the runner as it is.
    """

    kind: str
    faults: int
    seed: int = 0
    listen: str = "reader"
    durable: bool = False
    middle: bool = False
    way: str = "whole"
    rate_per_s: int | None = 4_000
    bytes_per_s: float = 0.0
    pause_s: float = 0.2
    first: tuple[What, ...] = ()
    only: tuple[What, ...] = tuple(WEIGHTS)

    def __str__(self) -> str:
        way = "" if self.way in ("", "whole") else f" {self.way}"
        more = " durable" * self.durable + " three" * self.middle + way
        return f"{self.kind} {self.listen} listens{more}"

    @property
    def channels(self) -> dict[str, str]:
        """Each with its kind and protection, in the order of the messages."""
        return {"near": "tcp", "far": self.kind} if self.middle else {"far": self.kind}

    @property
    def runners(self) -> tuple[str, ...]:
        """In the order of the messages."""
        return ("edge", "middle", "store") if self.middle else ("edge", "store")


@dataclass
class Outcome:
    """What became of it; `came` is what the sink has, compared message by message."""

    plan: Plan
    results: dict[str, Result]
    sent: int
    lost: int
    doubled: int
    foreign: int
    ordered: bool
    made: dict[str, list[float]]
    """How many seconds each fault took."""
    noticed: int
    connections: int
    took_s: float
    ended_s: float = 0.0
    most_memory_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """What all runners said."""
        return "\n".join(each.output for each in self.results.values())

    def summary(self) -> str:
        """One line for people."""
        made = ", ".join(f"{len(each)} {what} in {sum(each):.1f} s" for what, each in sorted(self.made.items()))
        return (
            f"{self.plan}: {sum(map(len, self.made.values()))} faults ({made}; {self.noticed} changed bytes noticed), "
            f"{self.connections} connections, {self.sent} sent, {self.lost} lost, {self.doubled} doubled, "
            f"{self.foreign} foreign, {'in order' if self.ordered else 'OUT OF ORDER'}, {self.took_s:.1f} s, "
            f"{self.ended_s:.1f} s of it after the last, grown by "
            + ", ".join(f"{name} {size_bytes >> 20} MiB" for name, size_bytes in self.most_memory_bytes.items())
        )

    def expect_nothing_lost(self) -> None:
        """0 lost, 0 doubled, in order, ledgers that agree, memory bounded."""
        told = f"{self.summary()}\n{chr(10).join(f'{name}: {each}' for name, each in self.results.items())}"
        assert (self.lost, self.doubled, self.foreign) == (0, 0, 0), told
        assert self.ordered, told
        for result in self.results.values():
            result.completed()
        for name, size_bytes in self.most_memory_bytes.items():
            assert size_bytes < MOST_MEMORY_BYTES[self.plan.durable], (
                f"runner {name} grew by {size_bytes:,} bytes: {told}"
            )
        for channel, (writing, reading) in self._ends():
            writes, reads = self.results[writing].channel(channel), self.results[reading].channel(channel)
            (there,) = writes["readers"].values()
            for reader in (there, *reads["readers"].values()):
                assert (reader["indeterminate"], reader["unread"], reader["dead"]) == (0, 0, 0), told
            if not self.plan.durable:
                assert writes["written"] == there["acknowledged"] == reads["written"] == self.sent, told

    def _ends(self) -> Iterator[tuple[str, tuple[str, str]]]:
        runners = self.plan.runners
        yield from zip(self.plan.channels, itertools.pairwise(runners), strict=True)


def run(folder: Path, plan: Plan, server: NatsServer | None = None) -> Outcome:
    """All faults of the plan, then to the end; compared."""
    with contextlib.ExitStack() as stack:
        joined = Joined(folder, plan, stack, server)
        return joined.run()


class Joined:
    """Runners that are joined through proxies."""

    def __init__(self, folder: Path, plan: Plan, stack: contextlib.ExitStack, server: NatsServer | None = None) -> None:
        self.plan = plan
        self.stop, self.total, self.out = folder / "stop", folder / "total", folder / "out"
        self.running: dict[str, Running] = {}
        self.proxies: dict[str, list[Proxy]] = {}
        """Of each channel; over a server there is one at each side."""
        self.made: dict[str, list[float]] = {}
        self.noticed = 0
        self.memory: dict[str, int] = {}
        self._base: dict[int, int] = {}
        self._folder = folder
        self._stack = stack
        self._chance = random.Random(f"{plan.seed} {plan}")
        self._places = {name: self._place(kind, server) for name, kind in plan.channels.items()}
        """The channel as who writes and as who reads it sees it."""

    def _place(self, kind: str, server: NatsServer | None) -> tuple[dict[str, Any], dict[str, Any]]:
        name, _, protection = kind.partition("+")
        common: dict[str, Any] = {"kind": name, "capacity": CAPACITY}
        if self.plan.durable:
            common["durability"] = "process"
        common |= self._protection(protection)
        if server is not None:
            proxies = [
                self._stack.enter_context(Proxy(server.port, self.plan.bytes_per_s, listener_keeps=True))
                for _ in range(2)
            ]
            places = [common | {"url": f"nats://127.0.0.1:{proxy.port}"} for proxy in proxies]
        else:
            port = free_port()
            proxies = [self._stack.enter_context(Proxy(port, self.plan.bytes_per_s, listener_keeps=name == "zeromq"))]
            common |= {"listen": self.plan.listen}
            places = [common | {"address": f"127.0.0.1:{each}"} for each in (proxies[0].port, port)]
            if self.plan.listen == "writer":
                places.reverse()
        self.proxies[kind + str(len(self.proxies))] = proxies
        return places[0], places[1]

    def _protection(self, protection: str) -> dict[str, Any]:
        if protection == "tls":
            made = authority(self._folder)
            return {"tls": {"cert": str(made.server.cert), "key": str(made.server.key), "ca": str(made.client.ca)}}
        return {"keys": str(curve_keys(self._folder))} if protection == "curve" else {}

    # -- runners

    def start(self, name: str) -> None:
        """Start one, or start it again."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        connector = Connector(folder, hasty(self.plan.way) if self.plan.way else RUNNER)
        self.running[name] = self._stack.enter_context(connector.start(self._pipeline(name), "--runner", name))

    def _pipeline(self, name: str) -> dict[str, Any]:
        """The file of one runner."""
        plan = self.plan
        at = plan.runners.index(name)
        writing = source(
            None, "--until", self.stop, "--total", self.total, "--start", "written",
            *(() if plan.rate_per_s is None else ("--rate", plan.rate_per_s)), size=SIZE_BYTES,
        )  # fmt: skip
        names = list(plan.channels)
        channels = {each: self._places[each][0 if index >= at else 1] for index, each in enumerate(names)}
        processors: dict[str, Any] = {
            "source": {"command": writing, "writes": names[0], "runner": "edge", "resume": "self"},
            "answers": {
                "command": ["cat"], "contract": "one-to-one", "reads": "far", "writes": "kept", "runner": "store"
            },
        }  # fmt: skip
        if plan.middle:
            processors["passes"] = {
                "command": ["cat"], "contract": "one-to-one", "reads": "near", "writes": "far", "runner": "middle"
            }  # fmt: skip
        if plan.durable:
            channels["kept"] = {"kind": "file", "path": str(self.out)}
        else:
            processors["sink"] = {"command": sink(self.out), "reads": "kept", "runner": "store"}
        return {
            "name": "joined",
            "runners": {each: {} for each in plan.runners},
            "processors": processors,
            "channels": channels,
        }

    def kill(self, names: list[str]) -> None:
        """SIGKILL these, then start them again."""
        for name in names:
            self.running[name].process.kill()
            self.running[name].process.wait()
        for name in names:
            until(self.running[name].gone, "all of the killed runner to be gone")
            self.start(name)

    def look(self) -> None:
        """How much memory each runner has now, above what it began with; and that none has ended."""
        for name, running in self.running.items():
            assert running.process.poll() is None, f"{name} ended early:\n{running.finish()}"
            used = psutil.Process(running.pid).memory_info().rss
            base = self._base.setdefault(running.pid, used)
            self.memory[name] = max(self.memory.get(name, 0), used - base)

    # -- all of it

    def run(self) -> Outcome:
        """See the module."""
        began = time.monotonic()
        for name in self._chance.sample(self.plan.runners, len(self.plan.runners)):
            self.start(name)
        until(lambda: self._ended() or self.arrived(), "a first message", START_LIMIT_S)
        print(f"{self.plan}: a first message after {time.monotonic() - began:.1f} s")
        for number in range(self.plan.faults):
            self.look()
            time.sleep(self._chance.uniform(0, self.plan.pause_s))
            self.fault(self.plan.first[number] if number < len(self.plan.first) else self._next())
        self.look()
        self.stop.touch()
        stopped = time.monotonic()
        results = {name: running.finish(FINISH_LIMIT_S) for name, running in self.running.items()}
        outcome = self._compared(results, time.monotonic() - began)
        outcome.ended_s = time.monotonic() - stopped
        print(outcome.summary())
        return outcome

    def arrived(self) -> int:
        """Bytes at the sink."""
        return self.out.stat().st_size if self.out.exists() else 0

    def _ended(self) -> bool:
        return any(running.process.poll() is not None for running in self.running.values())

    def _next(self) -> str:
        weights: dict[str, int] = {what: weight for what, weight in WEIGHTS.items() if what in self.plan.only}
        weights[KILL] = 2 * self.plan.durable
        return self._chance.choices([*weights], [*weights.values()])[0]

    def fault(self, what: str) -> None:
        """Make one; returns when it is over."""
        chance = self._chance
        began = time.monotonic()
        if what == KILL:
            self.kill(chance.sample(self.plan.runners, chance.randint(1, len(self.plan.runners))))
        else:
            self._make(What(what))
        self.made.setdefault(what, []).append(time.monotonic() - began)

    def _make(self, what: What) -> None:
        fault = self._fault(what)
        proxy = self._chance.choice([proxy for proxies in self.proxies.values() for proxy in proxies])
        began = time.monotonic()
        noticed = proxy.make(fault)
        print(f"{fault}: {time.monotonic() - began:.2f} s, then {self.arrived()} B at the sink")
        self.noticed += noticed and what is What.CORRUPT

    def _fault(self, what: What) -> Fault:
        chance = self._chance
        way = chance.choice(list(Way))
        writes = (way is Way.FORTH) == (self.plan.listen == "reader")
        most_bytes = chance.choice((500, 60_000)) if writes or self.plan.kind == "nats" else 200
        to_be_noticed = what is What.CORRUPT and self.plan.way != "checks-nothing"
        for_s = _SOON_S if to_be_noticed else chance.uniform(0.1, 1.0)
        return Fault(what, way, chance.randrange(most_bytes), for_s, chance.randrange(1, 256))

    def _compared(self, results: dict[str, Result], took_s: float) -> Outcome:
        sent = int(self.total.read_text()) if self.total.exists() else 0
        times = bytearray(sent + 1)
        last = foreign = 0
        ordered = True
        with self.out.open("rb") as file:
            for line in file:
                number = _number(line, sent)
                if number is None:
                    foreign += 1
                    continue
                times[number] = min(255, times[number] + 1)
                ordered = ordered and number > last
                last = number
        return Outcome(
            plan=self.plan,
            results=results,
            sent=sent,
            lost=times.count(0) - 1,
            doubled=sum(each - 1 for each in times if each > 1),
            foreign=foreign,
            ordered=ordered,
            made=self.made,
            noticed=self.noticed,
            connections=sum(proxy.connections for proxies in self.proxies.values() for proxy in proxies),
            took_s=took_s,
            most_memory_bytes=self.memory,
        )


def _number(line: bytes, most: int) -> int | None:
    """Which message it is; None: none that was sent, whole."""
    try:
        number = number_of(line)
    except ValueError:
        return None
    return number if 0 < number <= most and line == message(number, SIZE_BYTES) + b"\n" else None
