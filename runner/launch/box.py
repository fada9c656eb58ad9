"""One container, from its creation to its removal, and the shim in it: what its end was, and by what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.errors import MachineError
from runner.events import Exited
from runner.launch.base import ShimLostError
from runner.launch.cgroup_places import hierarchies, own_folder, own_paths
from runner.launch.engine import ContainerState, Engine, EngineAwayError
from runner.launch.peer import peer_of
from runner.launch.shim_client import ShimConnection
from runner.launch.sockets import Door
from runner.spec.model import Processor
from runner.units import format_size

_FIRST_WORD_S = 30.0
_LOOK_EVERY_S = 1.0
_LONGEST_END_S = 10.0
_KILLED = 128 + signal.SIGKILL


class Box:
    """See the module. `name` is the engine's for it; `pid` its first process as seen from here, 0 where it is not.

    `folder` is the private one of this machine that it is shown.
    """

    def __init__(self, engine: Engine, name: str, door: Door, channel: socket.socket) -> None:
        self.name = name
        self.folder = door.folder
        self.pid = peer_of(channel)
        self._engine = engine
        self._door = door
        self._stopped = False
        self._released = False
        self._gone = asyncio.Event()
        self._pidfd = -1
        with contextlib.suppress(OSError):
            self._pidfd = os.pidfd_open(self.pid) if self.pid else -1
        if self._pidfd >= 0:
            asyncio.get_running_loop().add_reader(self._pidfd, self._died)
        self._kills_file = _memory_events(self.pid)
        self._kills = 0
        self.connection = ShimConnection(channel, on_stop_requested=self._stop_requested)

    @property
    def usable(self) -> bool:
        """Whether another program can be started in it."""
        return not self.connection.lost and not self._stopped

    def begin(self) -> None:
        """A run of a program begins."""
        self._kills = self._oom_kills() or 0

    async def end(self, spec: Processor) -> Exited:
        """Wait for the end of the program, and say what the exit status does not."""
        exited = await self.connection.exited()
        if exited.ok or self._released:
            return exited
        if exited.code is None and exited.signal is None:
            kills = self._oom_kills()  # before anything is waited for: its control group goes as well
            await self.gone()
            return await self._explain(exited, spec, kills)
        return replace(exited, note=_short_of_memory(spec)) if await self._oom_killed(exited) else exited

    async def _explain(self, exited: Exited, spec: Processor, kills: int | None) -> Exited:
        """The end of a program whose container has ended under it: a note, and SIGKILL where it is its own fault.

        What the engine says of memory holds for all runs in a container, so it matters only where `kills`, the count
        of those for want of memory, is not known, and none went before.
        """
        if kills is not None and kills > self._kills:
            return replace(exited, signal=int(signal.SIGKILL), note=_short_of_memory(spec))
        if self._stopped:
            return replace(exited, note="its container was stopped, by the engine or by somebody")
        try:
            state = await self._engine.end_state(self.name)
        except EngineAwayError:
            return replace(exited, note="its container ended with the engine")
        except MachineError as error:
            return replace(exited, note=f"its container has ended ({error.what})")
        if state is not None and state.out_of_memory and kills is None and not self._kills:
            return replace(exited, signal=int(signal.SIGKILL), note=_short_of_memory(spec))
        own = spec.untrusted and not _ended_from_outside(state)  # or it might find a way to die for ever
        return replace(exited, signal=int(signal.SIGKILL) if own else None, note=_how_it_ended(state))

    def release(self) -> None:
        """Nobody wants it any more: the shim kills all and ends. May be called more than once."""
        self._released = True
        self.connection.close()

    async def gone(self) -> None:
        """Wait until its first process is dead, and with it every other (pid_namespaces(7)); at last it is forced."""
        if self._pidfd < 0 and not self._gone.is_set():
            with contextlib.suppress(MachineError):
                await self._engine.end_state(self.name)
            return
        try:
            async with asyncio.timeout(_LONGEST_END_S):
                await self._gone.wait()
        except TimeoutError:
            await self.end_by_force()

    async def end_by_force(self) -> None:
        """SIGKILL its first process, past the shim."""
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with contextlib.suppress(MachineError):
            await self._engine.kill(self.name)  # it also wakes one that is paused
        if self._pidfd >= 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_END_S):
                    await self._gone.wait()
        self.connection.close()

    async def close(self) -> None:
        """It has been removed: let go of what belongs to it here. May be called more than once."""
        self.release()
        if self._pidfd >= 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_END_S):
                    await self._gone.wait()
            self._died()
        self._door.close()

    def _died(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._gone.set()

    def _stop_requested(self) -> None:
        """Somebody stops the container: it is over at once, before the engine kills the shim."""
        self._stopped = True
        self.connection.close()

    def _oom_kills(self) -> int | None:
        """How many of its processes were killed for want of memory; None where that cannot be read."""
        if self._kills_file is None:
            return None
        try:
            counts = dict(line.split(" ", 1) for line in self._kills_file.read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, KeyError, ValueError):
            return None

    async def _oom_killed(self, exited: Exited) -> bool:
        kills = self._oom_kills()
        if kills is not None:
            return kills > self._kills
        if exited.signal != signal.SIGKILL:
            return False
        with contextlib.suppress(MachineError):
            state = await self._engine.state(self.name)
            return state is not None and state.out_of_memory
        return False


async def open_box(
    engine: Engine, name: str, config: Mapping[str, Any], door: Door, remove: Callable[[str], Awaitable[None]]
) -> Box:
    """Make the container, start it, let its shim in; it is removed (by `remove`) when that fails or is cancelled."""
    try:
        await engine.create(name, config)
        await engine.start(name)
        return Box(engine, name, door, await _let_in(engine, name, door))
    except BaseException:
        try:
            await remove(name)
        finally:
            door.close()
        raise


async def _let_in(engine: Engine, name: str, door: Door) -> socket.socket:
    """The connection of the container's shim. Raises ShimLostError when it ends before, or says nothing."""
    waiting = asyncio.create_task(door.first())
    try:
        state: ContainerState | None = None
        for _ in range(round(_FIRST_WORD_S / _LOOK_EVERY_S)):
            await asyncio.wait({waiting}, timeout=_LOOK_EVERY_S)
            if waiting.done():
                return waiting.result()
            state = await engine.state(name)
            if state is None or not state.running:
                raise ShimLostError(f"cannot be started: {_how_it_ended(state)} before its shim came")
        raise ShimLostError(f"cannot be started: its shim did not come within {_FIRST_WORD_S:.0f}s")
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})


def _memory_events(pid: int) -> Path | None:
    """The file that counts what was killed for want of memory in the control group of `pid`."""
    with contextlib.suppress(OSError):
        paths = own_paths(Path(f"/proc/{pid}/cgroup").read_text())
        for mounted in hierarchies(Path("/proc/self/mountinfo").read_text()):
            key = "" if mounted.version == 2 else "memory"
            if key in paths and (mounted.version == 2 or "memory" in mounted.controllers):
                folder = own_folder(mounted, paths[key])
                file = None if folder is None else folder / _EVENTS[mounted.version]
                if file is not None and file.exists():
                    return file
    return None


_EVENTS = {1: "memory.oom_control", 2: "memory.events"}


def _short_of_memory(spec: Processor) -> str:
    if spec.resources.memory_bytes is None:
        return "out of memory: the machine has no more"
    limit = format_size(spec.resources.memory_bytes).replace(".0 ", " ")
    return f"out of memory: its limit is {limit}"


def _ended_from_outside(state: ContainerState | None) -> bool:
    """Whether nobody in it can have done that: SIGKILL does not reach the first process (pid_namespaces(7))."""
    return state is None or (not state.running and state.code == _KILLED)


def _how_it_ended(state: ContainerState | None) -> str:
    if state is None:
        return "its container was removed"
    if state.running:
        return "its shim died"
    if state.code == _KILLED:
        return "its container was killed"
    return f"its container ended with exit {state.code}{': ' + state.error if state.error else ''}"
