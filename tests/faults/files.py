"""Kills runners that write files, and reads the files after each kill.

What is in them has to be the beginning of what was sent, byte by byte; only its end may be torn, until the next run has
cut that off. When the run has been let go on to its end it is all of what was sent.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.channel.file_plan import full_number
from tests.e2e.connector import Connector, Result, Running, until

SOURCE = Path(__file__).with_name("numbered.py")
START_LIMIT_S = 30.0
FINISH_LIMIT_S = 120.0
ROTATE = {"size": "16KiB"}
PACED = """
import sys, time
for number, line in enumerate(sys.stdin.buffer, 1):
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
    if number % 50 == 0:
        time.sleep(50 / float(sys.argv[1]))
"""
"""A file is all there at once: whoever answers its messages takes the time that a source would."""


@dataclass(frozen=True)
class Plan:
    """What is run and how often its runner is killed; `begins` is where the messages come from."""

    seed: int
    kills: int
    begins: str = "skip"
    """A processor with this `resume`, or "file" (read once), "follow" (read as it grows and is exchanged)."""
    durability: str = "process"
    replicas: int = 1
    rate_per_s: int = 6_000

    def __str__(self) -> str:
        return f"{self.begins} {self.durability} x{self.replicas}"

    @property
    def messages(self) -> int:
        """How many there are in all: enough for all kills."""
        return self.rate_per_s * (self.kills + 2) // 3


def message(number: int) -> bytes:
    """As numbered.py writes it."""
    return b"%010d %s\n" % (number, b"x" * (number % 90))


def files_of(path: Path) -> list[Path]:
    """The full files of `path` and itself, in order; those that are there."""
    found = [(full_number(path.name, each.name), each) for each in path.parent.iterdir()]
    return [each for _, each in sorted((n, each) for n, each in found if n is not None)] + [path] * path.exists()


class Kills:
    """One pipeline whose runner is killed again and again."""

    def __init__(self, connector: Connector, plan: Plan) -> None:
        self.connector = connector
        self.plan = plan
        self.folder = connector.folder
        self.chance = random.Random(plan.seed)
        self.go = self.folder / "go"
        self.out, self.fed = self.folder / "out" / "out.log", self.folder / "in" / "in.log"
        for each in (self.out, self.fed):
            each.parent.mkdir()
        self.due = b"".join(map(message, range(1, plan.messages + 1)))
        self.fed_bytes = self.cut_files = 0
        if plan.begins == "file":
            self.fed.write_bytes(self.due)

    def pipeline(self) -> dict[str, Any]:
        """See the module."""
        plan = self.plan
        kind = {"durability": plan.durability, "capacity": "64KiB"}
        middle: dict[str, Any] = {"command": ["cat"], "contract": "one-to-one", "replicas": plan.replicas}
        if plan.begins == "file":
            middle["command"] = [sys.executable, "-c", PACED, str(plan.rate_per_s)]
        processors = {"middle": middle | {"reads": "c1", "writes": "c2"}}
        first: dict[str, Any] = {"kind": "durable"}
        if plan.begins in {"file", "follow"}:
            first = {"kind": "file", "path": str(self.fed), "follow": plan.begins == "follow"}
        else:
            command = [sys.executable, str(SOURCE), plan.begins, str(plan.messages), str(plan.rate_per_s), str(self.go)]
            processors["source"] = {"command": command, "resume": plan.begins, "writes": "c1"}
        last = {"kind": "file", "path": str(self.out), "rotate": ROTATE}
        return {"processors": processors, "channels": {"c1": first | kind, "c2": last | kind}}

    def run(self) -> None:
        """All kills, then let it go on to its end, and compare."""
        for killed in range(1, self.plan.kills + 1):
            self.kill_one()
            self.look(f"{self.plan}, after kill {killed}")
        self.finish()
        print(f"{self.plan}: {self.plan.kills} kills, {self.plan.messages} messages in {self.cut_files + 1} files")

    def kill_one(self) -> None:
        """Start it, kill the runner at a random moment."""
        with self.connector.start(self.pipeline(), "--quiet") as running:
            if self.chance.random() < 0.15:
                self.while_(running, self.chance.uniform(0.05, 0.5))
            else:
                before = len(self.written())
                until(lambda: self.moved(running, before), "messages", START_LIMIT_S)
                self.while_(running, self.chance.uniform(0, 0.2))
            if running.process.poll() is not None and self.written() != self.due:
                raise AssertionError(f"it ended by itself:\n{running.finish()}")
            running.process.kill()
            running.process.wait()

    def moved(self, running: Running, before: int) -> bool:
        """Whether more is in the files than there was, or nothing more can come; it is fed."""
        self.feed()
        written = self.written()
        return running.process.poll() is not None or len(written) > before or written == self.due

    def while_(self, running: Running, for_s: float) -> None:
        """Let it run, and feed it."""
        ends = time.monotonic() + for_s
        while time.monotonic() < ends and running.process.poll() is None:
            self.feed()
            time.sleep(0.005)

    def feed(self, *, all_of_it: bool = False) -> None:
        """Let the file that is followed grow, and now and then exchange it for another, once it is being followed."""
        if self.plan.begins != "follow":
            return
        more = len(self.due) if all_of_it else self.chance.randrange(1_500)
        with self.fed.open("ab") as file:
            file.write(self.due[self.fed_bytes : self.fed_bytes + more])
        self.fed_bytes = min(len(self.due), self.fed_bytes + more)
        whole = self.due[: self.fed_bytes].endswith(b"\n")
        if whole and self.chance.random() < 0.5 and (self.cut_files or self.written()):
            self.cut_files += 1
            self.fed.rename(self.fed.with_name(f"in.log.{self.cut_files:06d}"))

    def written(self) -> bytes:
        """What is in the files now; looked at again when one got another name meanwhile."""
        while True:
            names = files_of(self.out)
            try:
                found = b"".join(each.read_bytes() for each in names)
            except FileNotFoundError:
                continue
            if names == files_of(self.out):
                return found

    def look(self, where: str) -> None:
        """What there is, is the beginning of what was sent."""
        found = [(each, each.read_bytes()) for each in files_of(self.out)]
        written = b"".join(data for each, data in found if not self._twice(each))
        assert written == self.due[: len(written)], f"{where}: not what was sent, of {len(written):,} bytes"
        self.cut_files = max(self.cut_files, len(found) - 1)

    def _twice(self, each: Path) -> bool:
        """Whether it is the current file under the name that it is about to get."""
        return each != self.out and self.out.exists() and each.samefile(self.out)

    def finish(self) -> Result:
        """Let it go on to its end; compare."""
        self.go.touch()
        follows = self.plan.begins == "follow"
        with self.connector.start(self.pipeline(), "--quiet") as running:
            if follows:
                self.feed(all_of_it=True)
                until(lambda: self.moved(running, len(self.due)), "all messages", FINISH_LIMIT_S)
                running.signal(signal.SIGTERM)
            result = running.finish(FINISH_LIMIT_S)
        if follows:
            result.expect(143, "stopped")
        else:
            result.completed()
        assert self.written() == self.due, f"{self.plan}, at the end: not what was sent\n{result}"
        for each in files_of(self.out):
            assert each.stat().st_size <= 16 << 10
            assert each.read_bytes().endswith(b"\n")
        return result
