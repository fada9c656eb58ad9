"""One instance under contract `batch`: its program is started for each batch, and what it did counts when it exits 0.

A run that succeeds is no restart: it changes no state and says nothing. What fails is run again like any program that
died, with the same batch.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.bridge.batches import Asked, Batches, RunBatch, acknowledge
from runner.bridge.outlet import RoomOf
from runner.bridge.portion import Portion
from runner.errors import RunnerError
from runner.events import InstanceState
from runner.launch.base import Handle
from runner.plan.poison import Blow, blow_of
from runner.plan.restart import Death, Decision, Next
from runner.supervise.attempt import RunOutcome
from runner.supervise.batch_ports import BatchPorts
from runner.supervise.instance import Idle, Instance
from runner.supervise.ports import Ports
from runner.units import format_duration

if TYPE_CHECKING:
    from runner.supervise.processor import ProcessorRun


_SHELL_SAYS = 128


class BatchInstance(Instance):
    """See the module."""

    def __init__(self, processor: ProcessorRun, replica: int) -> None:
        super().__init__(processor, replica)
        self._batch: RunBatch | None = None
        self._done = 0
        self._idle: Idle | None = None

    @property
    def _batches(self) -> Batches:
        batches = self._processor.shared.batches
        assert batches is not None
        return batches

    @property
    def _portion(self) -> Portion | None:
        """What the search for a bad message wants to be run."""
        portions = self._suspects.portions
        return None if portions is None else portions["stdin"]

    @property
    def takes_more(self) -> bool:
        """See `Instance`."""
        return self.alive and not self._ended_early.is_set() and not self._batches.over.is_set()

    @property
    def idle(self) -> Idle | None:
        """See `Instance`."""
        return self._idle

    @property
    def _attempt_number(self) -> int:
        """How often the batch was run."""
        return 1 if self._batch is None else self._batch.attempt

    # -- what the run asks of it

    def input_may_have_ended(self) -> None:
        """See `Instance`: in a stop, the batch that is under way has the grace period."""
        attempt = self.attempt
        if attempt is None or not self._processor.writers_ended:
            return
        if self._batches.last_ones and self.state is InstanceState.RUNNING:
            self._become(InstanceState.DRAINING, "its last batch is being run")
        if self._processor.stopping:
            attempt.ask_after_grace()

    def _ready(self) -> None:
        if self.state is InstanceState.STARTING:
            self._become(InstanceState.RUNNING, "running, once for each batch")
        self.input_may_have_ended()

    # -- its life

    async def live(self, handle: Handle) -> None:
        """Run the program for one batch after the other; tells its processor how it ended."""
        self.log.own = handle.write_log
        self._number = 1
        self._become(InstanceState.STARTING, "waiting for its first batch")
        try:
            while (batch := await self._next()) is not None:
                if isinstance(batch, Decision):
                    self._end(batch, Death(None, batch.cause))
                    return
                if self.state is InstanceState.BACKOFF:
                    self._become(InstanceState.STARTING, f"restart {self.restarts}")
                self._batch = batch
                failed = await self._work(handle, batch)
                self._batch = None
                if failed is not None and failed[0].next is not Next.AGAIN:
                    self._end(*failed)
                    return
                if failed is not None:
                    await self._restart(failed[0], failed[1])
            self._become(InstanceState.EXITED, self._why_ended())
        finally:
            self._suspects.give_up()
            await handle.close()

    def _why_ended(self) -> str:
        done = f"{self._done:,} {'batch' if self._done == 1 else 'batches'}"
        if self._processor.readers_left:
            return f"readers left, {done} done"
        return f"stopped, {done} done" if self._ended_early.is_set() else f"all input read, {done} done"

    async def _restart(self, decision: Decision, death: Death) -> None:
        self.restarts += 1
        self._streak += decision.after_s > 0
        self._number += 1
        after = format_duration(decision.after_s)
        self._become(InstanceState.BACKOFF, f"in {after}, because: {decision.cause}", death.exited)
        await self._backoff(decision.after_s)

    async def _backoff(self, after_s: float) -> None:
        """See `Instance`; nor is there anything to wait for once other replicas have done it all."""
        over = asyncio.ensure_future(self._batches.over.wait())
        try:
            await _first_of(over, asyncio.ensure_future(super()._backoff(after_s)))
        finally:
            over.cancel()

    async def _next(self) -> RunBatch | Decision | None:
        """The next batch, once there is room for what comes of it; None: there is none for this instance.

        A Decision: the processor fails, for no message is to blame for its deaths.
        """
        await self._room()
        while not self._ended_early.is_set():
            failed = await self._suspects.next(self._ended_early)
            if failed is not None:
                return failed
            portion = self._portion
            if portion is None:
                return await self._asked_for()
            batch = self._batches.tried(portion)
            if batch is not None:
                return batch
        return None

    async def _room(self) -> None:
        """Wait until all that it writes to has room."""
        loop = asyncio.get_running_loop()
        room = RoomOf(tuple(self._processor.shared.outlets.values()))
        while room.full and not self._ended_early.is_set():
            if self._idle is None:
                self._idle = Idle(self._processor.clock(), room.blocked_by, room.trouble)
            there: asyncio.Future[None] = loop.create_future()
            room.when_room(lambda there=there: None if there.done() else there.set_result(None))  # type: ignore[misc]
            await self._either(there)
        self._idle = None

    async def _asked_for(self) -> RunBatch | None:
        if self._ended_early.is_set():
            return None
        self._idle = Idle(self._processor.clock())
        asked: Asked = self._batches.ask()
        try:
            await self._either(asked)
        finally:
            self._idle = None
            if self._ended_early.is_set() or not asked.done():
                self._batches.withdraw(asked)
        return None if self._ended_early.is_set() else asked.result()

    async def _either(self, future: asyncio.Future[Any]) -> None:
        """Return when `future` is done, or this instance is to end."""
        await _first_of(future, asyncio.ensure_future(self._ended_early.wait()))

    async def _work(self, handle: Handle, batch: RunBatch) -> tuple[Decision, Death] | None:
        """Run the program with `batch`. None: that is done, go on; else what is to happen, and because of what."""
        kept = self._batches.cuts.keep(batch.reader.channel, batch.cut)
        if kept is not None:
            await self._either(kept)  # on record first, for a runner that dies goes on with the same batch
            if self._ended_early.is_set():
                self._put_back(batch)
                stopped = Death(None, asked=True)
                return Decision(Next.ENDED, self._why_ended()), stopped
        ports = BatchPorts(
            self._spec,
            self._processor.shared,
            self.log,
            batch,
            on_stray=self._stray,
            on_error=self._bad_output,
            on_progress=self.input_may_have_ended,
        )
        try:
            outcome = await self._run(handle, ports, ports.command)
            return self._judge(batch, ports, outcome)
        finally:
            ports.outputs.discard()

    def _judge(self, batch: RunBatch, ports: BatchPorts, outcome: RunOutcome) -> tuple[Decision, Death] | None:
        exited = outcome.exited
        if exited is not None and exited.ok and outcome.why is None:
            try:
                self._commit(batch, ports)
            except RunnerError as error:
                outcome = RunOutcome(exited, str(error), final=True, asked=outcome.asked)
            else:
                self._streak = 0
                self._record(outcome, "exit 0")
                self._suspects.judge(replace(outcome, answered=batch.count), Death(exited, asked=outcome.asked))
                self._processor.settled()
                asked = Death(exited, asked=True)
                return (
                    (Decision(Next.ENDED, f"stopped (exit 0), {self._done:,} done"), asked) if outcome.asked else None
                )
        touched = 0 if _may_be_sent(outcome) else ports.touched
        decision, death = self._failed(batch, replace(outcome, touched=touched))
        if outcome.why is None or not outcome.final:
            decision = Decision(decision.next, f"{decision.cause}, given {batch}", decision.after_s)
        self._record(outcome, decision.cause)
        self._processor.settled()
        return decision, death

    def _failed(self, batch: RunBatch, outcome: RunOutcome) -> tuple[Decision, Death]:
        """What comes after the failure; its messages are for another run, or for the search for the one that did it."""
        portion = self._portion
        if portion is not None:
            blamed = Death(outcome.exited, outcome.why, asked=outcome.asked).held_against
            touched = outcome.touched if blamed else 0
            self._batches.tried_in_vain(batch, portion, owner=self.replica, touched=touched)
            if outcome.asked:
                death = Death(outcome.exited, outcome.why, asked=True)
                return Decision(Next.ENDED, f"stopped ({death.sentence})"), death
            return self._decide(outcome)
        decision, death = self._decide(outcome)
        after = self._spec.poison.after
        blamed = death.held_against and outcome.touched > 0 and not outcome.final
        deaths = min(piece.deaths for piece in batch.pieces) + 1
        if decision.next is Next.AGAIN and blamed and deaths >= after:
            self._batches.suspect(batch, owner=self.replica, after=after)
            return decision, death
        for piece in batch.pieces if blamed else ():
            piece.deaths += 1
            piece.returns += 1
        self._batches.again(batch)
        return decision, death

    def _put_back(self, batch: RunBatch) -> None:
        """It is not run after all."""
        if self._portion is not None:
            self._batches.not_tried(batch, self._portion)
        else:
            self._batches.put_back(batch)

    def _commit(self, batch: RunBatch, ports: BatchPorts) -> None:
        """Outputs and acknowledgement, in one synchronous step: one transaction between durable channels."""
        written = ports.outputs.committed_by_port()
        ports.outputs.commit()
        acknowledge(batch.pieces)
        self._batches.cuts.forget(batch.reader.channel, batch.cut)
        for port, messages in written.items():
            self._delivered[port] = self._delivered.get(port, 0) + messages
        self._done += 1
        self._processor.batches_done += 1
        self._batches.done(batch)
        self._processor.shared.inlets["stdin"].count_answers(batch.count)

    def _count_delivered(self, ports: Ports) -> None:
        """Nothing is delivered before `_commit`."""


def _may_be_sent(outcome: RunOutcome) -> bool:
    """Whether it died of a signal that somebody may have sent, or says as a shell does that its child did.

    That is held against no message: a run lasts as long as its program does, so whoever kills now and then would hit
    one message alone again and again.
    """
    exited = outcome.exited
    if exited is not None and exited.code is not None and exited.code > _SHELL_SAYS:
        exited = replace(exited, code=None, signal=exited.code - _SHELL_SAYS)
    return blow_of(exited, outcome.why) is Blow.SENT


async def _first_of(future: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
    """Return when either is done; `task` is ended then."""
    waited: set[asyncio.Future[Any]] = {future, task}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
