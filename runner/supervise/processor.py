"""One processor in a run: what its replicas share, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from runner.bridge.spout import Spout
from runner.channel.base import Reader
from runner.clock import Clock
from runner.events import Bus, Exited, InstanceState
from runner.launch.registry import Homes
from runner.spec.model import Contract, Processor
from runner.supervise.batch_instance import BatchInstance
from runner.supervise.instance import Instance
from runner.supervise.ledger import Disagreement
from runner.supervise.letters import DeadLetters
from runner.supervise.ports import Shared
from runner.supervise.snapshot import InstanceReport, ProcessorReport, ProcessorRow

_KEPT_RUNS = 20
_PIPE_READERS_S = 5.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a processor needs of its run. `stop` stops the run, with a cause; `settled` is told of each death."""

    pipeline: str
    run_id: str
    bus: Bus
    clock: Clock
    homes: Homes
    stop: Callable[[str], None]
    settled: Callable[[], None]
    letters: DeadLetters


class ProcessorRun:
    """See the module."""

    def __init__(self, spec: Processor, shared: Shared, around: Surroundings) -> None:
        self.spec = spec
        self.shared = shared
        self.pipeline = around.pipeline
        self.run_id = around.run_id
        self.bus = around.bus
        self.clock = around.clock
        self.homes = around.homes
        self.settled = around.settled
        self.letters = around.letters
        self.is_source = spec.is_source
        self.pipe_writers: list[ProcessorRun] = []
        self.pipe_readers: list[ProcessorRun] = []
        self.stopping = False
        self.killed = False
        self.failed: str | None = None
        self.readers_left = False
        self.done = False
        self.ended = asyncio.Event()
        self.on_done: list[Callable[[], None]] = []
        self.failures_s: deque[float] = deque(maxlen=max(1, spec.restart.limit.count + 1))
        self.dead_s: deque[float] = deque(maxlen=max(1, spec.poison.limit.count + 1))
        self.answered_at_accusation = 0
        self.instances: deque[InstanceReport] = deque(maxlen=_KEPT_RUNS)
        self._stop_run = around.stop
        self.batches_done = 0
        kind = BatchInstance if spec.contract is Contract.BATCH else Instance
        self.replicas = [kind(self, number) for number in range(1, spec.replicas + 1)]

    async def live(self) -> None:
        """Run all replicas until each has ended for good; then its outputs end and its inputs have left."""
        if self.ended_before:
            for instance in self.replicas:
                instance.end_before_start("it had ended before the run was cut short")
            self._finish(for_good=True)
            return
        try:
            handles = [await self.homes.open(self.spec, each.replica) for each in self.replicas]
            async with asyncio.TaskGroup() as group:
                for instance, handle in zip(self.replicas, handles, strict=True):
                    group.create_task(instance.live(handle))
        except BaseException:
            self._finish(for_good=False)  # broken off: nothing was settled, so there is no account to check
            raise
        self._finish(for_good=not self.stopping and (self.failed is None or self.spec.continue_on_error))
        self.settled()

    @property
    def ended_before(self) -> bool:
        """Whether it had ended for good in an earlier part of the run, which was cut short."""
        if any(inlet.left_before for inlet in self.shared.inlets.values()):
            return True
        outlets = self.shared.outlets.values()
        return bool(outlets) and not self.shared.pipes_out and all(outlet.ended_before for outlet in outlets)

    def _finish(self, *, for_good: bool) -> None:
        if self.shared.sequencer is not None:
            self.shared.sequencer.abandon()
        self._leave(for_good=for_good)
        self.done = True
        self.ended.set()
        for outlet in self.shared.outlets.values():
            outlet.end(for_good=for_good)
        for callback in self.on_done:
            callback()

    def _leave(self, *, for_good: bool) -> None:
        for inlet in self.shared.inlets.values():
            inlet.leave(for_good=for_good)
        if self.shared.batches is not None:
            self.shared.batches.leave()

    def finished(self) -> None:
        """The program of a replica has said that nothing more comes from it; its last outputs are being committed.

        Where it is the only one, that nothing more comes is committed with them: they are never written again.
        """
        if self.spec.replicas == 1 and not self.stopping and self.failed is None:
            for outlet in self.shared.outlets.values():
                outlet.end(for_good=True)

    def forgive(self, deaths: int) -> None:
        """So many deaths were the fault of a message that is set aside: they do not count for the limit."""
        for _ in range(min(deaths, len(self.failures_s))):
            self.failures_s.pop()

    def fail(self, cause: str) -> None:
        """A replica failed for good, and with it the processor: its inputs count as unread, its outputs end."""
        if self.failed is not None:
            return
        self.failed = cause
        if self.shared.sequencer is not None:
            self.shared.sequencer.abandon()
        for instance in self.replicas:
            if instance.alive:
                instance.ask_to_end("another replica failed for good")
        self._leave(for_good=self.spec.continue_on_error)
        if not self.spec.continue_on_error:
            self._stop_run(f"`{self.spec.name}` failed: {cause}")

    def stop(self, cause: str) -> None:
        """The run is being stopped: a source is asked to end, others when their input has ended."""
        self.stopping = True
        for instance in self.replicas:
            if self.is_source:
                instance.ask_to_end(cause)
            else:
                instance.no_long_backoff()
                instance.input_may_have_ended()

    def kill(self) -> None:
        """End all of it now."""
        self.stopping = self.killed = True
        for instance in self.replicas:
            instance.kill()

    def inputs_moved(self) -> None:
        """A writer before it has ended."""
        for instance in self.replicas:
            instance.input_may_have_ended()

    def check_wanted(self) -> None:
        """A channel lost its last reader: when nobody reads anything that it writes, its outputs are closed.

        Who leaves after its end was told leaves nothing.
        """
        outlets = self.shared.outlets.values()
        if self.readers_left or self.done or not outlets or any(each.wanted or each.ended for each in outlets):
            return
        if self.shared.pipes_out:
            return
        self.readers_left = True
        for instance in self.replicas:
            instance.close_outputs()

    @property
    def writers_ended(self) -> bool:
        """Whether everybody who writes to it has ended."""
        inlets = self.shared.inlets.values()
        return all(inlet.writers_ended for inlet in inlets) and all(writer.done for writer in self.pipe_writers)

    @property
    def inputs_ended(self) -> bool:
        """Whether nothing is left, or comes, but what its replicas have in flight."""
        return all(inlet.ended for inlet in self.shared.inlets.values())

    async def pipe_readers_left(self, exited: Exited, ended_s: float) -> bool:
        """Whether a program of it that ended at `ended_s` wrote only into pipes whose readers had left before it.

        Then it got SIGPIPE, or EPIPE, as in a shell. Their own ends may still be on their way to being settled.
        """
        readers = self.pipe_readers
        if not readers or self.shared.outlets or exited.ok:
            return False
        before = [item.ended_s is not None and item.ended_s <= ended_s for item in readers]
        if exited.signal != signal.SIGPIPE and not all(before):
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PIPE_READERS_S):
                for item in readers:
                    await item.ended.wait()
        return all(item.failed is None for item in readers)

    @property
    def ended_s(self) -> float | None:
        """When the last of its programs ended, on the loop's clock; None while one runs that never did."""
        ends = [item.ended_s for item in self.replicas]
        return max((end for end in ends if end is not None), default=None) if None not in ends else None

    # -- what observers and the ledger ask

    def feeders(self) -> list[Spout]:
        """Every feeder of every run that is under way."""
        return [feeder for item in self.replicas if item.attempt is not None for feeder in item.attempt.ports.feeders]

    def waiting_for(self, reader: Reader) -> int:
        """Messages of `reader` that have no outcome yet."""
        waiting = reader.queued_messages
        for inlet in self.shared.inlets.values():
            waiting += inlet.returned_messages(reader)
        if self.shared.sequencer is not None:
            waiting += self.shared.sequencer.held_messages(reader)
        if self.shared.batches is not None:
            waiting += self.shared.batches.held(reader)
        for feeder in self.feeders():
            waiting += sum(count for who, count in feeder.in_flight if who is reader)
        return waiting

    def disagreement(self) -> Disagreement | None:
        """Whether, one-to-one, its acknowledged inputs are not the answers that went into its channels."""
        outlet, inlet = self.shared.outlets.get("stdout"), self.shared.inlets.get("stdin")
        if self.spec.contract is not Contract.ONE_TO_ONE or outlet is None or inlet is None:
            return None
        acknowledged = sum(reader.account.acknowledged for reader in inlet.readers)
        answers = outlet.written + outlet.refused
        return Disagreement(self.spec.name, acknowledged, answers) if acknowledged != answers else None

    @property
    def state(self) -> InstanceState:
        """The state of the replica that a person would ask about first."""
        states = {instance.state for instance in self.replicas}
        for state in (
            InstanceState.FAILED,
            InstanceState.BACKOFF,
            InstanceState.STARTING,
            InstanceState.RUNNING,
            InstanceState.DRAINING,
            InstanceState.STOPPING,
        ):
            if state in states and (self.done or state is not InstanceState.FAILED):
                return state
        return InstanceState.EXITED

    @property
    def ready(self) -> bool:
        """Whether its first replica runs, and is ready; or has ended as it should."""
        return self.replicas[0].state in {InstanceState.RUNNING, InstanceState.DRAINING, InstanceState.EXITED}

    @property
    def cause(self) -> str:
        """Why it is in its state."""
        if self.failed is not None:
            return self.failed
        state = self.state
        return next((item.cause for item in self.replicas if item.state is state), "")

    @property
    def restarts(self) -> int:
        """Restarts of all replicas."""
        return sum(instance.restarts for instance in self.replicas)

    @property
    def read(self) -> int:
        """Messages that its programs were given, and that were not given back."""
        return sum(inlet.handed for inlet in self.shared.inlets.values())

    @property
    def written(self) -> int:
        """Messages that its programs put into channels, each port counted once."""
        return sum(outlet.written for outlet in self.shared.outlets.values())

    def row(self) -> ProcessorRow:
        """How it looks now."""
        inlets = self.shared.inlets.values()
        waits = [instance.waiting for instance in self.replicas if instance.waiting is not None]
        return ProcessorRow(
            name=self.spec.name,
            state=str(self.state),
            read=self.read,
            written=self.written,
            queue_messages=sum(inlet.queued_messages for inlet in inlets),
            queue_bytes=sum(inlet.queued_bytes for inlet in inlets),
            restarts=self.restarts,
            stray=sum(instance.stray for instance in self.replicas),
            pids=tuple(pid for instance in self.replicas for pid in instance.pids),
            waiting=waits[0] if waits else None,
            batches=self.batches_done if self.shared.batches is not None else None,
        )

    def report(self) -> ProcessorReport:
        """What became of it."""
        uncounted_in = bool(self.shared.pipes_in)
        uncounted_out = bool(self.shared.pipes_out)
        return ProcessorReport(
            state=str(self.state),
            restarts=self.restarts,
            cause=self.cause,
            read=None if uncounted_in else self.read,
            written=None if uncounted_out else self.written,
            stray=sum(instance.stray for instance in self.replicas),
            log_lines_left_out=sum(instance.log.left_out for instance in self.replicas),
            batches=self.batches_done if self.shared.batches is not None else None,
            instances=list(self.instances),
        )
