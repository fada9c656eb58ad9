"""The home `attached`: a container that somebody else starts, with a shim that stays as its first process.

The container is shown the folder of its processor, in which it finds the shim and the runner's socket; nothing else
joins the two, and no engine is asked. Who connects at a processor's socket gets that processor's program and nothing
more, so a container reaches the data of its own processor only. The program is started again and again in the same
container; when the container ends, the instance waits for the next that comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from runner.errors import BugError, LaunchError, MachineError
from runner.events import Exited, WaitChanged, Warned
from runner.launch.attached_folder import AttachedFolder
from runner.launch.base import FROM_INSIDE, Handle, LaunchContext, Launcher, LaunchRequest, ShimLostError
from runner.launch.peer import seen_from_here
from runner.launch.pipes import open_to
from runner.launch.seats import Bridge, Seat
from runner.launch.shim.locate import shim_path
from runner.launch.shim_client import Job
from runner.spec.model import Processor

_SAY_WAIT_AFTER_S = 2.0
_LONGEST_START_S = 60.0
_LONGEST_KILL_S = 10.0
_TOGETHER_S = 1.0
_LATECOMERS_S = 6.0
_ENDPOINTS_WAITING = 8


class AttachedHandle(Handle):
    """See the module. It keeps its seat for as long as it is usable."""

    checks_inside = FROM_INSIDE

    def __init__(self, launcher: AttachedLauncher, bridge: Bridge, spec: Processor, replica: int) -> None:
        self.ended = False
        self._launcher = launcher
        self._bridge = bridge
        self._spec = spec
        self._replica = replica
        self._seat: Seat | None = None
        self._asked: asyncio.Future[Seat] | None = None
        self._had_one = False
        self._job: Job | None = None
        self._ending: asyncio.Task[Exited] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._endpoints: list[str] = []

    async def start(self, request: LaunchRequest) -> int:
        """See `Handle`. Waits for a container."""
        if self.ended:
            raise BugError("a handle that was closed was started")
        seat = self._seat
        if seat is None or not seat.usable:
            self._release()
            seat = self._seat = await self._seated()
        open_to(request.ports.values(), None)
        command = (*(self._spec.entrypoint or ()), *request.command)
        env = {**request.env, **self._listen(seat, request)}
        self._job = Job(command, request.directory or "", env, request.ports, inherit_env=True)
        try:
            async with asyncio.timeout(_LONGEST_START_S):
                inside = await seat.connection.start(self._job)
        except ShimLostError:
            raise
        except TimeoutError:
            seat.break_off()
            raise ShimLostError(f"cannot be started: its shim did not answer for {_LONGEST_START_S:.0f}s") from None
        except LaunchError as error:
            what = f'"{command[0]}" in its container {error.what}'
            raise LaunchError(what, where=error.where, remedy=error.remedy) from error
        except asyncio.CancelledError:
            seat.break_off()
            raise
        seat.on_leaving = self._container_stops
        if seat.leaving:
            self._container_stops()
        self._ending = asyncio.create_task(_end(seat))
        return seen_from_here(seat.pid, inside)

    def write_log(self, text: str) -> bool:
        """See `Handle`."""
        return self._launcher.context.own_logs and self._seat is not None and self._seat.write_log(text)

    async def exited(self) -> Exited:
        """See `Handle`."""
        if self._ending is None:
            raise BugError("a program that was never started was waited for")
        return await asyncio.shield(self._ending)

    def signal(self, signal_number: int) -> None:
        """See `Handle`."""
        if self._seat is not None:
            self._seat.connection.signal(signal_number)

    async def probe(self, command: tuple[str, ...]) -> Exited:
        """See `Handle`."""
        if self._seat is None or self._job is None:
            raise LaunchError("cannot be probed: it was not started")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            job = replace(self._job, command=command, ports=dict.fromkeys(range(3), null))
            return await self._seat.connection.probe(job)
        finally:
            os.close(null)

    async def kill_tree(self) -> None:
        """See `Handle`. A shim that does not do it (its container is paused) does it before it comes back."""
        seat = self._seat
        if seat is None:
            return
        try:
            async with asyncio.timeout(_LONGEST_KILL_S):
                await seat.connection.kill_tree()
        except TimeoutError:
            seat.break_off()
        if seat.leaving:
            self._stop_grace()
            seat.let_go()

    async def close(self) -> None:
        """See `Handle`. Its container is for another instance, or waits for the end of the run."""
        self.ended = True
        if self._asked is not None:
            self._bridge.withdraw(self._asked)
        await self.kill_tree()
        self._release()
        if self._ending is not None:
            await asyncio.wait({self._ending})

    async def _seated(self) -> Seat:
        """A container for it; says what it waits for where none is there."""
        name = self._spec.name
        self.standby = self._replica > 1 and not self._had_one
        self.waiting = f"waiting for a container of `{name}`" + (" (docker start?)" if self._had_one else "")
        said = False

        def say() -> None:
            nonlocal said
            said = True
            self._launcher.context.notify(WaitChanged(processor=name, replica=self._replica, cause=self.waiting))

        timer = asyncio.get_running_loop().call_later(_SAY_WAIT_AFTER_S, say)
        if self.standby:
            timer.cancel()
        asked = self._asked = self._bridge.ask(standby=self.standby)
        try:
            seat = await asked
        except asyncio.CancelledError:
            self._bridge.withdraw(asked)
            if self.ended and not _cancelled():
                raise ShimLostError("cannot be started: it was closed meanwhile") from None
            raise
        finally:
            timer.cancel()
            self._asked = self.waiting = None
        if said:
            self._launcher.context.notify(WaitChanged(processor=name, replica=self._replica, cause=None))
        self._had_one = True
        return seat

    def _listen(self, seat: Seat, request: LaunchRequest) -> dict[str, str]:
        """The variables of its endpoints: sockets in the folder, which its container sees where the shim says."""
        self._clear_endpoints()
        variables = {}
        for variable, take in request.endpoints.items():
            name, listener = self._bridge.folder.endpoint(_ENDPOINTS_WAITING)
            self._endpoints.append(name)
            take(listener)
            variables[variable] = f"ipc://{seat.inside}/{name}"
        return variables

    def _clear_endpoints(self) -> None:
        for name in self._endpoints:
            self._bridge.folder.remove(name)
        self._endpoints.clear()

    def _container_stops(self) -> None:
        """Somebody stops this container alone: its program has the grace period, as in any stop."""
        seat = self._seat
        assert seat is not None
        seat.connection.signal(self._spec.stop.signal_number)
        self._grace = asyncio.get_running_loop().call_later(self._spec.stop.grace_s, seat.let_go)

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _release(self) -> None:
        """Let go of the seat."""
        self._clear_endpoints()
        self._stop_grace()
        if self._seat is not None:
            self._bridge.give_back(self._seat)
            self._seat = None


class AttachedLauncher(Launcher):
    """Has the folders of all attached processors, and looks after what their containers are told."""

    name = "attached"

    def __init__(self, context: LaunchContext) -> None:
        self.context = context
        self._bridges: dict[str, Bridge] = {}
        self._handles: list[AttachedHandle] = []
        self._told: set[tuple[str, str]] = set()
        self._came = asyncio.Event()
        self._together: asyncio.TimerHandle | None = None

    async def prepare(self, specs: Sequence[Processor]) -> None:
        """See `Launcher`: from here on shims can connect."""
        place = self.context.bridges
        if place is None:
            raise MachineError(
                "nobody has said where the folders of attached processors are", remedy="use connector sidecar"
            )
        shim = shim_path()
        for spec in specs:
            folder = AttachedFolder(place / spec.name)
            try:
                folder.install(shim)
                self._bridges[spec.name] = Bridge(
                    folder,
                    spec.replicas,
                    on_asked=self._container_asked,
                    on_come=self._came.set,
                    on_misfit=partial(self._misfit, spec.name),
                )
            except BaseException:
                folder.close()
                raise

    async def open(self, spec: Processor, replica: int) -> AttachedHandle:
        """See `Launcher`; the container comes with the first start."""
        handle = AttachedHandle(self, self._bridges[spec.name], spec, replica)
        self._handles.append(handle)
        return handle

    def tell_over(self, code: int) -> None:
        """See `Launcher`."""
        for bridge in self._bridges.values():
            bridge.tell_over(code)

    async def close(self) -> None:
        """See `Launcher`. Containers that are away when the run is over are told when they come, for a while."""
        if self._together is not None:
            self._together.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LATECOMERS_S):
                while any(bridge.over is not None and bridge.missing for bridge in self._bridges.values()):
                    self._came.clear()
                    await self._came.wait()
        for bridge in self._bridges.values():
            await bridge.close()

    def _container_asked(self) -> None:
        """A container is asked to stop: see for a moment whether that is about all of them."""
        if self._together is not None:
            self._together.cancel()
        self._together = asyncio.get_running_loop().call_later(_TOGETHER_S, self._judge_stop)

    def _judge_stop(self) -> None:
        """All that are here are asked to stop: the run is stopped in order. Else those that are asked leave it.

        Those whose programs are done count as well: who stops a project asks them too, who restarts one service does
        not. In a run that is being stopped anyway they have its end to wait for.
        """
        if self.context.stopping():
            return
        seats = [seat for bridge in self._bridges.values() for seat in bridge.seats]
        if any(seat.taken for seat in seats) and all(seat.asked for seat in seats):
            self.context.stop("the containers of all its processors are being stopped")
            return
        for seat in seats:
            if seat.asked and not seat.leaving:
                seat.leave()

    def _misfit(self, processor: str, text: str) -> None:
        """Somebody was turned away; the same of the same processor is said once."""
        if (processor, text) not in self._told:
            self._told.add((processor, text))
            self.context.notify(Warned(message=text, processor=processor))


async def _end(seat: Seat) -> Exited:
    """Wait for the end of the program in it, and say what the exit status does not."""
    exited = await seat.connection.exited()
    if seat.leaving or (exited.code is None and exited.signal is None and seat.asked):
        return Exited(None, None, exited.usage, note="its container was stopped")
    if exited.code is None and exited.signal is None:
        return replace(exited, note="its container has gone")
    return exited


def _cancelled() -> bool:
    """Whether the task that asks is being cancelled itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
