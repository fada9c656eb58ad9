"""Kills runners whose channels are durable, and looks into the store after each kill.

A run is source -> one -> two -> sink, every message carries its number. What is in the store is compared with what the
messages say; a number that once meant a message means it for ever; and when the run has been let go on to its end, the
sink's file is compared with what the store said was in the first channel.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.store import Cursor, Inspection, Record, check_store
from tests.children.build import sink
from tests.e2e.connector import Connector, Result, chain, until

SOURCE = Path(__file__).with_name("numbered.py")
CHANNELS = ("c1", "c2", "c3")
READERS = {"c1": "one", "c2": "two", "c3": "sink"}
START_LIMIT_S = 30.0
FINISH_LIMIT_S = 120.0


@dataclass(frozen=True)
class Plan:
    """What is run and how often its runner is killed; `middles` are the contracts of one and two."""

    seed: int
    kills: int
    middles: tuple[str, str] = ("one-to-one", "one-to-one")
    last: str = "one-to-one"
    replicas: tuple[int, int, int] = (1, 1, 1)
    resume: str = "skip"
    durability: str = "process"
    capacity: str = "64KiB"
    rate_per_s: int = 6_000
    count: int = 0
    """Messages in all (`live`: of each run); 0: enough for all kills."""

    def __str__(self) -> str:
        replicas = "/".join(map(str, self.replicas))
        contracts = "/".join((*self.middles, self.last))
        return f"{contracts} x{replicas} {self.resume} {self.durability} {self.capacity}"

    @property
    def messages(self) -> int:
        """How many the source is to write."""
        return self.count or (self.rate_per_s if self.resume == "live" else self.rate_per_s * (self.kills + 2) // 3)

    @property
    def exact(self) -> bool:
        """Whether every message has to arrive."""
        return "stream" not in (*self.middles, self.last)

    @property
    def same_numbers(self) -> bool:
        """Whether message N of each channel is that with the number N in it."""
        return self.exact and self.resume != "live"


@dataclass
class Seen:
    """What the store has shown so far: messages by channel and number, and the last cursors."""

    messages: dict[str, dict[int, int]] = field(default_factory=lambda: {name: {} for name in CHANNELS})
    inspection: Inspection = field(default_factory=Inspection)

    def last(self, channel: str) -> int:
        """The number of its last message."""
        head = self.inspection.heads.get(channel)
        return 0 if head is None else head.last

    def cursor(self, channel: str) -> Cursor:
        """That of its reader."""
        return self.inspection.cursors.get((channel, READERS[channel]), Cursor())

    def limbo(self, channel: str) -> int:
        """Messages that had been handed out, and nobody knows what became of them."""
        cursor = self.cursor(channel)
        return cursor.handed_out + cursor.read

    def open(self, channel: str) -> int:
        """Messages that had no outcome."""
        cursor = self.cursor(channel)
        ranges = cursor.open_ranges(self.last(channel))
        return sum(last - first + 1 for first, last in ranges) + cursor.read


class Kills:
    """One pipeline whose runner is killed again and again."""

    def __init__(self, connector: Connector, plan: Plan) -> None:
        self.connector = connector
        self.plan = plan
        self.folder = connector.folder
        self.chance = random.Random(plan.seed)
        self.seen = Seen()
        self.go, self.out = self.folder / "go", self.folder / "out"
        self.killed = 0
        self.redelivered = 0

    @property
    def state(self) -> Path:
        """Where the store is."""
        return self.folder / ".connector" / "test"

    def pipeline(self) -> dict[str, Any]:
        """See the module."""
        plan = self.plan
        counter = (str(self.folder / "counter"),) if plan.resume == "live" else ()
        command = [
            sys.executable, str(SOURCE), plan.resume, str(plan.messages), str(plan.rate_per_s), str(self.go), *counter
        ]  # fmt: skip
        kinds = {"kind": "durable", "durability": plan.durability, "capacity": plan.capacity}
        middles = [
            {"command": ["cat"], "contract": contract, "replicas": replicas}
            for contract, replicas in zip(plan.middles, plan.replicas, strict=False)
        ]
        acknowledges = ("--ack",) if plan.last == "one-to-one" else ()
        return chain(
            dict.fromkeys(CHANNELS, kinds),
            source={"command": command, "resume": plan.resume},
            one=middles[0],
            two=middles[1],
            sink={
                "command": sink(self.out, "--read", 4096, "--lines", *acknowledges),
                "contract": plan.last,
                "replicas": plan.replicas[2],
            },
        )

    def run(self) -> None:
        """All kills, then let it go on to its end, and compare."""
        while self.killed < self.plan.kills:
            assert self.kill_one(), f"it ended before it was killed {self.plan.kills} times"
            self.look()
        self.finish()

    def kill_one(self) -> bool:
        """Start it, kill the runner at a random moment; False: it had ended."""
        with self.connector.start(self.pipeline(), "--quiet") as running:
            if self.chance.random() < 0.15:
                time.sleep(self.chance.uniform(0.05, 0.5))
            else:
                before = self.arrived()
                until(
                    lambda: running.process.poll() is not None or self.arrived() > before,
                    f"a message at the sink\n{running.output()}",
                    START_LIMIT_S,
                )
                time.sleep(self.chance.uniform(0, 0.2))
            if running.process.poll() is not None:
                raise AssertionError(f"it ended by itself:\n{running.finish()}")
            running.process.kill()
            running.process.wait()
            self.killed += 1
        return True

    def arrived(self) -> int:
        """Bytes at the sink."""
        return self.out.stat().st_size if self.out.exists() else 0

    def look(self) -> None:
        """Compare what is in the store with what was there before, and with what the messages say."""
        if not (self.state / "version").exists():
            return  # killed before there was one
        where = f"{self.plan}, after kill {self.killed}"
        inspection = check_store(self.state, each_record=self._record)
        assert not inspection.damages, f"{where}: {inspection.damages}"
        self.seen.inspection = inspection
        for channel in CHANNELS:
            found = self.seen.messages[channel]
            assert len(set(found.values())) == len(found), f"{where}: doubled in {channel}: {doubled(found)}"
        for channel in CHANNELS:
            cursor = self.seen.cursor(channel)
            assert cursor.begun == 0, f"{where}: {channel} {cursor}"
            if self.contract(channel) != "stream":
                assert (cursor.indeterminate, cursor.claimed) == (0, ()), f"{where}: {channel} {cursor}"
        for channel, following in (("c1", "c2"), ("c2", "c3")):
            if self.contract(channel) == "one-to-one":
                acknowledged = self.seen.cursor(channel).acknowledged
                assert acknowledged == self.seen.last(following), f"{where}: {acknowledged} of {channel} are answered"

    def contract(self, channel: str) -> str:
        """That of its reader."""
        return dict(zip(CHANNELS, (*self.plan.middles, self.plan.last), strict=True))[channel]

    def _record(self, channel: str, record: Record) -> None:
        lines = bytes(record.data).splitlines()
        assert len(lines) == record.count
        found = self.seen.messages[channel]
        for number, line in enumerate(lines, record.first):
            said = int(line[:10])
            assert len(line) == 11 + said % 90, f"{channel} {number}: {line!r} is torn"
            assert found.setdefault(number, said) == said, f"{channel} {number} was {found[number]} and is {said}"
            if self.plan.same_numbers:
                assert said == number, f"{self.plan}, kill {self.killed}: message {number} of {channel} is {said}"

    def finish(self) -> Result:
        """Let it go on to its end; compare the sink's file, and the report with the last look."""
        self.go.touch()
        with self.connector.start(self.pipeline(), "--quiet") as running:
            result = running.finish(FINISH_LIMIT_S)
        report = result.completed()
        assert not (self.state / "data.mdb").exists() or not check_store(self.state).heads["c1"].last
        for channel in CHANNELS:
            account = report["channels"][channel]["readers"][READERS[channel]]
            told = f"{self.plan}: {channel} {self.seen.cursor(channel)}\n{result}"
            assert account["carried"] == self.seen.open(channel), told
            assert account["indeterminate"] == self.seen.limbo(channel), told
            assert account["unread"] == account["dead"] == account["dropped"] == 0, told
        self.compare(result)
        return result

    def compare(self, result: Result) -> None:
        """What is at the sink with what was in the first channel."""
        lines = self.out.read_bytes().splitlines()
        numbers = [int(line[:10]) for line in lines]
        assert all(len(line) == 11 + number % 90 for line, number in zip(lines, numbers, strict=True)), "torn"
        distinct = set(numbers)
        self.redelivered = len(numbers) - len(distinct)
        came = {name: self.seen.last(name) + result.channel(name)["written"] for name in CHANNELS}
        lost = came["c1"] - len(distinct)
        indeterminate = {
            name: self.seen.cursor(name).indeterminate + self.seen.cursor(name).handed_out for name in CHANNELS
        }
        told = f"{self.plan}: {self.killed} kills, {came} came, {lost} lost, {indeterminate} indeterminate"
        print(f"{told}, {self.redelivered} stored again by the sink")
        if self.plan.resume != "live":
            assert came["c1"] == self.plan.messages, told
            assert distinct <= set(range(1, came["c1"] + 1)), told
        assert 0 <= lost <= sum(indeterminate.values()), told
        if self.plan.exact:
            assert came["c1"] == came["c2"] == came["c3"], told
        if self.plan.last == "stream":
            assert not self.redelivered, f"{told}: a stream program was given messages twice"


def doubled(found: dict[int, int]) -> list[int]:
    """Messages that have more than one number."""
    return [said for said, count in Counter(found.values()).items() if count > 1]
