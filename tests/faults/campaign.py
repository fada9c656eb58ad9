"""Runs a random pipeline under its schedule of kills, then compares every sink and channel with what was sent.

The sources go only as far as they are told, so that there is always something on its way when somebody dies, and as
much as the machine can carry. After each kill of the runner the store is looked into.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from runner.codec.base import Batch
from runner.codec.registry import codec_named
from runner.store import Inspection, Record, check_store
from tests.children.messages import unframe
from tests.e2e.connector import Connector, Result, Running, until
from tests.faults.files import files_of
from tests.faults.kept import File, Seen
from tests.faults.relay import Living, Relay, kill, living
from tests.faults.schedule import ENGINE, Act, Life, Schedule, Victim
from tests.faults.topology import Topology, target
from tests.launch.private_engine import PrivateEngine

START_LIMIT_S = 60.0
FINISH_LIMIT_S = 120.0
KILL_LIMIT_S = 30.0
KINDS = ("processors", "channels")
MEANWHILE = 5
MOST_BEHIND = 20_000
"""So many messages may be on their way before the sources are held up."""


@dataclass(frozen=True)
class Plan:
    """One pipeline and its schedule; `again` is the command that has it once more."""

    seed: int
    topology: Topology
    schedule: Schedule
    again: str

    def __str__(self) -> str:
        return f"{self.topology}\n{self.schedule}"


@dataclass(frozen=True)
class Outcome:
    """What was done, and how long it took."""

    victims: int
    engines: int
    runners: int
    sent: int
    sinks: int
    stored_again: int
    took_s: float

    @property
    def figures(self) -> dict[str, int]:
        """What can be added up."""
        return {
            "programs and shims killed": self.victims,
            "runners killed": self.runners,
            "engines killed": self.engines,
            "messages sent": self.sent,
            "messages kept by sinks": self.sent * self.sinks,
        }

    def __str__(self) -> str:
        killed = f"{self.victims} programs and shims, {self.runners} runners, {self.engines} engines killed"
        sent = f"{self.sent} messages sent to {self.sinks} sinks, 0 lost, 0 doubled, {self.stored_again} stored again"
        return f"{killed}; {sent}; {self.took_s:.1f} s"


class Campaign:
    """One plan, in the folder of its `connector`; its containers are those of `engine` (None: the machine's).

    `patience_s` is how long messages that are missing at the end are waited for.
    """

    def __init__(
        self,
        connector: Connector,
        relay: Relay,
        plan: Plan,
        *,
        engine: PrivateEngine | None = None,
        patience_s: float = FINISH_LIMIT_S / 2,
    ) -> None:
        self._patience_s = patience_s
        self._connector = connector
        self._relay = relay
        self._plan = plan
        self._engine = engine
        self._folder = connector.folder
        self._topology = plan.topology
        self._marks = {self._topology.mark(part).encode(): part.name for part in self._topology.parts}
        self._chance = random.Random(plan.seed)
        self._sent = {part.origin: 0 for part in self._topology.sources}
        self._files = {part.name: File(self._folder / part.name) for part in self._topology.sinks}
        self._seen = {name: Seen(name) for name in self._topology.channels}
        self._inspection = Inspection()
        self._hit: set[Living] = set()
        self._killed: Counter[str] = Counter()
        (self._folder / "files").mkdir()
        self._tell(final=False)

    def run(self) -> Outcome:
        """All of it. Raises AssertionError, which says how to have it again."""
        began = time.monotonic()
        try:
            for life in self._plan.schedule.lives:
                result = self._live(life)
            assert result is not None
            self._compare(result)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._report()}") from error
        return Outcome(
            victims=self._killed.total() - self._killed[ENGINE],
            engines=self._killed[ENGINE],
            runners=self._plan.schedule.runners,
            sent=sum(self._sent.values()),
            sinks=len(self._files),
            stored_again=sum(len(file.lines) - len(file.origins) for file in self._files.values()),
            took_s=time.monotonic() - began,
        )

    def _report(self) -> str:
        pipeline = self._topology.pipeline(self._folder, self._relay)
        parts = [f"{kind}.{name}: {json.dumps(each)}" for kind in KINDS for name, each in pipeline[kind].items()]
        killed = f"killed: {dict(self._killed)}"
        return "\n--- ".join(["", str(self._plan), killed, *parts, f"again: {self._plan.again}"])

    # -- one run of the runner

    def _start(self) -> Running:
        pipeline = self._topology.pipeline(self._folder, self._relay)
        environment = {} if self._engine is None else {"DOCKER_HOST": self._engine.host}
        return self._connector.start(pipeline, "--quiet", environment=environment)

    def _live(self, life: Life) -> Result | None:
        """The report of the last life; None of one that was cut short."""
        with self._start() as running:
            if not life.early:
                self._begun(running)
            for act in life.acts:
                self._act(running, act)
            if life.killed_after_s is None:
                return self._last(running)
            time.sleep(life.killed_after_s)
            self._kill(running)
        self._look(complete=False)
        return None

    def _begun(self, running: Running) -> None:
        """Wait for a message that was not there before."""
        self._send(self._chance.randint(50, 200))
        before = self._size()
        until(lambda: self._size() > before or self._ended(running), "a message at a sink", START_LIMIT_S)

    def _kill(self, running: Running) -> None:
        """Kill the runner, and wait for its programs to be gone."""
        assert not self._ended(running), f"it ended by itself:\n{running.finish()}"
        running.process.kill()
        running.process.wait()
        until(lambda: not any(living(self._marks).values()), "its programs to be gone")

    @staticmethod
    def _ended(running: Running) -> bool:
        return running.process.poll() is not None

    def _size(self) -> int:
        return sum(file.size_bytes for file in self._files.values())

    # -- what is sent

    def _send(self, messages: int) -> None:
        """Let the sources go further, unless too much is under way."""
        for letter in self._sent:
            arrived = min(self._arrived(letter).values(), default=0)
            if self._sent[letter] - arrived < MOST_BEHIND:
                self._sent[letter] += messages
        self._tell(final=False)

    def _arrived(self, letter: str) -> dict[str, int]:
        """How many messages of that source each sink has, at least."""
        if self._sent[letter] < MOST_BEHIND:
            return {}
        files = [file for name, file in self._files.items() if not name.startswith("held-")]
        return {file.path.name: file.read_on() // len(self._sent) for file in files}

    def _tell(self, *, final: bool) -> None:
        for part in self._topology.sources:
            descriptor = os.open(target(self._folder, part), os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(descriptor, b"%012d %d\n" % (self._sent[part.origin], final), 0)
            finally:
                os.close(descriptor)

    # -- who is killed

    def _act(self, running: Running, act: Act) -> None:
        time.sleep(act.pause_s)
        self._send(act.messages)
        for victim in act.victims:
            if victim.processor == ENGINE:
                assert self._engine is not None
                self._engine.kill()
                self._engine.start()
                self._killed[ENGINE] += 1
            else:
                self._kill_one(running, victim)

    def _kill_one(self, running: Running, victim: Victim) -> None:
        deadline = time.monotonic() + KILL_LIMIT_S
        while True:
            assert not self._ended(running), f"it ended by itself:\n{running.finish()}"
            assert time.monotonic() < deadline, f"no {victim} for {KILL_LIMIT_S} s:\n{running.output()}"
            found = [each for each in living(self._marks)[victim.processor] if each not in self._hit]
            if not found:
                time.sleep(0.002)
                self._send(MEANWHILE)  # the program of a batch lives only while there is one
                continue
            chosen = found[victim.replica % len(found)]
            if victim.stopped_s and kill(chosen, number=signal.SIGSTOP):
                self._send(MEANWHILE)  # what it will never read
                time.sleep(victim.stopped_s)
            if kill(chosen, victim.above):
                self._hit.add(chosen)
                self._killed[f"{victim.processor}{'^' * victim.above}"] += 1
                return

    # -- the end

    def _last(self, running: Running) -> Result:
        """Let it carry all there is; look into the store where that is possible; let it end."""
        self._tell(final=True)
        if not self._topology.held:
            return running.finish(FINISH_LIMIT_S)
        due = sum(self._sent.values())
        files = [file for name, file in self._files.items() if not name.startswith("held-")]
        with contextlib.suppress(AssertionError):  # what is missing is told by the comparison
            until(
                lambda: self._ended(running) or all(file.read_on() == due for file in files),
                "all messages at all sinks",
                self._patience_s,
            )
        self._kill(running)
        self._look(complete=True)
        self._export()
        letters = self._connector.command("dead-letters", "list", str(self._folder / "pipeline.toml"))
        assert (letters.code, letters.stdout) == (0, ""), f"innocent dead letters\n{letters}"
        (self._folder / "gate").touch()
        with self._start() as again:
            return again.finish(FINISH_LIMIT_S)

    def _look(self, *, complete: bool) -> None:
        """What is in the store, compared with what was there before, and with what was sent."""
        state = self._folder / ".connector" / "test"
        if not (state / "version").exists():
            return  # killed before there was one
        self._inspection = check_store(state, each_record=self._record)
        assert not self._inspection.damages, self._inspection.damages
        found = []
        for name, seen in self._seen.items():
            if name in self._topology.files:
                continue  # what is in the store of it is what is not in its file
            whole = complete and name in self._topology.held
            found += seen.faults(self._sent, ordered=name in self._topology.ordered, complete=whole)
        for (name, reader), cursor in self._inspection.cursors.items():
            if cursor.begun or cursor.indeterminate or cursor.dead or cursor.dropped or cursor.claimed:
                found.append(f"{name} for {reader}: {cursor}")
        assert not found, "\n".join(found)

    def _record(self, channel: str, record: Record) -> None:
        if channel in self._topology.files:
            return
        for number, payload in enumerate(_payloads(record), record.first):
            self._seen[channel].add(number, payload)

    def _export(self) -> None:
        """The channels before the sinks, as `connector state export` has them: each message once."""
        file = str(self._folder / "pipeline.toml")
        for name in self._topology.held:
            result = self._connector.command("state", "export", file, "--channel", name, "--format", "json")
            assert result.code == 0, str(result)
            exported = Seen(f"export of {name}")
            for line in result.stdout.splitlines():
                entry = json.loads(line)
                exported.add(entry["number"], entry["payload"].encode())
            found = exported.faults(self._sent, ordered=name in self._topology.ordered)
            assert not found, "\n".join(found)

    def _compare(self, result: Result) -> None:
        """The report, and every sink."""
        found = [*self._wrong_at_sinks(), *self._wrong_in_files()]
        assert not found, "\n".join([*found, str(result)])
        for name, channel in result.completed()["channels"].items():
            for reader, account in channel["readers"].items():
                cursor = self._inspection.cursors.get((name, reader))
                carried = 0
                if cursor is not None:
                    ranges = cursor.open_ranges(self._inspection.heads[name].last)
                    carried = sum(last - first + 1 for first, last in ranges)
                due = {"carried": carried, "acknowledged": carried + channel["written"]}
                if name in self._topology.files:
                    continue  # how many were in the file already nobody can see from here
                terms = {term: count for term, count in account.items() if count}
                if terms != {term: count for term, count in due.items() if count}:
                    found.append(f"{name} for {reader}: {terms}, and due was {due} of {channel['written']} written")
        assert not found, "\n".join([*found, str(result)])

    def _wrong_at_sinks(self) -> list[str]:
        found = []
        killed = {victim.processor for life in self._plan.schedule.lives for act in life.acts for victim in act.victims}
        for part in self._topology.sinks:
            again = part.program != "held" and (part.name in killed or self._plan.schedule.runners > 0)
            again = again or (part.program != "held" and self._topology.held != ())  # the runner is killed at the end
            ordered = part.reads in self._topology.ordered
            found += self._files[part.name].faults(self._sent, ordered=ordered, alone=part.replicas == 1, again=again)
        return found

    def _wrong_in_files(self) -> list[str]:
        """Each message is there once, whole; whoever was killed."""
        found = []
        for name, codec in self._topology.files.items():
            path = self._folder / "files" / name
            content = b"".join(each.read_bytes() for each in files_of(path))
            got, rest = unframe(content, codec)
            seen = Seen(f"file {name}")
            for number, payload in enumerate(got, 1):
                seen.add(number, payload)
            if rest:
                seen.wrong.append(f"it ends with {rest[:100]!r}")
            found += seen.faults(self._sent, ordered=name in self._topology.ordered)
        return found


def _payloads(record: Record) -> Iterator[bytes]:
    """The messages of a record."""
    codec = codec_named(record.codec)
    for framed in codec.split(Batch((record.data,), record.count, len(record.data))):
        yield codec.payload(framed)
