"""A run that goes on, and is stopped before anything of it is started: its account is even, and nothing is lost."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner import Pipeline
from runner.events import Bus, Event, RunStarted, RunStatus
from runner.supervise.run import Run
from runner.supervise.snapshot import RunReport

SOURCE = {"command": ["sh", "-c", "seq 100; exec sleep 100"], "writes": "c", "resume": "live"}
READER = {"command": ["sleep", "100"], "reads": "c", "contract": "one-to-one"}
DURABLE = {"kind": "durable", "durability": "process"}


def run_of(folder: Path, channel: dict[str, Any], **processors: Any) -> tuple[Run, Bus]:
    pipeline = Pipeline(name="early", processors=processors, channels={"c": channel}, folder=folder)
    bus = Bus()
    return Run(pipeline.spec, bus), bus


async def ended_at_once(run: Run, written: int) -> RunReport:
    """The run, killed when so many messages are in its channel."""
    running = asyncio.create_task(run.execute())
    async with asyncio.timeout(30):
        while "c" not in run.channels or run.channels["c"].written < written:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)
    run.stop("enough")
    run.kill()
    return await running


def stop_at_once(run: Run, event: Event) -> None:
    if isinstance(event, RunStarted):
        run.stop("early")


@pytest.mark.parametrize("into_a_file", [False, True])
def test_what_was_left_stays(tmp_path: Path, *, into_a_file: bool) -> None:
    channel = {"kind": "file", "path": "out", "durability": "process"} if into_a_file else DURABLE
    processors = {"a": SOURCE} | ({} if into_a_file else {"b": READER})
    run, bus = run_of(tmp_path, channel, **processors)
    first = asyncio.run(ended_at_once(run, 100))
    assert first.balanced
    reader = "file" if into_a_file else "b"
    left = first.channels["c"].readers[reader].unread
    for _ in range(2):
        run, bus = run_of(tmp_path, channel, **processors)
        bus.subscribe(partial(stop_at_once, run))
        report = asyncio.run(run.execute())
        assert (report.status, report.balanced) == (RunStatus.STOPPED, True)
        account = report.channels["c"].readers[reader]
        assert (account.carried, account.unread) == (left, left)
