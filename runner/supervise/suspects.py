"""What one instance does about messages that kill its program: it tries them, and sets the killer aside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runner.bridge.batch_cuts import Cut
from runner.bridge.inlet import Inlet, Piece
from runner.bridge.portion import Portion
from runner.errors import RunnerError
from runner.events import DeadLetter
from runner.plan.poison import blow_of, too_many
from runner.plan.restart import Death, Decision, Next
from runner.spec.model import Contract
from runner.supervise.attempt import RunOutcome
from runner.supervise.inquiry import Evidence, Inquiry, Over
from runner.units import format_duration

if TYPE_CHECKING:
    from runner.supervise.instance import Instance
    from runner.supervise.processor import ProcessorRun

_BEGINNING_BYTES = 80


class Suspects:
    """See the module. One inquiry of a processor is under way at a time; other replicas go on with other messages."""

    def __init__(self, processor: ProcessorRun, instance: Instance) -> None:
        self._processor = processor
        self._instance = instance
        self._inquiry: Inquiry | None = None
        self.portion: Portion | None = None

    @property
    def _inlet(self) -> Inlet | None:
        answers = self._processor.spec.contract in {Contract.ONE_TO_ONE, Contract.BATCH}
        return self._processor.shared.inlets.get("stdin") if answers else None

    async def next(self, ended_early: asyncio.Event) -> Decision | None:
        """See what the next run of the program is given: `portion`; None there: whatever comes.

        A Decision: the processor fails.
        """
        self.portion = None
        while not ended_early.is_set():
            inquiry = self._inquiry or self._opened()
            if inquiry is None:
                return None
            try:
                step = inquiry.proceed()
            except RunnerError as error:
                return Decision(Next.FAILED, str(error))
            if isinstance(step, Portion):
                self.portion = step
                return None
            if isinstance(step, Over):
                self._inquiry = None
                if step.cause is not None:
                    return Decision(Next.FAILED, step.cause)
            else:
                await _either(inquiry.moved, ended_early)
        return None

    def _opened(self) -> Inquiry | None:
        """A new inquiry, where there is a group of suspects and nobody looks into another one."""
        inlet, processor = self._inlet, self._processor
        if inlet is None or not inlet.parked or inlet.search is not None or inlet.readers[0].left:
            return None
        self._inquiry = Inquiry(
            inlet,
            inlet.parked.popleft(),
            processor.shared.sequencer,
            succeeded=inlet.answered > processor.answered_at_accusation,
            dead=self._set_aside,
            elsewhere=self._others_at_work,
        )
        return self._inquiry

    def _others_at_work(self) -> bool:
        """Whether other replicas have messages in flight."""
        batches = self._processor.shared.batches
        if batches is not None:
            return batches.busy
        for item in self._processor.replicas:
            feeders = [] if item is self._instance or item.attempt is None else item.attempt.ports.feeders
            if any(count for feeder in feeders for _, count in feeder.in_flight):
                return True
        return False

    def judge(self, outcome: RunOutcome, death: Death) -> Decision | None:
        """What a run of a portion tells; None: it tells nothing, and the end of its program counts as any other."""
        inquiry = self._inquiry
        if inquiry is None or self.portion is None:
            return None
        self.portion = None
        counts = death.held_against and not outcome.asked
        inquiry.ended(
            answered=outcome.answered,
            touched=outcome.touched,
            blow=blow_of(outcome.exited, outcome.why) if counts else None,
            evidence=Evidence(outcome.exited, death.sentence, self._instance.log.last_lines),
        )
        nothing_read = not outcome.answered and not outcome.touched
        if death.later or death.ours or (counts and nothing_read):
            return None
        return Decision(Next.AGAIN, f"{death.sentence}; {inquiry}")

    def give_up(self) -> None:
        """The instance is not started again."""
        if self._inquiry is not None:
            self._inquiry.give_up()
            self._inquiry = self.portion = None
        if self._inlet is not None:
            self._inlet.release(self._instance.replica)

    def _set_aside(self, piece: Piece, evidence: Evidence) -> None:
        """`piece`, one message, is a dead letter. Raises RunnerError where there are too many."""
        processor, inlet = self._processor, self._inlet
        assert inlet is not None
        limit, now_s = processor.spec.poison.limit, processor.clock()
        if too_many(processor.dead_s, now_s, limit):
            raise RunnerError(
                f"more dead letters than the limit ({limit.count} in {format_duration(limit.per_s)})",
                remedy="raise poison.limit, if so many messages may be set aside",
            )
        payload = inlet.codec.payload(inlet.codec.split(piece.batch)[0])
        cause = f"killed `{processor.spec.name}` again and again, alone in the end: {evidence.cause}"
        letter = processor.letters.poison(
            processor.spec.name,
            piece.reader.channel,
            piece.number,
            payload=payload,
            cause=cause,
            exited=evidence.exited,
            log=evidence.log,
        )
        piece.reader.die(piece.number)
        if processor.shared.batches is not None:
            processor.shared.batches.cuts.forget(piece.reader.channel, Cut(piece.number, piece.number, piece.attempt))
        inlet.handed += 1
        processor.dead_s.append(now_s)
        processor.answered_at_accusation = inlet.answered - 1  # the success that told it from trouble elsewhere
        processor.forgive(piece.returns)
        self._instance.begin_backoff_anew()
        processor.bus.emit(
            DeadLetter(
                processor=processor.spec.name,
                replica=self._instance.replica,
                channel=piece.reader.channel,
                number=max(0, piece.number),
                letter=letter.id,
                cause=evidence.cause,
                exited=evidence.exited,
                size_bytes=len(payload),
                beginning=payload[:_BEGINNING_BYTES].decode("utf-8", "backslashreplace"),
                kept=processor.letters.in_state,
            )
        )


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    """Return when one of the two is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
