"""What all benchmarks share: building the programs, running them below the runner or on bare pipes, interleaving."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tomli_w

HERE = Path(__file__).parent
PROJECT = HERE.parent
RUNNER = [sys.executable, "-m", "runner"]
LIMIT_S = 300.0
NS = 1e9


def build() -> None:
    """Compile bench/src into bench/bin, what is older than its source."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    (HERE / "bin").mkdir(exist_ok=True)
    for source in sorted((HERE / "src").glob("*.c")):
        target = HERE / "bin" / source.stem
        if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
            continue
        if compiler is None:
            raise SystemExit("the benchmarks are C programs; install a C compiler (cc)")
        subprocess.run([compiler, "-O2", "-D_GNU_SOURCE", "-o", str(target), str(source)], check=True)


def program(name: str, *arguments: object) -> list[str]:
    """The command of one of the programs in bench/src."""
    return [str(HERE / "bin" / name), *map(str, arguments)]


@dataclass(frozen=True)
class Taken:
    """What a sink saw: lines, bytes, and CLOCK_MONOTONIC ns of its first and last byte."""

    lines: int
    bytes: int
    first_ns: int
    last_ns: int

    @property
    def seconds(self) -> float:
        """From the first byte to the last."""
        return (self.last_ns - self.first_ns) / NS


def taken(file: Path) -> Taken:
    """Read what a sink wrote."""
    found = dict(line.split() for line in file.read_text().splitlines())
    return Taken(*(int(found[name]) for name in ("lines", "bytes", "first", "last")))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as path:
        yield Path(path)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    """That of an installed command: with its bytecode, which PYTHONDONTWRITEBYTECODE would compile anew each time."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(PROJECT)}


class Run:
    """One run of a pipeline below the runner; a context manager that ends what it started."""

    def __init__(
        self, at: Path, processors: Mapping[str, Any], channels: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        self.at = at
        file = at / "pipeline.toml"
        document = {"name": "bench", **more, "processors": processors, "channels": channels or {}}
        file.write_text(tomli_w.dumps(document))
        self.report = at / "report.json"
        self.report.unlink(missing_ok=True)
        command = [*RUNNER, "run", str(file), "--quiet", "--report", str(self.report)]
        self.began_ns = time.monotonic_ns()
        self.process = subprocess.Popen(command, cwd=at, env=environment(), stdin=subprocess.DEVNULL)
        self.runner = psutil.Process(self.process.pid)

    def __enter__(self) -> Run:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            left = self.runner.children(recursive=True)
            self.process.kill()
            self.process.wait()
            for child in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

    def end(self, *, code: int = 0) -> None:
        """Wait for the end."""
        ended = self.process.wait(LIMIT_S)
        if ended != code:
            raise SystemExit(f"the run ended with {ended} where {code} was due; its files: {self.at}")

    def finish(self, *, code: int = 0) -> dict[str, Any]:
        """Wait for the end; the report of a run whose ledger balances."""
        self.end(code=code)
        report: dict[str, Any] = json.loads(self.report.read_text())
        if not report["balanced"]:
            raise SystemExit("the ledger does not balance")
        return report

    def stop(self, code: int = 143) -> dict[str, Any]:
        """End an endless run in order."""
        self.process.terminate()
        return self.finish(code=code)

    def running(self, command: list[str]) -> psutil.Process:
        """The process below the runner that runs this command."""
        found: list[psutil.Process] = []

        def look() -> bool:
            for child in self.runner.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.cmdline() == command:
                        found.append(child)
                        return True
            return False

        wait_until(look, f"{command} to start")
        return found[0]

    def resident_bytes(self) -> int:
        """The runner's own resident memory now."""
        return int(self.runner.memory_info().rss)


def wait_until(condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    """Wait for an event; ends the benchmark where it does not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {within_s} s in vain for {what}")
        time.sleep(0.005)


def chain(*commands: list[str], **of_middles: Any) -> dict[str, Any]:
    """Processors p0, p1, … one after the other, joined by c1, c2, …; `of_middles` is put into those between."""
    processors: dict[str, Any] = {}
    for index, command in enumerate(commands):
        spec: dict[str, Any] = {"command": command}
        if index > 0:
            spec["reads"] = f"c{index}"
        if index < len(commands) - 1:
            spec["writes"] = f"c{index + 1}"
        if 0 < index < len(commands) - 1:
            spec |= of_middles
        processors[f"p{index}"] = spec
    return processors


def started(*commands: list[str]) -> list[subprocess.Popen[bytes]]:
    """Programs joined by pipes as a shell joins them."""
    before: int | None = None
    processes: list[subprocess.Popen[bytes]] = []
    for index, command in enumerate(commands):
        last = index == len(commands) - 1
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if before is None else before,
            stdout=None if last else subprocess.PIPE,
        )
        if before is not None:
            os.close(before)
        before = None
        if process.stdout is not None:
            before = os.dup(process.stdout.fileno())
            process.stdout.close()
        processes.append(process)
    return processes


def bare(*chains: list[list[str]]) -> None:
    """Each chain of programs joined by pipes, all at the same time; returns when all have ended as they should."""
    for process in [process for commands in chains for process in started(*commands)]:
        if process.wait(LIMIT_S) != 0:
            raise SystemExit(f"{process.args!r} failed")


@dataclass(frozen=True)
class Ratio:
    """Ours over the peer's, round by round."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """One per round."""
        return [mine / other for mine, other in zip(self.ours, self.peer, strict=True)]

    @property
    def median(self) -> float:
        """Of the ratios."""
        return statistics.median(self.ratios)

    def text(self) -> str:
        """Median [min-max]."""
        return f"{self.median:.2f} [{min(self.ratios):.2f}-{max(self.ratios):.2f}]"


def interleave(ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> Ratio:
    """Run ours, the peer's, ours, the peer's, … after one round of each that does not count."""
    ours()
    peer()
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return Ratio(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))
