"""Whole runs inside of the test: a pipeline from values, executed, with everything that happened."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.events import Bus, Event, InstanceState, LogLine, ProcessorFailed, StateChanged
from runner.spec.model import MIB, Backoff, Channel, Contract, Pipeline, Port, Processor, RestartPolicy, StopPolicy
from runner.supervise.run import Run
from runner.supervise.snapshot import ReaderReport, RunReport
from runner.units import Rate
from tests.children.build import sink, source

DEADLINE_S = 40.0
"""How long a run may take that is known to end: far more than it needs, for a machine that is busy."""
AT_ONCE = Backoff(0.0, 0.0)
NEVER = Backoff(100_000.0, 100_000.0)
MANY = Rate(1000, 60.0)

LEGAL = {
    (InstanceState.STARTING, InstanceState.STARTING),
    *((InstanceState.STARTING, new) for new in InstanceState if new not in {"draining", "starting"}),
    *((InstanceState.RUNNING, new) for new in InstanceState if new not in {"starting", "running"}),
    *((InstanceState.DRAINING, new) for new in InstanceState if new not in {"starting", "running", "draining"}),
    (InstanceState.STOPPING, InstanceState.EXITED),
    (InstanceState.STOPPING, InstanceState.FAILED),
    (InstanceState.STOPPING, InstanceState.BACKOFF),
    (InstanceState.BACKOFF, InstanceState.STARTING),
    (InstanceState.BACKOFF, InstanceState.EXITED),
    (InstanceState.BACKOFF, InstanceState.FAILED),
}


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", script)


def processor(
    name: str,
    command: tuple[str, ...],
    *,
    reads: str | dict[str, str | tuple[str, ...]] | None = None,
    writes: str | dict[str, str | tuple[str, ...]] | None = None,
    codec: str | dict[str, str] = "lines",
    **more: Any,
) -> Processor:
    """A processor; restarts come at once, and often, unless `restart` says otherwise."""
    source = reads is None
    more.setdefault("contract", Contract.STREAM)
    if source and "resume" not in more:
        more.setdefault("restart", RestartPolicy("never"))
    more.setdefault("restart", RestartPolicy(backoff=AT_ONCE, limit=MANY))
    more.setdefault("stop", StopPolicy(grace_s=2.0))
    more.setdefault("directory", Path(os.sep))
    if more["contract"] is Contract.ONE_TO_ONE:
        more.setdefault("order", "keep")
    return Processor(
        name=name,
        command=command,
        reads=_ports(reads, "stdin", codec),
        writes=_ports(writes, "stdout", codec),
        stdout_codec=codec if isinstance(codec, str) else codec.get("stdout", "lines"),
        **more,
    )


def _ports(
    given: str | dict[str, str | tuple[str, ...]] | None, only: str, codec: str | dict[str, str]
) -> tuple[Port, ...]:
    if given is None:
        return ()
    table = {only: given} if isinstance(given, str) else given
    return tuple(
        Port(
            name,
            (channels,) if isinstance(channels, str) else channels,
            codec if isinstance(codec, str) else codec.get(name, "lines"),
        )
        for name, channels in table.items()
    )


def pipeline(
    *processors: Processor, channels: dict[str, dict[str, Any]] | None = None, drain_s: float = 10.0
) -> Pipeline:
    """A pipeline of `processors`; `channels` adds to what their ports say."""
    writers: dict[str, list[str]] = {}
    readers: dict[str, list[str]] = {}
    for item in processors:
        for ports, ends in ((item.writes, writers), (item.reads, readers)):
            for channel in (channel for port in ports for channel in port.channels):
                ends.setdefault(channel, []).append(item.name)
    made = {
        name: Channel(
            name,
            **{"capacity_bytes": MIB, **(channels or {}).get(name, {})},
            writers=tuple(writers.get(name, ())),
            readers=tuple(readers.get(name, ())),
        )
        for name in {**writers, **readers}
    }
    return Pipeline("test", {item.name: item for item in processors}, made, Path(os.sep), drain_s=drain_s)


@dataclass
class Happened:
    """A run under way: what it has said, and how to wait for what it will say."""

    run: Run
    events: list[Event] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False

    def note(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, wanted: Callable[[], object]) -> None:
        """Wait until `wanted` is true, looking after each event (a message that moves is none: log a line)."""
        async with asyncio.timeout(DEADLINE_S):
            while not wanted():
                self._changed.clear()
                await self._changed.wait()

    async def line(self, text: str, times: int = 1) -> None:
        """Wait until `text` has been logged."""
        await self.until(lambda: self.logged().count(text) >= times)

    def of(self, name: str) -> list[StateChanged]:
        return [event for event in self.events if isinstance(event, StateChanged) and event.processor == name]

    def states(self, name: str, replica: int = 1) -> list[str]:
        return [str(event.new) for event in self.of(name) if event.replica == replica]

    def causes(self, name: str) -> list[str]:
        return [event.cause for event in self.of(name)]

    def logged(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, LogLine)]

    def failures(self) -> list[ProcessorFailed]:
        return [event for event in self.events if isinstance(event, ProcessorFailed)]


@dataclass(frozen=True)
class Ran:
    """A run that is over."""

    report: RunReport
    happened: Happened

    def account(self, channel: str, reader: str) -> ReaderReport:
        return self.report.channels[channel].readers[reader]

    def cause(self, name: str) -> str:
        return self.report.processors[name].cause


Steps = Callable[[Happened], Awaitable[None]]


def execute(spec: Pipeline, steps: Steps | None = None, *, deadline_s: float = DEADLINE_S) -> Ran:
    """Run `spec` to its end with `steps` beside it; whatever the run raises comes out, and one that hangs fails."""
    return asyncio.run(_execute(spec, steps, deadline_s))


def through(tmp_path: Path, middle: Processor, count: int = 500, **more: Any) -> Ran:
    """So many messages through `middle` into a file."""
    drain_s: float = more.pop("drain_s", 10.0)
    channels: dict[str, dict[str, Any]] | None = more.pop("channels", None)
    return execute(
        pipeline(
            processor("s", tuple(source(count, size=20)), writes="a"),
            middle,
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
            drain_s=drain_s,
            channels=channels,
        ),
        **more,
    )


async def _execute(spec: Pipeline, steps: Steps | None, deadline_s: float) -> Ran:
    bus = Bus()
    run = Run(spec, bus)
    happened = Happened(run)
    bus.subscribe(happened.note)
    living = asyncio.ensure_future(run.execute())
    beside = [asyncio.ensure_future(steps(happened))] if steps is not None else []
    waiting: set[asyncio.Future[Any]] = {living, *beside}
    async with asyncio.timeout(deadline_s + 10):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        while not living.done():
            done, waiting = await asyncio.wait(
                waiting, timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            failed = [item for item in done if item is not living and item.exception() is not None]
            if not done or failed:
                seen = {name: (str(item.state), item.cause) for name, item in run.processors.items()}
                living.cancel()
                await asyncio.wait({living})
                if not living.cancelled():
                    living.exception()  # whatever it is, that it hung says more
                if failed:
                    await failed[0]
                raise AssertionError(f"the run hangs: {seen}")
        for item in beside:
            if not item.done():
                item.cancel()
    report = await living
    legal(happened)
    balanced(report)
    return Ran(report, happened)


def legal(happened: Happened) -> None:
    """Each instance's states follow on each other, only in ways that are allowed, each with a cause."""
    now: dict[tuple[str, int], InstanceState] = {}
    for event in happened.events:
        if isinstance(event, StateChanged):
            key = (event.processor, event.replica)
            assert event.old is now.get(key, InstanceState.STARTING), event
            assert (event.old, event.new) in LEGAL, event
            assert event.cause
            now[key] = event.new


def balanced(report: RunReport) -> None:
    """The ledger's equation, from the report alone."""
    assert report.balanced
    for name, channel in report.channels.items():
        if channel.written is None:
            continue
        for reader, account in channel.readers.items():
            left = (account.carried or 0) + channel.written + (account.replayed or 0)
            outcomes = (account.acknowledged, account.dead, account.dropped, account.indeterminate, account.unread)
            assert left == sum(item or 0 for item in outcomes), (name, reader, channel.written, account)
