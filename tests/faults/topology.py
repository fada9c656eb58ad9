"""Random pipelines: sources, processors that pass on what they get, sinks that keep it. Pure: a seed in, a plan out.

Every message carries where it comes from and its number, and passes every channel once, so each sink is to have all.
"""

from __future__ import annotations

import random
import sys
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.children.build import PYTHON, script
from tests.faults.relay import IMAGE, IN_IMAGE, Relay

SDK = Path(__file__).parents[2] / "sdk" / "python"
SDK_ECHO = (
    f"import sys; sys.path.insert(0, {str(SDK)!r}); from connector_processor import Processor;"
    " Processor().run(lambda message: message.payload)"
)
CODECS = ("lines", "null", "length-prefixed")
MOST_PROCESSORS = 4
NACKS = 7
BATCH = {"messages": 500, "wait": "10ms"}
SWIFT = {"backoff": "0s", "limit": "1000000 in 60s"}
SINKS_CAPACITY = "256MiB"
"""Of a channel of which a reader takes nothing before the end: all that comes has to fit."""


@dataclass(frozen=True)
class Limits:
    """What a pipeline may be made of. `durable`: all channels are, so that the runner may be killed."""

    homes: tuple[str, ...] = ("process",)
    durable: bool = False
    chain: int | None = None
    """Exactly so many processors one after the other, one-to-one and acknowledged by turns; None: as it comes."""
    quick: bool = False
    """Programs that start in no time only."""


@dataclass(frozen=True)
class Part:
    """A processor of any kind. `program` is what it runs; `reads`, `writes`: channels; `origin` marks a source."""

    name: str
    program: str
    contract: str
    reads: str | None = None
    writes: tuple[str, ...] = ()
    codec: str = "lines"
    replicas: int = 1
    order: str | None = None
    home: str = "process"
    trust: str = "trusted"
    resume: str | None = None
    origin: str = ""
    given: tuple[str, ...] = ()
    """What it runs when its program is `given`."""

    @property
    def ordered(self) -> bool:
        """Whether what it writes (or keeps) has the order of what it reads."""
        if self.program == "nacks":
            return False
        return self.replicas == 1 or self.order == "keep"

    @property
    def levels(self) -> int:
        """How many processes of ours are above each of its programs: each may be killed for it."""
        return 3 if self.home == "sandbox" else 1

    def __str__(self) -> str:
        times = f"x{self.replicas}" + (f" {self.order}" if self.order else "") if self.replicas > 1 else ""
        where = "" if self.home == "process" else f"in a {self.trust} {self.home}"
        ways = f"{self.reads or ''} -> {self.name} -> {','.join(self.writes)}".strip(" ->")
        return " ".join(filter(None, (ways + ":", self.program, self.contract, self.resume, self.codec, times, where)))


@dataclass(frozen=True)
class Topology:
    """A pipeline. `ordered` are the channels in which the messages of each source are in its order."""

    parts: tuple[Part, ...]
    channels: dict[str, dict[str, Any]]
    ordered: frozenset[str]
    salt: str = field(default_factory=lambda: uuid.uuid4().hex[:12], compare=False)

    @property
    def sources(self) -> tuple[Part, ...]:
        """Those that write only."""
        return tuple(part for part in self.parts if part.reads is None)

    @property
    def sinks(self) -> tuple[Part, ...]:
        """Those that keep what they get."""
        return tuple(part for part in self.parts if not part.writes)

    @property
    def middles(self) -> tuple[Part, ...]:
        """Those between."""
        return tuple(part for part in self.parts if part.reads is not None and part.writes)

    @property
    def held(self) -> tuple[str, ...]:
        """The channels before sinks that take nothing before the end: all that came is there."""
        return tuple(sink.reads for sink in self.sinks if sink.program == "held" and sink.reads is not None)

    @property
    def durable(self) -> bool:
        """Whether every channel outlives the runner."""
        return all(channel["kind"] in {"durable", "file"} for channel in self.channels.values())

    def mark(self, part: Part) -> str:
        """The last argument of its programs."""
        return f"{part.name}-{self.salt}"

    def __str__(self) -> str:
        kinds = {name: f"{each['kind']} {each.get('durability', '')}".strip() for name, each in self.channels.items()}
        return "\n".join([*map(str, self.parts), ", ".join(f"{name}: {kind}" for name, kind in kinds.items())])

    @property
    def files(self) -> dict[str, str]:
        """The channels that end in a file, and their codecs."""
        return {name: each["codec"] for name, each in self.channels.items() if each["kind"] == "file"}

    def pipeline(self, folder: Path, relay: Relay) -> dict[str, Any]:
        """What is written into the file."""
        paths = {name: {"path": str(folder / "files" / name)} for name in self.files}
        return {
            "name": "test",
            "processors": {part.name: self._processor(part, folder, relay) for part in self.parts},
            "channels": {name: each | paths.get(name, {}) for name, each in self.channels.items()},
        }

    def _processor(self, part: Part, folder: Path, relay: Relay) -> dict[str, Any]:
        found: dict[str, Any] = {
            "command": [*command(part, folder, relay), self.mark(part)],
            "contract": part.contract,
            "codec": part.codec,
            "restart": SWIFT,
            "replicas": part.replicas,
        }
        if part.reads is not None:
            found["reads"] = part.reads
        if part.writes:
            found["writes"] = list(part.writes)
        if part.order is not None:
            found["order"] = part.order
        if part.resume is not None:
            found["resume"] = part.resume
        if part.contract == "batch":
            found["batch"] = BATCH
        return found | walls(part, folder, relay)


def walls(part: Part, folder: Path, relay: Relay) -> dict[str, Any]:
    """The keys that put it where it belongs."""
    if part.home == "process":
        return {}
    wall = {"network": "none", "trust": part.trust}
    if part.home == "container":
        return wall | {"image": IMAGE, "pull": "never"}
    shown = [] if part.writes else [f"{folder}:rw"]
    return wall | {"mounts": [str(relay.folder), *shown]}


def command(part: Part, folder: Path, relay: Relay) -> list[str]:
    """What it runs, without its mark."""
    program = IN_IMAGE if part.home == "container" else str(relay.file)
    commands = {
        "echo": [program, "echo"],
        "batch": [program, "batch"],
        "half": [program, "half"],
        "answer": [program, "answer"],
        "nacks": [program, "answer", str(NACKS)],
        "dies": script("acknowledges", "echo", 1, 100),
        "python": script("echo", part.codec),
        "given": list(part.given),
        "sdk": [PYTHON, "-c", SDK_ECHO],
        "keep": [program, "keep", part.codec, str(folder / part.name)],
        "held": [program, "keep", part.codec, str(folder / part.name), str(folder / "gate")],
        "store": [program, "store", str(folder / part.name)],
        "source": [program, "source", part.resume or "", part.codec, part.origin, str(target(folder, part))],
        "states": [program, "source", "state", part.codec, part.origin, str(target(folder, part))],
    }
    return commands[part.program]


def target(folder: Path, source: Part) -> Path:
    """The file that says how far a source may go."""
    return folder / f"target-{source.name}"


# -- a random one


class Draw:
    """One pipeline in the making."""

    def __init__(self, chance: random.Random, limits: Limits) -> None:
        self._chance = chance
        self._limits = limits
        self._parts: list[Part] = []
        self._channels: dict[str, dict[str, Any]] = {}
        self._ordered: set[str] = set()
        self._forks = 1 if limits.chain is None else 0
        self._durability = chance.choice(("process", "disk"))

    def topology(self) -> Topology:
        """It."""
        chance, limits = self._chance, self._limits
        first = self._channel(ordered=True)
        for number in range(2 if limits.chain is None and chance.random() < 0.3 else 1):
            self._source(number, first)
        self._grow(first, limits.chain or chance.randint(1, MOST_PROCESSORS))
        return Topology(tuple(self._parts), self._channels, frozenset(self._ordered))

    def _channel(self, *, ordered: bool) -> str:
        chance = self._chance
        name = f"c{len(self._channels) + 1}"
        if self._limits.durable or chance.random() < 0.5:
            durability = self._durability if chance.random() < 0.8 else "process"
            capacity = chance.choice(("64KiB", "1MiB", "8MiB"))
            self._channels[name] = {"kind": "durable", "durability": durability, "capacity": capacity}
        else:
            self._channels[name] = {"kind": "memory", "capacity": chance.choice(("64KiB", "8MiB"))}
        if ordered:
            self._ordered.add(name)
        return name

    def _file(self, *, ordered: bool) -> str:
        """A channel that ends in a file."""
        chance = self._chance
        name = f"c{len(self._channels) + 1}"
        self._channels[name] = {"kind": "file", "durability": self._durability, "codec": chance.choice(CODECS)}
        if chance.random() < 0.5:
            self._channels[name]["rotate"] = {"size": chance.choice(("4KiB", "64KiB"))}
        if ordered:
            self._ordered.add(name)
        return name

    def _add(self, part: Part) -> None:
        self._parts.append(part)

    def _source(self, number: int, channel: str) -> None:
        program, resume = self._chance.choice((("source", "skip"), ("source", "self"), ("states", "self")))
        contract = "acknowledged" if program == "states" else "stream"
        origin = "ab"[number]
        codec = self._chance.choice(CODECS)
        self._add(Part(f"source-{origin}", program, contract, None, (channel,), codec, resume=resume, origin=origin))

    def _grow(self, channel: str, left: int) -> None:
        """What reads `channel`, and so on, `left` processors deep."""
        if left == 0:
            self._end(channel)
            return
        ways = self._fork(0.3)
        for way in range(ways):
            outputs = self._fork(0.3) if ways == 1 else 1
            middle = self._middle(channel, left)
            ordered = channel in self._ordered and middle.ordered
            writes = tuple(self._channel(ordered=ordered) for _ in range(outputs))
            stored = (self._file(ordered=ordered),) if self._chance.random() < 0.3 else ()
            self._add(replace(middle, writes=(*writes, *stored)))
            for turn, name in enumerate(writes):
                self._grow(name, left - 1 if way == turn == 0 else self._chance.randint(0, left - 1))

    def _fork(self, likely: float) -> int:
        if self._forks and self._chance.random() < likely:
            self._forks -= 1
            return 2
        return 1

    def _middle(self, channel: str, left: int) -> Part:
        chance, limits = self._chance, self._limits
        home = chance.choice(limits.homes)
        contract = chance.choice(("one-to-one", "one-to-one", "acknowledged", "acknowledged", "batch"))
        if limits.chain is not None:
            contract = ("one-to-one", "acknowledged")[(left + limits.chain // 2) % 2]
        slow = home == "process" and not limits.quick
        if contract == "one-to-one":
            program = chance.choice(("echo", "python") if slow else ("echo",))
        elif contract == "batch":
            program = "batch"
        else:
            program = chance.choice(("answer", "nacks", "sdk") if slow else ("answer", "answer", "nacks"))
        replicas = chance.choice((1, 1, 2, 3) if home != "container" else (1, 1, 2))
        order = chance.choice((None, "keep", "any")) if contract == "one-to-one" else None
        if contract == "one-to-one" and order is None:
            order = "keep"
        name = f"{'worker' if limits.chain is None else 'one'}-{len(self._parts)}"
        trust = chance.choice(("trusted", "untrusted")) if home != "process" else "trusted"
        codec = chance.choice(CODECS)
        return Part(name, program, contract, channel, (), codec, replicas, order, home, trust)

    def _end(self, channel: str) -> None:
        """Sinks: one that stores the numbers, perhaps one that answers, and one that takes nothing before the end."""
        chance = self._chance
        self._sink("store", "acknowledged", channel)
        if chance.random() < 0.4:
            self._sink("keep", "one-to-one", channel)
        if self._limits.durable:
            self._channels[channel]["capacity"] = SINKS_CAPACITY
            self._add(Part(f"held-{channel}", "held", "one-to-one", channel, codec=chance.choice(CODECS)))

    def _sink(self, program: str, contract: str, channel: str) -> None:
        chance = self._chance
        home = "sandbox" if "sandbox" in self._limits.homes and chance.random() < 0.3 else "process"
        replicas = chance.choice((1, 1, 2))
        name, codec = f"{program}-{channel}", chance.choice(CODECS)
        order = "any" if contract == "one-to-one" and replicas > 1 else None
        self._add(Part(name, program, contract, channel, (), codec, replicas, order, home))


def draw(seed: int, limits: Limits) -> Topology:
    """The pipeline of a seed."""
    return Draw(random.Random(seed), limits).topology()


if __name__ == "__main__":
    for seed_ in map(int, sys.argv[1:]):
        print(draw(seed_, Limits(homes=("process", "sandbox", "container"))), end="\n\n")
