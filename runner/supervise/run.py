"""A whole run of a pipeline: everything is joined, started, watched, stopped and accounted for here."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from runner.channel.base import Channel, Outside, Reader
from runner.clock import Clock, monotonic
from runner.errors import EXIT_COMPLETED, EXIT_FAILED, BugError
from runner.events import Bus, RunEnded, RunStarted, RunStatus, RunStopping, Warned
from runner.launch.base import LaunchContext
from runner.launch.procstate import peak_rss_bytes
from runner.launch.registry import Homes
from runner.plan.image import with_images
from runner.spec.model import Pipeline
from runner.supervise.control import Control
from runner.supervise.joining import Joiner, tell_each_other
from runner.supervise.ledger import Disagreement, Imbalance, channel_report, imbalances
from runner.supervise.letter_verbs import LetterVerbs
from runner.supervise.letters import DeadLetters
from runner.supervise.loop_errors import callback_errors, first_of, raise_from
from runner.supervise.monitor import Monitor
from runner.supervise.processor import ProcessorRun, Surroundings
from runner.supervise.refusals import Refusals
from runner.supervise.replay import Replays
from runner.supervise.shortages import make_room_for_descriptors, shortages
from runner.supervise.snapshot import RunReport, RunSnapshot, SupervisorReport
from runner.supervise.state import State, state_folder


class Run:
    """One run. `exclusive`: this process belongs to the run alone (see `ProcessLauncher`).

    `state_folder` (None: beside the file) is used where a channel is durable; `fresh` gives up what it holds. `bridges`
    is where the folders of attached processors are; `own_logs`: what their programs log is written into their
    containers' own logs.

    `prepared`: every home is ready, so whoever is to connect to the runner can.

    Raises ImageError and ContentError where nothing says how the image of a processor is made.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        bus: Bus | None = None,
        *,
        clock: Clock = monotonic,
        exclusive: bool = False,
        state_folder: Path | None = None,
        fresh: bool = False,
        bridges: Path | None = None,
        own_logs: bool = False,
    ) -> None:
        self.id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        self.pipeline = with_images(pipeline)
        self.bus = bus or Bus()
        self.stopping: str | None = None
        self.prepared = False
        self.processors: dict[str, ProcessorRun] = {}
        self.channels: dict[str, Channel] = {}
        self._clock = clock
        self._state_folder = state_folder
        self._fresh = fresh
        self._bridges = bridges
        self._own_logs = own_logs
        self._state: State | None = None
        self._exclusive = exclusive
        self._failed = False
        self._started_s = clock()
        self._ended_s: float | None = None
        self._wall_start = datetime.now(UTC)
        self._imbalances: list[Imbalance | Disagreement] = []
        self._drain: asyncio.TimerHandle | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._report: RunReport | None = None
        self._letters = DeadLetters(None, self.id)
        self._replays = Replays(self._letters, self.processors)
        self._refusals: list[Refusals] = []

    # -- what others ask of it

    def stop(self, cause: str) -> None:
        """Stop in order: sources first, each other when its input has ended; at most `drain` seconds in all."""
        if self.stopping is not None:
            return
        self.stopping = cause
        self.bus.emit(RunStopping(cause=cause))
        self._drain = asyncio.get_running_loop().call_later(self.pipeline.drain_s, self.kill)
        if self._preparing is not None:
            self._preparing.cancel()
        for channel in self.channels.values():
            channel.stop()
        for processor in list(self.processors.values()):
            processor.stop(cause)

    def kill(self) -> None:
        """End everything now."""
        if self._state is not None:
            self._state.give_up()
        for channel in self.channels.values():
            channel.hold_up_nobody()
            channel.abandon()
        for processor in list(self.processors.values()):
            processor.kill()

    def snapshot(self) -> RunSnapshot:
        """What it looks like now."""
        rows = tuple(processor.row() for processor in self.processors.values())
        elapsed_s = (self._ended_s or self._clock()) - self._started_s
        return RunSnapshot(self.pipeline.name, elapsed_s, self.stopping is not None, rows)

    def troubles(self) -> dict[str, str]:
        """The channels whose far end is not there, with why."""
        found = {name: channel.far_trouble for name, channel in self.channels.items()}
        return {name: trouble for name, trouble in found.items() if trouble is not None}

    async def execute(self) -> RunReport:
        """Run the pipeline to its end; the report says how it went.

        Raises MachineError where this machine cannot do what is asked, BugError when the ledger does not balance or
        the runner broke a rule of its own; nothing of the run is left alive either way.
        """
        make_room_for_descriptors(self.pipeline)
        homes = self._homes()
        self._started_s = self._clock()
        self.bus.emit(RunStarted(pipeline=self.pipeline.name, run=self.id, processors=tuple(self.pipeline.processors)))
        try:
            with shortages():
                await self._through(homes)
        finally:
            if self._drain is not None:
                self._drain.cancel()
            for channel in self.channels.values():
                channel.close()
            await homes.close()
            if self._state is not None:
                self._state.close()
            self._ended_s = self._clock()
        return self._finish()

    async def _through(self, homes: Homes) -> None:
        """From its state, as an earlier run left it, to its end."""
        self._open_state()
        self._join(homes)
        if self._state is not None:
            self._state.begin(self.processors, self.bus)
            self._replays.begin(self.bus)
            self._state.watch(self._fail_at_once, self._room, self.bus)
        if await self._prepared(homes):
            self.prepared = True
            await self._live()
        else:
            self._leave_all()
        if self._state is not None:
            await self._state.end(completed=self._status is RunStatus.COMPLETED)
        if self._status is not RunStatus.STOPPED:
            homes.tell_over(EXIT_COMPLETED if self._status is RunStatus.COMPLETED else EXIT_FAILED)

    # -- how it is made

    def _homes(self) -> Homes:
        return Homes(
            LaunchContext(
                self.id,
                self.pipeline.name,
                self._exclusive,
                self.bus.emit,
                stop=self.stop,
                stopping=lambda: self.stopping is not None,
                bridges=self._bridges,
                own_logs=self._own_logs,
            )
        )

    def _join(self, homes: Homes) -> None:
        store = self._state.store if self._state is not None else None
        joiner = Joiner(
            self.pipeline,
            self.id,
            self.channels,
            bus=self.bus,
            clock=self._clock,
            store=store,
            letters=self._letters,
        )
        self._refusals = joiner.refusals
        around = Surroundings(
            pipeline=self.pipeline.name,
            run_id=self.id,
            bus=self.bus,
            clock=self._clock,
            homes=homes,
            stop=self._fail,
            settled=self._settled,
            letters=self._letters,
        )
        for name, shared in joiner.join().items():
            self.processors[name] = ProcessorRun(self.pipeline.processors[name], shared, around)
        tell_each_other(self.pipeline, self.channels, self.processors)

    def _open_state(self) -> None:
        if any(spec.durable for spec in self.pipeline.channels.values()):
            folder = self._state_folder or state_folder(self.pipeline)
            self._state = State(self.pipeline, folder, fresh=self._fresh)
            self._letters = DeadLetters(self._state.store, self.id)
            self._replays = Replays(self._letters, self.processors)

    def _room(self, name: str | None) -> None:
        """A channel (None: every durable one) may have room again."""
        for channel in self.channels.values():
            if name in {None, channel.name}:
                channel.room()

    # -- its life

    async def _prepared(self, homes: Homes) -> bool:
        """Whether the homes are ready; a stop that comes before ends the wait."""
        self._preparing = asyncio.create_task(homes.prepare(self.pipeline.processors.values()))
        try:
            await self._preparing
        except asyncio.CancelledError:
            if self.stopping is None:
                raise
        finally:
            self._preparing = None
        return self.stopping is None

    def _leave_all(self) -> None:
        """It was stopped before anything was started: what an earlier run left is there for the next."""
        for processor in self.processors.values():
            for inlet in processor.shared.inlets.values():
                inlet.leave()
        for channel in self.channels.values():
            channel.abandon()

    async def _live(self) -> None:
        monitor = Monitor(
            self.processors,
            {name: spec.writers for name, spec in self.pipeline.channels.items()},
            self.bus,
            self._clock,
            self._fail_ring,
        )
        with callback_errors() as broken, self._control() as control:
            try:
                async with asyncio.TaskGroup() as group:
                    helpers = [group.create_task(monitor.watch()), group.create_task(raise_from(broken))]
                    if control is not None:
                        helpers.append(group.create_task(control.serve()))
                    async with asyncio.TaskGroup() as living:
                        for processor in self.processors.values():
                            living.create_task(processor.live())
                        outside = Outside(self._fail_at_once, self._fail, self._warn)
                        for channel in self.channels.values():
                            living.create_task(channel.live(outside))
                    for helper in helpers:
                        helper.cancel()
            except BaseExceptionGroup as group_error:
                raise first_of(group_error) from group_error

    @contextlib.contextmanager
    def _control(self) -> Iterator[Control | None]:
        """The control socket; None: there is no state that anybody could ask about, or no socket can be there."""
        if self._state is None:
            yield None
            return
        control = Control(self._state.store.path, LetterVerbs(self._letters, self._replays).verbs)
        try:
            control.open()
        except OSError as error:
            self.bus.emit(Warned(message=f"nobody can ask this run while it goes on: {error}"))
            yield None
            return
        try:
            yield control
        finally:
            control.close()

    def _fail(self, cause: str) -> None:
        if not self._failed and self.stopping is None:
            self._failed = True
        self.stop(cause)

    def _warn(self, text: str) -> None:
        self.bus.emit(Warned(message=text))

    def _fail_at_once(self, cause: str) -> None:
        """Nothing that happens from now on would be on record."""
        self._fail(cause)
        self.kill()

    def _fail_ring(self, cause: str, members: tuple[str, ...]) -> None:
        """A ring of waits: it cannot drain, so its members are ended at once, and the rest in order."""
        self._fail(cause)
        for name in members:
            self.processors[name].kill()

    def _waiting(self, reader: Reader) -> int:
        if reader.outside:
            return reader.queued_messages + reader.held
        return self.processors[reader.processor].waiting_for(reader)

    def _settled(self) -> None:
        """A program's run was settled: the ledger must balance."""
        found = self._wrong(self._waiting)
        if found and not self._imbalances:
            self._imbalances = found
            raise BugError("the ledger does not balance: " + "; ".join(str(item) for item in found))

    def _wrong(self, waiting: Callable[[Reader], int]) -> list[Imbalance | Disagreement]:
        """Everything in the ledger that does not hold."""
        disagreements = (processor.disagreement() for processor in self.processors.values())
        return [*imbalances(self.channels.values(), waiting), *(item for item in disagreements if item is not None)]

    @property
    def _status(self) -> RunStatus:
        if self._failed:
            return RunStatus.FAILED
        return RunStatus.COMPLETED if self.stopping is None else RunStatus.STOPPED

    # -- what became of it

    def _finish(self) -> RunReport:
        for refusals in self._refusals:
            refusals.tell()
        found = self._wrong(lambda _reader: 0)
        self._imbalances = self._imbalances or found
        status = self._status
        report = self.report(status)
        self.bus.emit(RunEnded(status=status, cause=self.stopping, duration_s=report.duration_s))
        return report

    def report(self, status: RunStatus) -> RunReport:
        """The account of the run as it stands."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return RunReport(
            pipeline=self.pipeline.name,
            runner=self.pipeline.runner,
            run=self.id,
            status=status,
            cause=self.stopping,
            started_at=self._wall_start.isoformat(timespec="milliseconds"),
            duration_s=round((self._ended_s or self._clock()) - self._started_s, 3),
            balanced=not self._imbalances,
            supervisor=SupervisorReport(
                peak_rss_bytes=peak_rss_bytes(), cpu_s=round(usage.ru_utime + usage.ru_stime, 3)
            ),
            processors={name: processor.report() for name, processor in self.processors.items()},
            channels={
                name: channel_report(channel, self.pipeline.channels[name].readers)
                for name, channel in self.channels.items()
            },
            dead_letters=self._letters.report(),
        )
