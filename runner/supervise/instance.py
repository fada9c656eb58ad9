"""One instance (replica) of a processor: its life from the first start to its end for good."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.bridge.inlet import Piece
from runner.bridge.logs import InstanceLog
from runner.channel.base import Reader
from runner.errors import RunnerError
from runner.events import Exited, InstanceState, ProcessorFailed
from runner.launch.base import Handle, LaunchRequest
from runner.plan.restart import Death, Decision, Next, decide
from runner.supervise.attempt import Attempt, RunOutcome
from runner.supervise.environment import environment
from runner.supervise.health import Prober
from runner.supervise.life import Life
from runner.supervise.ports import Ports
from runner.supervise.snapshot import ExitReport, InstanceReport
from runner.supervise.suspects import Suspects
from runner.units import format_duration

if TYPE_CHECKING:
    from runner.supervise.processor import ProcessorRun


@dataclass(frozen=True, slots=True)
class Idle:
    """Why an instance runs no program, since `since_s` on the loop's clock.

    `blocked_by` are the readers of what it writes whose channels are full; where there are none, it waits for messages
    (or for a store that cannot write: `trouble`).
    """

    since_s: float
    blocked_by: tuple[Reader, ...] = ()
    trouble: str | None = None


class Instance:
    """See the module."""

    def __init__(self, processor: ProcessorRun, replica: int) -> None:
        self.replica = replica
        self.restarts = 0
        self.stray = 0
        self.attempt: Attempt | None = None
        self.waiting: str | None = None
        spec = processor.spec
        secrets = [*spec.secrets.values(), *(str(spec.params[name]) for name in spec.secret_params)]
        self.log = InstanceLog(processor.bus, spec.name, replica, processor.clock, secrets)
        self._processor = processor
        self._spec = spec
        self._life = Life(processor.bus, spec.name, replica)
        self._number = 0
        self._streak = 0
        self._delivered: dict[str, int] = {}
        if spec.is_source:
            self._delivered = {port: outlet.carried for port, outlet in processor.shared.outlets.items()}
        self._ended_early = asyncio.Event()
        self._stop_cause: str | None = None
        self._ended_s: float | None = None
        self._piped_out = False
        self._restart_s = 0.0
        self._suspects = Suspects(processor, self)

    @property
    def state(self) -> InstanceState:
        """Where it is in its life."""
        return self._life.state

    @property
    def cause(self) -> str:
        """Why it is there."""
        return self._life.cause

    @property
    def alive(self) -> bool:
        """Whether it has not ended for good."""
        return not self._life.over

    @property
    def takes_more(self) -> bool:
        """Whether it, or a later run of its program, takes a message that comes now."""
        attempt = self.attempt
        if not self.alive or self._ended_early.is_set():
            return False
        if attempt is None or self._suspects.portions is not None:
            return True
        return not (attempt.asked or attempt.input_ended)

    @property
    def ended_s(self) -> float | None:
        """When its program ended last, on the loop's clock; None while it runs."""
        return self.attempt.ended_s if self.attempt is not None else self._ended_s

    @property
    def pids(self) -> tuple[int, ...]:
        """The process id of its program, while it runs and can be seen."""
        attempt = self.attempt
        return (attempt.pid,) if attempt is not None and attempt.pid else ()

    def _become(self, new: InstanceState, cause: str, exited: Exited | None = None) -> None:
        self._life.become(new, cause, attempt=self._number, exited=exited)

    @property
    def idle(self) -> Idle | None:
        """What it waits for while it runs no program by choice (batch); None: it does not."""
        return None

    # -- what the run asks of it

    def ask_to_end(self, cause: str) -> None:
        """Stop it: the stop signal, the grace period, KILL. One that waits for a restart ends at once."""
        self._stop_cause = cause
        self._ended_early.set()
        if self.attempt is not None:
            self.attempt.ask_to_end()

    def input_may_have_ended(self) -> None:
        """Something moved: see whether its input has ended, and, in a stop, start its grace period."""
        attempt = self.attempt
        if attempt is not None and self._suspects.portions is not None:
            answers, exchange = attempt.ports.answers, attempt.ports.exchange
            if answers is not None and answers.input_closed and not answers.pending_messages:
                attempt.ask_after_grace()
            elif exchange is not None and exchange.done:
                attempt.ask_to_end()
        if attempt is None or self._processor.is_source or not self._processor.writers_ended:
            return
        if attempt.stands_by and self._processor.inputs_ended:
            self._ended_early.set()
            attempt.break_off("nothing is left for it")
            return
        if attempt.input_ended and self.state is InstanceState.RUNNING:
            self._become(InstanceState.DRAINING, "its input has ended")
            if self._spec.told_by_signal:
                self._stop_cause = "its input has ended"
                self._ended_early.set()
                attempt.tell_end()
        if self._processor.stopping:
            attempt.ask_after_grace()

    def close_outputs(self) -> None:
        """All readers of what it writes have left."""
        self._ended_early.set()
        if self.attempt is not None:
            self.attempt.close_outputs()
            exchange = self.attempt.ports.exchange
            if self._spec.bridge == "zeromq" and not (exchange is not None and exchange.said_end):
                self.ask_to_end("readers left")  # nothing like EPIPE would tell it
            elif self._processor.is_source:
                self.attempt.ask_after_grace()

    def no_long_backoff(self) -> None:
        """In a stop, a restart that is further away than the grace period does not come."""
        if self._processor.stopping and self.state is InstanceState.BACKOFF:
            left_s = self._restart_s - asyncio.get_running_loop().time()
            if left_s > self._spec.stop.grace_s:
                self._ended_early.set()

    def kill(self) -> None:
        """End it now."""
        self._ended_early.set()
        if self.attempt is not None:
            self.attempt.kill()

    def end_before_start(self, cause: str) -> None:
        """It is not started at all."""
        self._become(InstanceState.EXITED, cause)

    # -- its life

    async def live(self, handle: Handle) -> None:
        """Run the program until it has ended for good; tells its processor how."""
        self.log.own = handle.write_log
        try:
            while not self._ended_early.is_set():
                failed = await self._suspects.next(self._ended_early)
                if failed is not None:
                    self._end(failed, Death(None, failed.cause))
                    return
                if self._ended_early.is_set():
                    break
                self._number += 1
                self._become(InstanceState.STARTING, "starting" if self._number == 1 else f"restart {self._number - 1}")
                outcome = await self._run_once(handle)
                exited = outcome.exited or Exited(None, None)
                self._piped_out = await self._processor.pipe_readers_left(exited, self.ended_s or 0.0)
                decision, death = self._decide(outcome)
                self._record(outcome, decision.cause)
                self._processor.settled()
                if decision.next is not Next.AGAIN:
                    self._end(decision, death)
                    return
                self.restarts += 1
                self._streak += decision.after_s > 0
                self._become(
                    InstanceState.BACKOFF,
                    f"in {format_duration(decision.after_s)}, because: {decision.cause}",
                    outcome.exited,
                )
                await self._backoff(decision.after_s)
            why = "readers left" if self._processor.readers_left else "stopped"
            self._become(InstanceState.EXITED, f"{why} before it was started" + (" again" if self._number else ""))
        finally:
            self._suspects.give_up()
            await handle.close()

    async def _run_once(self, handle: Handle) -> RunOutcome:
        return await self._run(handle, self._open_ports(), self._spec.command)

    def _open_ports(self) -> Ports:
        processor, spec = self._processor, self._spec
        skip = self._delivered if spec.is_source and spec.resume == "skip" else {}
        return Ports(
            spec,
            processor.shared,
            self.log,
            skip=skip,
            on_stray=self._stray,
            on_error=self._bad_output,
            on_progress=self.input_may_have_ended,
            on_silent=self._silent,
            on_finished=self._finished,
            owner=self.replica,
            portions=self._suspects.portions,
            on_nacked=self._nacked,
        )

    async def _run(self, handle: Handle, ports: Ports, command: tuple[str, ...]) -> RunOutcome:
        """Run the program once, on these ports."""
        processor, spec = self._processor, self._spec
        request = LaunchRequest(
            command=command,
            directory=None if spec.directory is None else str(spec.directory),
            env={
                **environment(
                    spec,
                    pipeline=processor.pipeline,
                    run=processor.run_id,
                    replica=self.replica,
                    attempt=self._attempt_number,
                    written=self._delivered,
                ),
                **ports.env,
            },
            ports=ports.theirs,
            endpoints=ports.endpoints,
        )
        prober = Prober(handle, request.directory)
        attempt = Attempt(spec, ports, handle, request, prober=prober, on_ready=self._ready, on_asked=self._asked)
        self.attempt = attempt
        self.log.watcher = attempt.line_watch
        if processor.killed:
            attempt.kill()
        elif processor.stopping and processor.is_source:
            attempt.ask_to_end()
        try:
            return await attempt.run()
        finally:
            self._ended_s = attempt.ended_s
            self.attempt = None
            self.waiting = None
            self._count_delivered(ports)

    def _count_delivered(self, ports: Ports) -> None:
        """Remember how many messages of a run that is over are in channels."""
        for collector in ports.collectors:
            for port, delivered in collector.delivered_by_port.items():
                self._delivered[port] = self._delivered.get(port, 0) + delivered

    def _ready(self) -> None:
        """Messages begin to flow."""
        self.log.watcher = None
        attempt = self.attempt
        if attempt is not None and self.state is InstanceState.STARTING:
            said = "" if self._spec.ready is None else ", ready"
            where = f" as process {attempt.pid}" if attempt.pid else ""
            self._become(InstanceState.RUNNING, f"running{where}{said}")
            self.input_may_have_ended()

    def _asked(self) -> None:
        """It is being asked to end."""
        self._become(
            InstanceState.STOPPING, self._stop_cause or f"its grace period of {self._spec.stop.grace_s:g}s is over"
        )

    @property
    def _attempt_number(self) -> int:
        """How often its program was started."""
        return self._number

    def _stray(self, payload: bytes) -> None:
        self.stray += 1
        self.log.line(payload, "stray")

    def _bad_output(self, error: RunnerError) -> None:
        if self.attempt is not None:
            self.attempt.break_off(str(error), final=True)

    def _silent(self, why: str) -> None:
        if self.attempt is not None:
            self.attempt.break_off(why)

    def _finished(self) -> None:
        """Its program has said that nothing more comes from it (acknowledged): it has the grace period to exit."""
        attempt = self.attempt
        if attempt is not None and attempt.asked and self._suspects.portions is not None:
            return  # it has seen a part alone
        self._processor.finished()
        if attempt is not None:
            attempt.ask_after_grace()

    def _nacked(self, piece: Piece, reason: str) -> bool:
        try:
            return self._suspects.nacked(piece, reason)
        except RunnerError as error:
            if self.attempt is not None:
                self.attempt.break_off(str(error), final=True)
            return False

    def _decide(self, outcome: RunOutcome) -> tuple[Decision, Death]:
        processor, spec = self._processor, self._spec
        part = self._suspects.portions is not None
        asked = self._ended_early.is_set() or (outcome.asked and not part)
        death = Death(outcome.exited, outcome.why, asked=asked)
        tried = self._suspects.judge(outcome, death)
        if outcome.ready_s >= spec.restart.reset_after_s:
            self._streak = 0
        done = outcome.done and not (part and outcome.asked)
        given = self._given_decision(outcome, death, done=done) or tried
        if given is not None:
            return given, death
        now_s = processor.clock()
        decision = decide(
            spec.restart,
            death,
            source=spec.resume if processor.is_source else None,
            failures_s=processor.failures_s,
            now_s=now_s,
            streak=self._streak,
            chance=random.random(),  # noqa: S311 - jitter, not a secret
        )
        if death.held_against:
            processor.failures_s.append(now_s)
        if decision.next is Next.AGAIN and not death.failure and not processor.is_source and not outcome.left:
            return Decision(Next.ENDED, f"{death.sentence}, all input read"), death
        return decision, death

    def _given_decision(self, outcome: RunOutcome, death: Death, *, done: bool) -> Decision | None:
        """What comes next where the policy of restarts is not asked."""
        if self._processor.readers_left or self._piped_out:
            why = "done" if outcome.done else "readers left"  # who is done ends its readers, and may end after them
            return Decision(Next.ENDED, f"{why} ({death.sentence})")
        if death.asked:
            return Decision(Next.ENDED, f"stopped ({death.sentence})")
        if outcome.final:
            return Decision(Next.FAILED, death.sentence)
        if done:
            return Decision(Next.ENDED, f"done ({death.sentence})")
        return None

    def begin_backoff_anew(self) -> None:
        """What it died of is found."""
        self._streak = 0

    async def _backoff(self, after_s: float) -> None:
        """Wait for the restart, or until it is not to come."""
        self._restart_s = asyncio.get_running_loop().time() + after_s
        self.no_long_backoff()
        if after_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(after_s):
                    await self._ended_early.wait()

    def _record(self, outcome: RunOutcome, cause: str) -> None:
        exited = outcome.exited or Exited(None, None)
        self._processor.instances.append(
            InstanceReport(
                replica=self.replica,
                attempt=self._attempt_number,
                exit=ExitReport(exited.code, exited.signal),
                cause=cause,
                peak_rss_bytes=exited.usage.peak_rss_bytes,
                cpu_s=round(exited.usage.cpu_s, 3),
            )
        )

    def _end(self, decision: Decision, death: Death) -> None:
        if decision.next is Next.ENDED:
            self._become(InstanceState.EXITED, decision.cause, death.exited)
            self._processor.inputs_moved()  # its place is for no other replica once nothing is left
            return
        self._become(InstanceState.FAILED, decision.cause, death.exited)
        self._processor.bus.emit(
            ProcessorFailed(
                processor=self._spec.name,
                replica=self.replica,
                cause=decision.cause,
                exited=death.exited,
                last_log=self.log.last_lines,
            )
        )
        self._processor.fail(decision.cause)
