"""`connector run FILE` of a pipeline with several runners: each in a process of its own, here, as one run.

Every part is this command again with `--runner NAME`. What it says goes to our own standard error, each line with the
runner's name before it. When one part fails the others are stopped in order; when we die they end at once. A part takes
a second signal for "now", so each is told to stop once, whatever comes together: several parts that fail, a failure and
a signal. Only a person who sends a second signal has it passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from runner.errors import EXIT_COMPLETED, EXIT_SIGNAL_BASE
from runner.spec.load import LoadedPipeline

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LINE_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `connector run` was asked for: its argument and options, which each part gets too."""

    file: Path
    report: Path | None
    log_format: str
    home: str | None
    state_dir: Path | None
    quiet: bool
    fresh: bool
    locked: bool

    def command(self, runner: str) -> list[str]:
        """The command of the part that `runner` has."""
        report = None if self.report is None else report_of(self.report, runner)
        valued = {"--report": report, "--log-format": self.log_format, "--home": self.home}
        valued |= {"--state-dir": self.state_dir, "--runner": runner}
        flags = {"--quiet": self.quiet, "--fresh": self.fresh, "--locked": self.locked}
        words = [f"{name}={value}" for name, value in valued.items() if value is not None]
        words += [name for name, given in flags.items() if given]
        # -P: a folder called `runner` where we are is not this program
        return [sys.executable, "-P", "-m", "runner", "run", *words, "--", str(self.file)]


def run_all(loaded: LoadedPipeline, wanted: Wanted) -> int:
    """Run every part to its end; the exit code is the worst of theirs, or that of the signal which stopped all."""
    for warning in loaded.warnings if not wanted.quiet else ():
        click.echo(f"connector: {warning}", err=True)
    return asyncio.run(_Parts(list(loaded.pipeline.runners), wanted).run())


def report_of(path: Path, runner: str) -> Path:
    """Where the report of one part goes: report.json and report.edge.json."""
    return path.with_name(f"{path.stem}.{runner}{path.suffix}")


class _Parts:
    """The processes of one run."""

    def __init__(self, runners: list[str], wanted: Wanted) -> None:
        self._runners = runners
        self._wanted = wanted
        self._width = max(map(len, runners))
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._codes: dict[str, int] = {}
        self._signal: signal.Signals | None = None
        """The first that we were sent; the parts may have been stopped before it."""
        self._stopping: signal.Signals | None = None
        """What every part has been told, once."""
        self._now = False

    async def run(self) -> int:
        """Start all, wait for all."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        try:
            async with asyncio.TaskGroup() as group:
                for runner in self._runners:
                    group.create_task(self._one(runner))
        finally:
            for process in self._processes.values():
                if process.returncode is None:
                    process.kill()
        if self._signal is not None and all(code == EXIT_SIGNAL_BASE + self._signal for code in self._codes.values()):
            return EXIT_SIGNAL_BASE + self._signal
        failed = [code for code in self._codes.values() if code not in {EXIT_COMPLETED, *_orderly()}]
        return max(failed, default=max(self._codes.values()))

    async def _one(self, runner: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._wanted.command(runner),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            preexec_fn=_die_with(os.getpid()),
            start_new_session=True,
        )
        self._processes[runner] = process
        if self._now:
            process.kill()
        elif self._stopping is not None:
            _tell(process, self._stopping)
        assert process.stderr is not None
        await self._copy(runner, process.stderr)
        code = await process.wait()
        self._codes[runner] = EXIT_SIGNAL_BASE - code if code < 0 else code
        others = [each for name, each in self._processes.items() if name != runner and each.returncode is None]
        if code != EXIT_COMPLETED and self._stopping is None:
            after = ": the others are stopped" if others else ""
            self._say(runner, f"its runner ended with exit code {self._codes[runner]}{after}")
            self._drain(signal.SIGTERM)

    async def _copy(self, runner: str, said: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await said.readline()
            except ValueError:  # longer than the limit; what was read of it is gone
                continue
            if not line:
                return
            self._say(runner, line.decode(errors="replace").rstrip("\n"))

    def _say(self, runner: str, line: str) -> None:
        if self._wanted.log_format == "json":
            with contextlib.suppress(ValueError):
                click.echo(json.dumps({"runner": runner, **json.loads(line)}, ensure_ascii=False), err=True)
                return
        click.echo(f"{runner:{self._width}} | {line}", err=True)

    def _stop(self, number: signal.Signals) -> None:
        """We were sent a signal: the first lets all drain, unless they do already; the next ends them at once."""
        if self._signal is None:
            self._signal = number
            self._drain(number)
            return
        self._now = True
        for process in self._processes.values():
            _tell(process, number)

    def _drain(self, number: signal.Signals) -> None:
        if self._stopping is None:
            self._stopping = number
            for process in self._processes.values():
                _tell(process, number)


def _tell(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


def _orderly() -> set[int]:
    """What a part ends with that was stopped in order."""
    return {EXIT_SIGNAL_BASE + number for number in _STOP_SIGNALS}


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before it is our command: it gets SIGKILL when we die, and its programs with it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return set_death_signal
