"""`connector run [FILE]`: run a pipeline to its end."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import traceback
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal

import click

from runner.cli.account import account_options
from runner.errors import (
    EXIT_BUG,
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_SIGNAL_BASE,
    BugError,
    Problem,
    RunnerError,
)
from runner.events import Bus, RunStatus, Warned
from runner.observe import Observer, observer_for
from runner.plan.part import part
from runner.spec.load import load_file
from runner.spec.model import OWN_HOMES, Home
from runner.supervise.memory import keep_freed_memory
from runner.supervise.run import Run
from runner.supervise.snapshot import RunReport
from runner.supervise.state import state_folder

Beside = AbstractAsyncContextManager[object]
"""What lives as long as a run does, on its event loop."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command(name="run")
@click.argument("file", type=click.Path(path_type=Path), default="pipeline.toml")
@account_options
@click.option(
    "--home",
    type=click.Choice([each.value for each in OWN_HOMES]),
    help="Where all processors run that can: a bare process, a sandbox, or a container of their own.",
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where state is kept (default: .connector/NAME).")
@click.option("--runner", metavar="NAME", help="Run the part of this runner only (default: all of them, here).")
@click.option("--locked", is_flag=True, help="Refuse what is not as `connector lock` wrote it down.")
def command(
    file: Path,
    report: Path | None,
    log_format: Literal["text", "json"],
    home: str | None,
    runner: str | None,
    *,
    quiet: bool,
    locked: bool,
    state_dir: Path | None,
    fresh: bool,
) -> int:
    """Run the pipeline in FILE (default: pipeline.toml) until it has completed, failed or been stopped.

    The first SIGINT or SIGTERM drains it in order, a second one ends it at once.
    """
    loaded = load_file(file, home=Home(home) if home else None, runner=runner)
    if runner is None and loaded.pipeline.runners:
        from runner.cli.parts import Wanted, run_all

        return run_all(loaded, Wanted(file, report, log_format, home, state_dir, quiet, fresh, locked))
    pipeline = part(loaded.pipeline, runner)
    if locked:
        from runner.pack.lock import locked as as_locked

        elsewhere = loaded.pipeline.processors.keys() - pipeline.processors.keys()
        pipeline = as_locked(file, pipeline, elsewhere=elsewhere)
    bus = Bus()
    run = Run(pipeline, bus, exclusive=True, state_folder=state_folder(pipeline, state_dir), fresh=fresh)
    return carry_out(run, loaded.warnings, report, log_format=log_format, quiet=quiet)


def carry_out(
    run: Run,
    warnings: Iterable[Problem],
    report: Path | None,
    *,
    log_format: Literal["text", "json"],
    quiet: bool,
    beside: Beside | None = None,
) -> int:
    """Run it to its end in this process, telling a person what happens; the exit code.

    `beside` is entered before the run and left after it.
    """
    if report is not None:
        from runner.observe.report import check_writable

        check_writable(report)
    bus = run.bus
    observer = observer_for(sys.stderr, run.snapshot, log_format=log_format, quiet=quiet)
    bus.subscribe(observer.handle)
    for warning in warnings:
        bus.emit(Warned(message=_in_one_line(warning)))
    gc.freeze()
    gc.enable()
    keep_freed_memory()
    session = _Session(run, observer, beside)
    result: RunReport | None = None
    try:
        result = asyncio.run(session.run())
    except RunnerError:
        _report_of_failure(run, report)
        raise
    except Exception as error:
        _report_of_failure(run, report)
        traceback.print_exc()
        raise BugError(f"{type(error).__name__}: {error}") from error
    finally:
        observer.finish(result)
        observer.sink.close()
    return _write(result, report, session.code(result))


def _in_one_line(warning: Problem) -> str:
    """A warning as a log has it, which says itself that it is one."""
    said, _, remedy = str(warning).replace(": warning: ", ": ", 1).partition("\n")
    return f"{said} ({remedy.strip()})" if remedy else said


class _Session:
    """A run with this process's signals."""

    def __init__(self, run: Run, observer: Observer, beside: Beside | None) -> None:
        self._run = run
        self._observer = observer
        self._beside = beside
        self._signal: signal.Signals | None = None

    async def run(self) -> RunReport:
        """Run it; signals stop it."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        self._observer.start(loop.call_later)
        if self._beside is None:
            return await self._run.execute()
        async with self._beside:
            return await self._run.execute()

    def _stop(self, number: signal.Signals) -> None:
        if self._signal is None:
            self._signal = number
            self._run.stop(f"{number.name} received")
        else:
            self._run.kill()

    def code(self, report: RunReport) -> int:
        """The exit code for how it went."""
        if not report.balanced:
            return EXIT_BUG
        if report.status is RunStatus.COMPLETED:
            return EXIT_COMPLETED
        if report.status is RunStatus.STOPPED:
            return EXIT_SIGNAL_BASE + (self._signal or signal.SIGTERM)  # its containers were stopped, not itself
        return EXIT_FAILED


def _write(result: RunReport, path: Path | None, code: int) -> int:
    if path is None:
        return code
    from runner.observe.report import write_report

    try:
        write_report(result, path)
    except RunnerError as error:
        click.echo(f"connector: {error}", err=True)
        return code or error.exit_code
    return code


def _report_of_failure(run: Run, path: Path | None) -> None:
    """After an error of the run itself: the account as far as it goes."""
    if path is not None:
        _write(run.report(RunStatus.FAILED), path, EXIT_FAILED)
