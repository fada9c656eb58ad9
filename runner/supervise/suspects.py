"""What one instance does about messages that its program cannot handle: it finds them out, and sets them aside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runner.bridge.batch_cuts import Cut
from runner.bridge.inlet import Inlet, Piece
from runner.bridge.portion import Portion
from runner.errors import RunnerError
from runner.events import DeadLetter
from runner.plan.nacks import APART_S, after_nack
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
_LEFT_AGAIN_S = 0.25


class Suspects:
    """See the module. One inquiry of a processor is under way at a time; other replicas go on with other messages.

    `portions`: what the run of the program that comes next, or is under way, is given by port; None: whatever comes.
    """

    def __init__(self, processor: ProcessorRun, instance: Instance) -> None:
        self._processor = processor
        self._instance = instance
        self._inquiry: Inquiry | None = None
        self.portions: Mapping[str, Portion] | None = None
        self._left: int | None = None
        """What `_count_left` said last, and when: it looks at everything, which may be nacked all at the same time."""
        self._left_at_s = -_LEFT_AGAIN_S

    @property
    def _inlets(self) -> list[Inlet]:
        """Those whose messages the program answers."""
        inlets = self._processor.shared.inlets
        match self._processor.spec.contract:
            case Contract.ONE_TO_ONE | Contract.BATCH:
                return [inlets["stdin"]] if "stdin" in inlets else []
            case Contract.ACKNOWLEDGED:
                return list(inlets.values())
        return []

    @property
    def _answered(self) -> int:
        return sum(inlet.answered for inlet in self._inlets)

    async def next(self, ended_early: asyncio.Event) -> Decision | None:
        """See what the next run of the program is given. A Decision: the processor fails."""
        self.portions = None
        while not ended_early.is_set():
            inquiry = self._inquiry or self._opened()
            if inquiry is None:
                return None
            try:
                step = inquiry.proceed()
            except RunnerError as error:
                return Decision(Next.FAILED, str(error))
            if isinstance(step, Over):
                self._inquiry = None
                if step.cause is not None:
                    return Decision(Next.FAILED, step.cause)
            elif step is not None:
                self.portions = step
                return None
            else:
                await _either(inquiry.moved, ended_early)
        return None

    def _opened(self) -> Inquiry | None:
        """A new inquiry, where there are suspects and nobody looks into others."""
        inlets, processor = self._inlets, self._processor
        idle = not any(inlet.search is not None or inlet.readers[0].left for inlet in inlets)
        if not idle or not any(inlet.parked for inlet in inlets):
            return None
        self._inquiry = Inquiry(
            {inlet: inlet.parked.popleft() if inlet.parked else () for inlet in inlets},
            processor.shared.sequencer,
            owner=self._instance.replica,
            ends=processor.spec.contract is not Contract.ACKNOWLEDGED,
            succeeded=self._answered > processor.answered_at_accusation,
            dead=self._killed,
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
        """What a run of portions tells; None: it tells nothing, and the end of its program counts as any other."""
        inquiry = self._inquiry
        if inquiry is None or self.portions is None:
            return None
        self.portions = None
        counts = death.held_against and not outcome.asked
        inquiry.ended(
            answered=outcome.answered,
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
            self._inquiry = self.portions = None
        for inlet in self._inlets:
            inlet.release(self._instance.replica)

    def nacked(self, piece: Piece, reason: str) -> bool:
        """The program has given back `piece`, one message; whether it is a dead letter now, else it comes again.

        Raises RunnerError where there are too many.
        """
        processor = self._processor
        now_s, before = processor.clock(), piece.nacks
        asks = before is not None and now_s - before.at_s >= APART_S
        if asks and now_s - self._left_at_s >= _LEFT_AGAIN_S:
            self._left_at_s, self._left = now_s, self._count_left()
        left = self._left if asks else None
        piece.nacks = after_nack(before, now_s=now_s, answered=self._answered, left=left)
        if piece.nacks.count < processor.spec.poison.after:
            return False
        cause = f"`{processor.spec.name}` gave it back again and again (nack): {reason or 'no reason given'}"
        self._set_aside(piece, Evidence(None, reason, self._instance.log.last_lines), cause)
        return True

    def _count_left(self) -> int | None:
        """How many messages are left, each of which has been nacked, where nothing else comes; None: it may."""
        if not all(inlet.only_nacked and inlet.search is None for inlet in self._inlets):
            return None
        for item in self._processor.replicas:
            exchange = item.attempt.ports.exchange if item.attempt is not None else None
            if exchange is not None and not exchange.only_nacked:
                return None
        return 1 + sum(inlet.queued_messages + inlet.unanswered for inlet in self._inlets)

    def _killed(self, piece: Piece, evidence: Evidence) -> None:
        """`piece`, one message, has killed the program. Raises RunnerError where there are too many."""
        processor = self._processor
        cause = f"killed `{processor.spec.name}` again and again, alone in the end: {evidence.cause}"
        self._set_aside(piece, evidence, cause)
        self._inlet_of(piece).handed += 1
        processor.answered_at_accusation = self._answered - 1  # the success that told it from trouble elsewhere
        processor.forgive(piece.returns)
        self._instance.begin_backoff_anew()

    def _inlet_of(self, piece: Piece) -> Inlet:
        return next(inlet for inlet in self._inlets if piece.reader in inlet.readers)

    def _set_aside(self, piece: Piece, evidence: Evidence, cause: str) -> None:
        processor, codec = self._processor, self._inlet_of(piece).codec
        limit, now_s = processor.spec.poison.limit, processor.clock()
        if too_many(processor.dead_s, now_s, limit):
            raise RunnerError(
                f"more dead letters than the limit ({limit.count} in {format_duration(limit.per_s)})",
                remedy="raise poison.limit, if so many messages may be set aside",
            )
        payload = codec.payload(codec.split(piece.batch)[0])
        letter = processor.letters.poison(
            processor.spec.name,
            piece.reader,
            piece.number,
            payload=payload,
            cause=cause,
            exited=evidence.exited,
            log=evidence.log,
        )
        piece.reader.die(piece.number)
        if processor.shared.batches is not None:
            processor.shared.batches.cuts.forget(piece.reader.channel, Cut(piece.number, piece.number, piece.attempt))
        processor.dead_s.append(now_s)
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
