"""Drives `python -m runner run` as a user would: writes a pipeline file, runs it, reads what came of it.

Everything that is started here is ended here, by process id, also when a test fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import tomli_w

Pipeline = Mapping[str, Any]
RUNNER: tuple[str, ...] = (sys.executable, "-m", "runner")
PROJECT = Path(__file__).resolve().parents[2]
PYTHON_IMAGE = "python:3.13-slim-trixie"
LIMIT_S = 60.0
MARK = "MARK_OF_THE_TEST"
TRACEBACK = re.compile(r"^\W*(Exception Group )?Traceback \(most recent call last\)", re.MULTILINE)
TERMS = ("acknowledged", "dead", "dropped", "indeterminate", "unread")


def until(condition: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
    """Wait for the event that makes `condition` true; its value. Fails with `what` after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {within_s} s in vain for {what}"
        time.sleep(0.002)
    return value


def steady(value: Callable[[], int], what: str, for_s: float = 0.3) -> int:
    """Wait until `value` has stayed as it is for so long; the value."""
    seen = value()
    since = time.monotonic()

    def unchanged() -> bool:
        nonlocal seen, since
        if (now := value()) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > for_s

    until(unchanged, what)
    return seen


@dataclass(frozen=True)
class Result:
    """What became of one `connector` command; `report` is None where none was written."""

    code: int
    stdout: str
    stderr: str
    report: dict[str, Any] | None
    took_s: float

    @property
    def output(self) -> str:
        """Everything that was printed."""
        return self.stdout + self.stderr

    def __str__(self) -> str:
        lines = [f"exit {self.code} after {self.took_s:.1f} s"]
        lines += ["--- stdout", self.stdout[-4000:], "--- stderr", self.stderr[-4000:], "--- report"]
        if self.report is None:
            return "\n".join([*lines, "none"])
        lines += [f"{name}: {self.report[name]}" for name in ("status", "cause", "balanced", "duration_s")]
        for name, processor in self.report["processors"].items():
            exits = [tuple(each["exit"].values()) for each in processor["instances"]]
            shown = {key: value for key, value in processor.items() if key != "instances"}
            lines.append(f"{name}: {shown}, exits {exits}")
        for name, channel in self.report["channels"].items():
            lines += [f"{name} for {reader}: {self.account(name, reader)}" for reader in channel["readers"]]
        return "\n".join(lines)

    def expect(self, code: int, status: str | None = None) -> dict[str, Any]:
        """The report of a run that ended with `code` (and `status`), its ledger checked."""
        assert self.code == code, f"exit {code} was due\n{self}"
        self.expect_no_traceback()
        assert self.report is not None, str(self)
        if status is not None:
            assert self.report["status"] == status, str(self)
        check_ledger(self)
        return self.report

    def expect_no_traceback(self) -> None:
        """Nothing of ours fell over; what a program logs is behind its name."""
        assert not TRACEBACK.search(self.output), str(self)

    def completed(self) -> dict[str, Any]:
        """The report of a completed run."""
        return self.expect(0, "completed")

    def failed(self) -> dict[str, Any]:
        """The report of a failed run."""
        return self.expect(1, "failed")

    def processor(self, name: str) -> dict[str, Any]:
        """What the report says of a processor."""
        assert self.report is not None, str(self)
        found: dict[str, Any] = self.report["processors"][name]
        return found

    def channel(self, name: str) -> dict[str, Any]:
        """What the report says of a channel."""
        assert self.report is not None, str(self)
        found: dict[str, Any] = self.report["channels"][name]
        return found

    def account(self, channel: str, reader: str) -> dict[str, int]:
        """The terms of one reader that are not zero, with the channel's `written`."""
        terms: dict[str, int] = self.channel(channel)["readers"][reader]
        return {"written": self.channel(channel)["written"]} | {name: n for name, n in terms.items() if n}


def check_ledger(result: Result) -> None:
    """The equation of every reader, and that the report says so."""
    assert result.report is not None
    assert result.report["balanced"] is True, str(result)
    for name, channel in result.report["channels"].items():
        for reader, terms in channel["readers"].items():
            if channel["written"] is None:
                assert set(terms.values()) == {None}, str(result)
                continue
            due = channel["written"] + terms["carried"] + terms["replayed"]
            assert due == sum(terms[term] for term in TERMS), f"{name} for {reader}\n{result}"


class Running:
    """One running `connector` command. Use as a context manager: whatever is left is ended when it closes."""

    def __init__(self, command: list[str], folder: Path, report: Path | None, environment: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        self.report_file = report
        self._stdout = (folder / "run.stdout").open("w+b")
        self._stderr = (folder / "run.stderr").open("w+b")
        self._began = time.monotonic()
        self.began_ns = time.monotonic_ns()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT), **environment, MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            left = self.family()
            self.process.kill()
            self.process.wait()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        for process in self.marked():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._stdout.close()
        self._stderr.close()

    @property
    def pid(self) -> int:
        """The runner's process id."""
        return self.process.pid

    def family(self) -> list[psutil.Process]:
        """All processes below the runner now."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def marked(self) -> list[psutil.Process]:
        """All living processes of this run, wherever they hide: those with our mark in their environment."""
        needle = f"{MARK}={self.mark}".encode()
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if needle in Path(entry.path, "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        processes = []
        for pid in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
        return processes

    def gone(self) -> bool:
        """Whether nothing of this run lives."""
        return not self.marked()

    def programs(self, command: list[str]) -> list[psutil.Process]:
        """The living processes below the runner that run exactly this command."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.cmdline() == command and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wrapped(self) -> psutil.Process:
        """The runner itself, where a wrapper was started that runs it."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended
                if process.cmdline()[1:4] == ["-m", "runner", "run"]:
                    return process
        raise AssertionError(f"there is no runner: {self.output()}")

    def program(self, command: list[str]) -> psutil.Process:
        """The first process that runs this command, waited for."""
        found: list[psutil.Process] = until(
            lambda: self.process.poll() is not None or self.programs(command), f"{command} to start"
        )
        assert isinstance(found, list), f"the run ended first: {self.finish()}"
        return found[0]

    def output(self) -> str:
        """Everything that was printed so far."""
        texts = [(self.folder / name).read_text(errors="replace") for name in ("run.stdout", "run.stderr")]
        return "".join(texts)

    def signal(self, number: int) -> None:
        """Send the runner a signal."""
        self.process.send_signal(number)

    def finish(self, limit_s: float = LIMIT_S) -> Result:
        """Wait for the end; fails where it does not come within `limit_s` seconds."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run did not end within {limit_s} s:\n{self.output()[-6000:]}") from None
        took_s = time.monotonic() - self._began
        report = None
        if self.report_file is not None and self.report_file.exists() and self.report_file.is_file():
            report = json.loads(self.report_file.read_text())
        texts = [(self.folder / name).read_text(errors="replace") for name in ("run.stdout", "run.stderr")]
        return Result(code, texts[0], texts[1], report, took_s)


@dataclass(frozen=True)
class Connector:
    """The `connector` command with a folder to work in."""

    folder: Path
    runner: tuple[str, ...] = RUNNER
    middle_home: str | None = None
    """Where the processor called `middle` runs, whatever the pipeline says; None: as it says."""

    def write(self, pipeline: Pipeline | str, name: str = "pipeline.toml") -> Path:
        """Write a pipeline file: a text as it is, a mapping as TOML with a name put in."""
        file = self.folder / name
        if isinstance(pipeline, str):
            file.write_text(pipeline)
        else:
            file.write_text(tomli_w.dumps({"name": "test"} | dict(self._moved(pipeline))))
        return file

    def _moved(self, pipeline: Pipeline) -> Pipeline:
        middle = pipeline.get("processors", {}).get("middle")
        if middle is None or self.middle_home in {None, "process"}:
            return pipeline
        wall = {"network": "none", "mounts": [f"{PROJECT}/tests/children", f"{self.folder}:rw"]}
        if self.middle_home == "container":
            command = ["python3" if word == sys.executable else word for word in middle["command"]]
            wall |= {"image": PYTHON_IMAGE, "pull": "never", "command": command}
        return {**pipeline, "processors": {**pipeline["processors"], "middle": {**middle, **wall}}}

    def start(
        self,
        pipeline: Pipeline | str,
        *options: str,
        environment: Mapping[str, str] | None = None,
        report: Path | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> Running:
        """Start `connector run`; `wrapper` is put before the command."""
        file = self.write(pipeline)
        report = report or self.folder / "report.json"
        command = [*wrapper, *self.runner, "run", str(file), "--report", str(report), *options]
        return Running(command, self.folder, report, environment or {})

    def run(
        self,
        pipeline: Pipeline | str,
        *options: str,
        environment: Mapping[str, str] | None = None,
        report: Path | None = None,
        wrapper: tuple[str, ...] = (),
        limit_s: float = LIMIT_S,
    ) -> Result:
        """Run `connector run` to its end; nothing of it may be alive afterwards."""
        with self.start(pipeline, *options, environment=environment, report=report, wrapper=wrapper) as running:
            result = running.finish(limit_s)
            left = running.marked()
            assert not left, f"left behind: {left}\n{result}"
            return result

    def command(self, *arguments: str, limit_s: float = LIMIT_S) -> Result:
        """Run any other verb."""
        with Running([*self.runner, *arguments], self.folder, None, {}) as running:
            return running.finish(limit_s)


def wait_gone(pids: list[int], within_s: float) -> list[int]:
    """Wait until all these processes have ended; those that have not within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    left = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError), _pidfd(pid) as descriptor:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                left.append(pid)
    return left


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def kill_exactly(process: psutil.Process, command: list[str], number: int = signal.SIGKILL) -> bool:
    """Signal this process if it still runs this command; whether it was hit. Safe against reused process ids."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess), _pidfd(process.pid) as descriptor:
        if process.is_running() and process.cmdline() == command:
            signal.pidfd_send_signal(descriptor, number)
            return True
    return False


def chain(channels: Mapping[str, Any] | None = None, /, **processors: Mapping[str, Any] | list[str]) -> dict[str, Any]:
    """A pipeline of processors one after the other, joined by the channels c1, c2, …; a list is a command."""
    specs: dict[str, Any] = {}
    for index, (name, given) in enumerate(processors.items()):
        spec: dict[str, Any] = {"command": given} if isinstance(given, list) else dict(given)
        if index > 0:
            spec.setdefault("reads", f"c{index}")
        if index < len(processors) - 1:
            spec.setdefault("writes", f"c{index + 1}")
        specs[name.replace("_", "-")] = spec
    return {"processors": specs, "channels": dict(channels or {})}
