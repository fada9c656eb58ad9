"""The home `process`: a bare process, started by a shim of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import replace
from functools import cached_property, partial
from typing import ClassVar

from runner.errors import MachineError
from runner.events import Exited, Warned
from runner.launch.base import Handle, LaunchContext, Launcher, LaunchRequest
from runner.launch.cgroup import CgroupHome, Group
from runner.launch.cgroup_places import CONTROLLERS
from runner.launch.endpoints import EndpointFolder, EndpointFolders
from runner.launch.shim.locate import shim_path
from runner.launch.shim_client import Job, ShimConnection
from runner.launch.tree import become_subreaper, carries_mark, end_orphans
from runner.plan.limits import asked, rlimits
from runner.spec.model import Processor, Resources
from runner.units import format_size

_ALL_SIGNALS = signal.valid_signals()
_SHIM_SOCKET = 3
_SPARE_PIDS = 1  # the shim


class ProcessHandle(Handle):
    """One shim and what runs under it, in a control group if it has limits. A shim that died is replaced at a start."""

    def __init__(
        self,
        launcher: ProcessLauncher,
        resources: Resources,
        group: Group | None,
        endpoints: EndpointFolder | None = None,
    ) -> None:
        self._launcher = launcher
        self._endpoints = endpoints
        self._resources = resources
        self._group = group
        self._oom_kills = 0
        self._job: Job | None = None
        self._loop = asyncio.get_running_loop()
        self._connection: ShimConnection | None = None
        self._shim_pid = 0
        self._program = 0
        self._pidfd = -1
        self._reaped = asyncio.Event()
        self._reaped.set()

    async def start(self, request: LaunchRequest) -> int:
        """See `Handle`."""
        environment = {**os.environ, **request.env}
        if self._endpoints is not None:
            environment |= self._endpoints.listen(request.endpoints)
        limits = rlimits(self._resources, self.held)
        return await self.start_job(Job(request.command, request.directory or "", environment, request.ports, limits))

    async def start_job(self, job: Job) -> int:
        """Like `start`, for a job that says all there is to say."""
        if self._connection is None or self._connection.lost:
            await self._reaped.wait()
            self._connection = self._spawn_shim()
        self._job = job
        self.begin()
        self._program = await self._connection.start(job)
        return self._program

    async def exited(self) -> Exited:
        """See `Handle`. After the death of the shim it waits until the shim's orphans are ended too."""
        assert self._connection is not None
        exited = await self._connection.exited()
        if self._connection.lost:
            await self._reaped.wait()
        return self.explain(exited)

    @property
    def held(self) -> frozenset[str]:
        """The resources that its control group holds."""
        return frozenset() if self._group is None else self._group.held

    def begin(self) -> None:
        """A run of a program begins: what was killed for want of memory before has nothing to do with it."""
        self._oom_kills = 0 if self._group is None else self._group.oom_kills()

    def explain(self, exited: Exited) -> Exited:
        """The same end, with a note when the limit of memory was its cause; a lost shim was killed by it too."""
        if exited.ok or self._group is None or self._group.oom_kills() <= self._oom_kills:
            return exited
        limit = format_size(self._resources.memory_bytes or 0).replace(".0 ", " ")
        number = int(signal.SIGKILL) if exited.code is None and exited.signal is None else exited.signal
        return replace(exited, signal=number, note=f"out of memory: its limit is {limit}")

    @property
    def shim_died(self) -> bool:
        """Whether the shim itself is dead."""
        return self._connection is not None and self._connection.lost

    def signal(self, signal_number: int) -> None:
        """See `Handle`."""
        if self._connection is not None:
            self._connection.signal(signal_number)

    async def probe(self, command: tuple[str, ...]) -> Exited:
        """See `Handle`."""
        assert self._job is not None
        assert self._connection is not None
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return await self._connection.probe(
                replace(self._job, command=command, ports=dict.fromkeys(range(3), null))
            )
        finally:
            os.close(null)

    async def kill_tree(self) -> None:
        """See `Handle`."""
        if self._connection is not None:
            await self._connection.kill_tree()
            if self._connection.lost:
                await self._reaped.wait()

    async def close(self) -> None:
        """See `Handle`."""
        if self._connection is not None:
            self._connection.close()
            await self._reaped.wait()
        if self._group is not None:
            await self._group.remove()
        if self._endpoints is not None:
            self._endpoints.remove()

    def _spawn_shim(self) -> ShimConnection:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            spawn = partial(self._launcher.spawn_shim, theirs.fileno())
            self._shim_pid = spawn() if self._group is None else self._group.spawn(spawn)
        except OSError as error:
            ours.close()
            raise MachineError(
                f"the shim {self._launcher.shim} cannot be started: {os.strerror(error.errno or 0)}",
                remedy="free some processes or descriptors, or raise this user's limits",
            ) from error
        finally:
            theirs.close()
        try:
            self._pidfd = os.pidfd_open(self._shim_pid)
        except OSError:
            ours.close()
            os.waitpid(self._shim_pid, 0)  # its socket has ended, so it ends
            raise
        self._reaped.clear()
        self._launcher.shims.add(self._shim_pid)
        self._loop.add_reader(self._pidfd, self._reap)
        try:
            if self._group is not None:
                self._group.add(self._shim_pid)  # before it has a job, so that nothing is ever outside
        except ProcessLookupError:
            pass  # it has died, and the start will say so
        except OSError as error:
            ours.close()
            raise MachineError(f"the shim cannot be put into its control group: {error}") from error
        return ShimConnection(ours)

    def _reap(self) -> None:
        """Reap the shim; what it left behind has become ours and is ended now."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        with contextlib.suppress(ChildProcessError):  # somebody else in this process may reap all there is
            os.waitpid(self._shim_pid, 0)
        self._launcher.shims.discard(self._shim_pid)
        if self._group is not None:
            self._group.kill()
        self._launcher.end_orphans(self._program)
        self._reaped.set()


class ProcessLauncher(Launcher):
    """Starts shims.

    Where this process has no other children (`exclusive`) every unknown child is an orphan of the run. Otherwise (the
    runner is part of somebody's program) only processes that carry the run's mark in their environment are touched.
    """

    name = "process"
    shims: ClassVar[set[int]] = set()
    """The living ones of all launchers of this process: to none of them is another's shim an orphan."""

    def __init__(self, context: LaunchContext) -> None:
        self.shim = str(shim_path())
        self.endpoints = EndpointFolders()
        self._context = context
        self._mark = f"CONNECTOR_RUN={context.run}".encode()
        try:
            become_subreaper()
        except OSError as error:
            raise MachineError(f"this process cannot become a subreaper: {error}") from error

    def spawn_shim(self, channel: int) -> int:
        """Start a shim that has its end of the socket; its process id. Raises OSError."""
        return os.posix_spawn(
            self.shim,
            [self.shim, str(_SHIM_SOCKET)],
            {"CONNECTOR_SHIM": "1"},  # not empty, or it would look like a process that is dying (`tree.py`)
            file_actions=[
                (os.POSIX_SPAWN_DUP2, channel, _SHIM_SOCKET),
                *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)),
            ],
            setsigmask=(),
            setsigdef=_ALL_SIGNALS,
        )

    async def open(self, spec: Processor, replica: int) -> ProcessHandle:
        """See `Launcher`; the shim itself comes with the first start."""
        endpoints = await self.endpoints.make(None) if spec.bridge == "zeromq" else None
        return ProcessHandle(self, spec.resources, self._group(spec, replica, _SPARE_PIDS), endpoints)

    def handle(self, spec: Processor, replica: int, *, spare_pids: int) -> ProcessHandle:
        """One for somebody else's use; `spare_pids`: how many processes there may be beside those of the spec."""
        return ProcessHandle(self, spec.resources, self._group(spec, replica, spare_pids))

    async def close(self) -> None:
        """See `Launcher`."""
        self.endpoints.close()
        if "_cgroups" in self.__dict__:
            self._cgroups.close()

    @cached_property
    def _cgroups(self) -> CgroupHome:
        home = CgroupHome.find()
        home.sweep()
        return home

    def _group(self, spec: Processor, replica: int, spare_pids: int) -> Group | None:
        """A control group where the spec asks for something that it can hold, and this machine lets us make one."""
        if not asked(spec.resources) & CONTROLLERS.keys():
            return None
        try:
            name = f"{self._context.run}.{spec.name}.{replica}"
            return self._cgroups.make(name, spec.resources, spare_pids=spare_pids)
        except OSError as error:
            why = f"its resources are held by rlimits alone: no control group could be made ({error})"
            self._context.notify(Warned(message=why, processor=spec.name))
            return None

    def end_orphans(self, program: int) -> None:
        """End what a dead shim left behind; `program` is the process that it started last (0: none)."""
        end_orphans(self._is_orphan, {program} - {0})

    def _is_orphan(self, pid: int) -> bool:
        if pid in self.shims:
            return False
        return self._context.exclusive or carries_mark(pid, self._mark)
