"""`connector run FILE` of a pipeline with several runners: each in a process of its own, here, as one run.

Every part is this command again with `--runner NAME`. What it says goes to our own standard error, each line with the
runner's name before it. When one part fails the others are stopped in order; when we die they end at once.
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
from pathlib import Path

import click

from runner.errors import EXIT_COMPLETED, EXIT_SIGNAL_BASE
from runner.spec.load import LoadedPipeline

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LINE_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1


def run_all(loaded: LoadedPipeline, report: Path | None, *, quiet: bool, log_format: str) -> int:
    """Run every part to its end; the exit code is the worst of theirs, or that of the signal which stopped all."""
    parts = _Parts(list(loaded.pipeline.runners), report, as_json=log_format == "json")
    for warning in loaded.warnings if not quiet else ():
        click.echo(f"connector: {warning}", err=True)
    return asyncio.run(parts.run())


def report_of(path: Path, runner: str) -> Path:
    """Where the report of one part goes: report.json and report.edge.json."""
    return path.with_name(f"{path.stem}.{runner}{path.suffix}")


class _Parts:
    """The processes of one run."""

    def __init__(self, runners: list[str], report: Path | None, *, as_json: bool) -> None:
        self._runners = runners
        self._report = report
        self._as_json = as_json
        self._width = max(map(len, runners))
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._codes: dict[str, int] = {}
        self._signal: signal.Signals | None = None

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
            sys.executable,
            "-m",
            "runner",
            *_arguments(sys.argv[1:], runner, self._report),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            preexec_fn=_die_with(os.getpid()),
            start_new_session=True,
        )
        self._processes[runner] = process
        if self._signal is not None:
            process.send_signal(self._signal)
        assert process.stderr is not None
        await self._copy(runner, process.stderr)
        code = await process.wait()
        self._codes[runner] = EXIT_SIGNAL_BASE - code if code < 0 else code
        if code != EXIT_COMPLETED and self._signal is None:
            self._say(runner, f"its runner ended with exit code {self._codes[runner]}: the others are stopped")
            self._send(signal.SIGTERM)

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
        if self._as_json:
            with contextlib.suppress(ValueError):
                click.echo(json.dumps({"runner": runner, **json.loads(line)}, ensure_ascii=False), err=True)
                return
        click.echo(f"{runner:{self._width}} | {line}", err=True)

    def _stop(self, number: signal.Signals) -> None:
        self._signal = self._signal or number
        self._send(number)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)


def _orderly() -> set[int]:
    """What a part ends with that was stopped in order."""
    return {EXIT_SIGNAL_BASE + number for number in _STOP_SIGNALS}


def _arguments(given: list[str], runner: str, report: Path | None) -> list[str]:
    """What this command was called with, for one part of it."""
    arguments = [*given, "--runner", runner]
    for index, word in enumerate(given):
        if report is None:
            break
        if word == "--report":
            arguments[index + 1] = str(report_of(report, runner))
        elif word.startswith("--report="):
            arguments[index] = f"--report={report_of(report, runner)}"
    return arguments


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before it is our command: it gets SIGKILL when we die, and its programs with it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return set_death_signal
