"""One run of an instance's program: started, bridged, watched, ended, settled.

The order of a death (each step needs the one before; see docs/guarantees.md): the program has ended; after exit 0 its
stdout gets the grace period to end by itself; the whole tree is killed; stdout is read to its end; unread bytes of its
inputs are counted; messages are settled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runner.bridge.feeder import StreamFeeder
from runner.bridge.left import InputLeft
from runner.errors import CodecError, ContractError, LaunchError, MachineError, RunnerError
from runner.events import Exited
from runner.launch.base import Handle, LaunchRequest, ShimLostError
from runner.plan.restart import Death, describe
from runner.spec.model import Contract, Processor
from runner.supervise.health import LineWatch, Prober, until_dead, until_ready
from runner.supervise.ports import Ports
from runner.supervise.sessions import READY_WITHIN_S
from runner.units import format_count

_LOG_END_S = 1.0

_Problem = tuple[str, bool]
"""(What is wrong, whether trying again is in vain.)"""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What became of one run of a program.

    `exited` None: it was never started. `why` is why the runner ended it or what it did wrong (None: it ended by
    itself), `final` tells that it is not to be tried again. `asked`: we asked it to end. `left`: exit 0 with its input
    not ended. `ready_s`: for how long it was ready. `done`: it has said that nothing more comes (acknowledged).
    `answered` messages were answered, and `touched` more had been read, at least in part (contracts that answer).
    """

    exited: Exited | None
    why: str | None = None
    final: bool = False
    asked: bool = False
    left: bool = False
    ready_s: float = 0.0
    done: bool = False
    answered: int = 0
    touched: int = 0


class Attempt:
    """See the module. `over`: the program has ended by itself or was killed; `ended_s`: when, on the loop's clock.

    `on_ready` is called when messages begin to flow, `on_asked` when it is asked to end.
    """

    def __init__(
        self,
        spec: Processor,
        ports: Ports,
        handle: Handle,
        request: LaunchRequest,
        *,
        prober: Prober,
        on_ready: Callable[[], None],
        on_asked: Callable[[], None],
    ) -> None:
        self.pid: int | None = None
        self.ready = False
        self.asked = False
        self.over = False
        self.ended_s: float | None = None
        self.outputs_unwanted = False
        self.ports = ports
        self._spec = spec
        self._handle = handle
        self._request = request
        self._prober = prober
        self._on_ready = on_ready
        self._on_asked = on_asked
        self._loop = asyncio.get_running_loop()
        self._broken: asyncio.Future[_Problem] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._ready_at_s: float | None = None
        self._watch: LineWatch | None = None
        if spec.ready is not None and spec.ready.kind == "line":
            assert isinstance(spec.ready.value, str)
            self._watch = LineWatch(spec.ready.value)

    @property
    def waiting(self) -> str | None:
        """What its start waits for that somebody else has to bring, and is missed."""
        return None if self.pid is not None or self._handle.standby else self._handle.waiting

    @property
    def stands_by(self) -> bool:
        """Whether it waits for what nobody misses."""
        return self.pid is None and self._handle.standby and self._handle.waiting is not None

    @property
    def line_watch(self) -> LineWatch | None:
        """What the log must be shown to until the program is ready."""
        return self._watch

    def break_off(self, why: str, *, final: bool = False) -> None:
        """End the run now, killing the tree; the first reason counts."""
        if not self._broken.done():
            self._broken.set_result((why, final))

    def ask_to_end(self) -> None:
        """The stop ladder: the stop signal, the grace period, KILL of the tree."""
        if self.asked or self.over:
            return
        self.asked = True
        self._on_asked()
        self._cancel_timer()
        if self.pid is None and self._handle.waiting is not None:
            self.break_off(self._handle.waiting)  # who may never come
            return
        if self.pid is not None:
            self._handle.signal(self._spec.stop.signal_number)
        self._timer = self._loop.call_later(self._spec.stop.grace_s, self.kill)

    def tell_end(self) -> None:
        """The stop signal, which says that its input has ended: KILL comes once it makes nothing of that any more.

        It has the grace period again and again as long as it writes on, or waits for those who read that.
        """
        self.ask_to_end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._spec.stop.grace_s, self._still_at_it, self._written())

    def _still_at_it(self, written_before: int) -> None:
        written = self._written()
        if written > written_before or any(collector.paused for collector in self.ports.collectors):
            self._timer = self._loop.call_later(self._spec.stop.grace_s, self._still_at_it, written)
        else:
            self.kill()

    def _written(self) -> int:
        return sum(collector.delivered for collector in self.ports.collectors)

    def ask_after_grace(self) -> None:
        """Nothing more comes for it: it has the grace period before it is asked to end.

        And again as long as it reads on, or waits for those who read what it writes; `drain` bounds that.
        """
        if self.pid is None and self._handle.waiting is not None:
            self.ask_to_end()
        elif self._timer is None and not self.asked and not self.over:
            self._timer = self._loop.call_later(self._spec.stop.grace_s, self._grace_over, self._read_bytes())

    def _grace_over(self, read_before: int) -> None:
        self._timer = None
        held_up = any(collector.paused for collector in self.ports.collectors)
        if held_up or self._read_bytes() > read_before:
            self.ask_after_grace()
        else:
            self.ask_to_end()

    def _read_bytes(self) -> int:
        return sum(feeder.written_bytes - feeder.unread_bytes for feeder in self.ports.feeders)

    def kill(self) -> None:
        """End it at once; we asked for it."""
        self.asked = self.asked or not self.over
        self.break_off("killed: it did not end when asked")

    def close_outputs(self) -> None:
        """Nobody reads what it writes: it gets EPIPE."""
        self.outputs_unwanted = True
        for collector in self.ports.collectors:
            if self.ports.exchange is not None or collector.port in {port.name for port in self._spec.writes}:
                collector.close()
        # Nothing can be answered any more, and it may be waiting for input rather than write.
        if self.ports.exchange is not None:
            self.ports.exchange.end_now()
        elif self.ports.answers is not None:
            self.ports.answers.end_soon()
        else:
            return
        self.ask_after_grace()

    @property
    def input_ended(self) -> bool:
        """Whether all inputs that we feed have been given their end."""
        return all(feeder.input_ended for feeder in self.ports.feeders)

    async def run(self) -> RunOutcome:
        """Run the program once, to its settled end."""
        try:
            try:
                self.pid = await self._started()
                if self.pid is None:
                    why, final = self._broken.result()
                    return RunOutcome(None, why=why, final=final, asked=self.asked)
            except ShimLostError:
                return RunOutcome(Exited(None, None), asked=self.asked)
            except RunnerError as error:
                return RunOutcome(None, why=str(error), final=isinstance(error, LaunchError), asked=self.asked)
            finally:
                self.ports.handed_over()
            if self.asked:
                self._handle.signal(self._spec.stop.signal_number)
            async with asyncio.TaskGroup() as group:
                health = group.create_task(self._health())
                exited = await self._until_exit(group)
                health.cancel()
            return await self._settle(exited)
        finally:
            self._cancel_timer()
            self.ports.abandon()  # nothing is left of them, unless it was not started or the run is broken off

    async def _started(self) -> int | None:
        """Start the program, which may take long (an engine that is away); None when it is not wanted any more."""
        starting = asyncio.ensure_future(self._handle.start(self._request))
        waited: set[asyncio.Future[Any]] = {starting, self._broken}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        return None if starting.cancelled() else starting.result()

    async def _health(self) -> None:
        check = self._spec.ready
        if check is not None:
            why = await until_ready(check, self._prober, self._watch)
            if why is not None:
                self.break_off(why)
                return
        if not await self._opened():
            return
        self.ready = True
        self._ready_at_s = self._loop.time()
        self._on_ready()
        for collector in self.ports.collectors:
            collector.begin()
        for feeder in self.ports.feeders:
            feeder.begin()
        if self._spec.live is not None:
            self.break_off(await until_dead(self._spec.live, self._prober))

    async def _opened(self) -> bool:
        """Whether the program has opened its session, where it has one."""
        exchange, check = self.ports.exchange, self._spec.ready
        if exchange is None:
            return True
        within_s = READY_WITHIN_S if check is None else check.timeout_s
        for collector in self.ports.collectors:
            collector.begin()
        try:
            async with asyncio.timeout(within_s):
                await exchange.opened.wait()
        except TimeoutError:
            self.break_off(f"not ready within {within_s:g}s: no `ready` frame came (docs/protocol.md)")
            return False
        return True

    async def _until_exit(self, group: asyncio.TaskGroup) -> Exited:
        ending = group.create_task(self._handle.exited())
        waited: set[asyncio.Future[Any]] = {ending, self._broken}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await self._handle.kill_tree()
        return await ending

    async def _settle(self, exited: Exited) -> RunOutcome:
        """The order of a death, from the end of the program on."""
        self.over = True
        self.ended_s = self._loop.time()
        self._cancel_timer()
        ready_s = 0.0 if self._ready_at_s is None else self._loop.time() - self._ready_at_s
        for feeder in self.ports.feeders:
            feeder.stop()
        if exited.ok and not self._broken.done():
            await self._outputs_end(self._spec.stop.grace_s)
        await self._handle.kill_tree()
        for feeder in self.ports.feeders:
            await feeder.count_unread()
        problem = await self._read_to_end(exited)
        if self.ports.answering is not None:
            self.ports.answering.blamed = problem is None and self._blames_messages(exited)
        lefts, other = self._settle_inputs(exited)
        problem = problem or other
        await self._logs_end()
        if self._broken.done():
            problem = self._broken.result()  # which came first, or is the broken contract that the reading has found
        elif problem is None and not self.asked and not self.outputs_unwanted:
            problem = self._contract_broken(exited, lefts)
        why, final = problem or (None, False)
        left = exited.ok and any(not item.ended for item in lefts)
        done = self.ports.exchange is not None and self.ports.exchange.said_end
        answered = 0
        if self.ports.exchange is not None:
            answered = self.ports.exchange.committed
        elif self.ports.answers is not None:
            answered = self.ports.answers.answered
        touched = sum(item.touched for item in lefts)
        return RunOutcome(exited, why, final, self.asked, left, ready_s, done, answered, touched)

    def _blames_messages(self, exited: Exited) -> bool:
        """Whether what it had in work may be why it died."""
        why, final = self._broken.result() if self._broken.done() else (None, False)
        return Death(exited, why, asked=self.asked).held_against and not final

    async def _read_to_end(self, exited: Exited) -> _Problem | None:
        """Deliver whatever the program has written; what is wrong with the end of it."""
        problem: _Problem | None = None
        for collector in self.ports.collectors:
            await collector.read_to_end()
            try:
                collector.finish(clean=exited.ok and not self.outputs_unwanted)
            except (CodecError, ContractError, MachineError) as error:
                problem = problem or (str(error), True)
        return problem

    def _settle_inputs(self, exited: Exited) -> tuple[list[InputLeft], _Problem | None]:
        """Account for each input; (what was left of those that could be settled, what is wrong with another)."""
        lefts: list[InputLeft] = []
        problem: _Problem | None = None
        for feeder in self.ports.feeders:
            try:
                lefts.append(feeder.settle())
            except ContractError as error:
                problem = problem or (str(error), True)
            if isinstance(feeder, StreamFeeder):
                self._account(feeder, exited)
        return lefts, problem

    async def _outputs_end(self, grace_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                for collector in self.ports.collectors:
                    collector.begin()
                    collector.program_has_ended()
                    await collector.ended.wait()

    async def _logs_end(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOG_END_S):
                for log in self.ports.logs:
                    await log.ended.wait()
        for log in self.ports.logs:
            log.close()

    def _account(self, feeder: StreamFeeder, exited: Exited) -> None:
        """What a `stream` port has read is acknowledged by exit 0, else indeterminate."""
        for reader in feeder.inlet.readers:
            reader.was_read(feeder.hand_in(reader), handled=exited.ok)

    def _contract_broken(self, exited: Exited, lefts: list[InputLeft]) -> _Problem | None:
        """What a program that exited with 0 did against its contract; None when it kept it."""
        if self.ports.exchange is not None and exited.ok and not self.ports.exchange.said_end:
            return f"ended ({describe(exited)}) without saying `end`", False
        if self._spec.contract is not Contract.ONE_TO_ONE or not exited.ok or self.ports.answers is None:
            return None
        left = lefts[self.ports.feeders.index(self.ports.answers)]
        if left.unanswered:
            missing = f"{left.first_unanswered} has none ({left.unanswered:,} in all)"
            return f"ended ({describe(exited)}) with answers missing: {missing}", True
        if not left.ended:
            unread = format_count(left.unread, "message")
            return f"ended ({describe(exited)}) before the end of its input, with {unread} unread", True
        return None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
