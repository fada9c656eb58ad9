"""The home `sandbox`: a command behind bubblewrap, started by two shims.

The *outer* shim is that of a bare process, in the instance's control group. It starts bwrap, as a user of the
instance's own where it is not trusted, and bwrap starts the *inner* shim as PID 1 of the sandbox; that one starts the
program. So the inner one's end is the end of everything in the sandbox, and the outer one's end is the end of bwrap,
of which the inner one dies. The shim's program is not in the sandbox: bwrap executes it by a descriptor.

What a network of "host" means: all of the machine's network namespace, with it the abstract unix sockets that others
listen at (unix(7)); a file system's sockets are only there where a mount shows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from runner.errors import LaunchError, MachineError, RunnerError
from runner.events import Exited
from runner.launch import bubblewrap
from runner.launch.base import (
    FILES_INSIDE,
    FROM_INSIDE,
    PROBE,
    Handle,
    LaunchContext,
    Launcher,
    LaunchRequest,
    ShimLostError,
)
from runner.launch.endpoints import EndpointFolder
from runner.launch.machine import gather_for
from runner.launch.memory_files import memory_file, sealed_program
from runner.launch.pipes import open_to
from runner.launch.process import ProcessHandle, ProcessLauncher
from runner.launch.reach import check_reach, look_around
from runner.launch.shim_client import Job, ShimConnection
from runner.launch.tree import descendants_of
from runner.plan.containers import User
from runner.plan.identity import instance_gid, instance_uid, usable_ids
from runner.plan.limits import rlimits
from runner.plan.restart import describe
from runner.plan.tiers import requirement
from runner.spec.model import Home, Processor

_SPARE_PIDS = 3  # the outer shim, bwrap, the inner shim
_CHANNEL, _SHIM, _FIRST_FILE = 3, 4, 5
_LONGEST_SAID_BYTES = 4096
_KILLED = 128 + signal.SIGKILL  # bwrap's exit status when PID 1 of its sandbox was killed
_LONGEST_TRY_S = 20.0
_MOST_BUILDS = 12  # of one start, while the machine's mounts come and go
_INSTALL = (
    "install it: apt install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora), apk add bubblewrap (Alpine)"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom bwrap runs as; `given`: they are not the runner's own."""

    uid: int
    gid: int
    given: bool


class SandboxHandle(Handle):
    """See the module. A trusted program is started again in its sandbox, an untrusted one in a new one each time."""

    def __init__(
        self,
        launcher: SandboxLauncher,
        spec: Processor,
        identity: Identity,
        outer: ProcessHandle,
        endpoints: EndpointFolder | None = None,
    ) -> None:
        self._endpoints = endpoints
        self.checks_inside = FILES_INSIDE if spec.network == "host" else FROM_INSIDE
        self._launcher = launcher
        self._spec = spec
        self._identity = identity
        self._outer = outer
        self._inner: ShimConnection | None = None
        self._bwrap_pid = 0
        self._said = -1
        self._killed = False
        self._job: Job | None = None

    async def start(self, request: LaunchRequest) -> int:
        """See `Handle`."""
        directory = request.directory or "/"
        fresh = self._spec.untrusted or self._inner is None or self._inner.lost
        if self._identity.given:
            open_to(request.ports.values(), User(self._identity.uid, self._identity.gid))
        environment = self._environment(request.env)
        if self._endpoints is not None:
            environment |= self._endpoints.listen(request.endpoints)
        self._job = Job(request.command, directory, environment, request.ports, self._limits())
        if not fresh:
            return await self._start_inside(self._job)
        for _ in range(_MOST_BUILDS):
            await self._build(directory)
            try:
                return await self._start_inside(self._job)
            except ShimLostError as lost:
                why = await self._why_not_built()
                why.__cause__ = lost
            if not isinstance(why, bubblewrap.MountsChangedError):
                break
        raise why

    async def _start_inside(self, job: Job) -> int:
        assert self._inner is not None
        self._killed = False
        self._outer.begin()
        return self._seen_as(await self._inner.start(job))

    async def exited(self) -> Exited:
        """See `Handle`."""
        assert self._inner is not None
        exited = await self._inner.exited()
        if exited.code is not None or exited.signal is not None:
            return self._outer.explain(exited)
        if self._killed:
            return Exited(None, int(signal.SIGKILL))
        ended = await self._outer.exited()  # of bwrap: its exit status is that of PID 1
        if ended.note is not None:
            return Exited(None, int(signal.SIGKILL), note=ended.note)
        if ended.code is None:
            return Exited(None, None, note=None if self._outer.shim_died else "its sandbox was killed")
        return Exited(None, int(signal.SIGKILL), note="its sandbox was ended from inside")

    def signal(self, signal_number: int) -> None:
        """See `Handle`."""
        if self._inner is not None:
            self._inner.signal(signal_number)

    async def probe(self, command: tuple[str, ...]) -> Exited:
        """See `Handle`."""
        if self._inner is None or self._job is None:
            raise LaunchError("cannot be probed: it was not started")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return await self._inner.probe(replace(self._job, command=command, ports=dict.fromkeys(range(3), null)))
        finally:
            os.close(null)

    async def kill_tree(self) -> None:
        """See `Handle`. Of an untrusted one the sandbox goes with it, and nothing in it is asked to help."""
        if self._inner is None:
            return
        self._killed = True
        if not self._spec.untrusted:
            await self._inner.kill_tree()
            if not self._inner.lost:
                return
        await self._outer.kill_tree()
        self._inner.close()

    async def close(self) -> None:
        """See `Handle`."""
        self._killed = True
        if self._inner is not None:
            self._inner.close()
        await self._outer.close()
        self._forget_said()
        if self._endpoints is not None:
            self._endpoints.remove()

    def _environment(self, added: Mapping[str, str]) -> dict[str, str]:
        if not self._spec.untrusted:
            own_tmp = {"TMPDIR": "/tmp"} if "TMPDIR" in os.environ else {}  # noqa: S108 - where the runner's is closed
            return {**os.environ, **own_tmp, **added}
        return {
            "PATH": bubblewrap.search_path(self._spec, os.environ.get("PATH", "")),
            "HOME": bubblewrap.HOME,
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            **added,
        }

    def _limits(self) -> dict[int, int]:
        limits = rlimits(self._spec.resources, self._outer.held | {"disk"})  # its /tmp has a size
        return {**limits, resource.RLIMIT_CORE: 0} if self._spec.untrusted else limits

    async def _build(self, directory: str) -> None:
        """Start bwrap, and with it the inner shim; whether they come up is seen when that one is to start something."""
        await self._outer.kill_tree()
        self._forget_said()
        if self._inner is not None:
            self._inner.close()
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(theirs.close)
            self._inner = ShimConnection(ours)
            null = _closed_after(stack, os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            self._said, say = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            _closed_after(stack, say)
            ports = {0: null, 1: null, 2: say, _CHANNEL: theirs.fileno(), _SHIM: self._launcher.shim}
            wall = self._wall(directory, ports, stack)
            try:
                self._bwrap_pid = await self._outer.start_job(
                    Job(
                        tuple(bubblewrap.arguments(self._spec, self._launcher.system, wall)),
                        "/",
                        {"CONNECTOR_RUN": self._launcher.run},
                        ports,
                        uid=self._identity.uid if self._identity.given else -1,
                        gid=self._identity.gid if self._identity.given else -1,
                    )
                )
            except ShimLostError:
                raise
            except LaunchError as error:
                raise MachineError(f"the sandbox {error.what}", remedy=error.remedy or _INSTALL) from error

    def _wall(self, directory: str, ports: dict[int, int], stack: contextlib.ExitStack) -> bubblewrap.Wall:
        """What is to be built; its files are added to `ports`, and closed with `stack`."""
        files: dict[str, int] = {}
        seccomp: int | None = None
        if self._spec.untrusted:
            made = bubblewrap.made_files(self._identity.uid, self._identity.gid, self._spec.name)
            for number, (place, text) in enumerate(made.items(), _FIRST_FILE):
                files[place] = number
                ports[number] = _closed_after(stack, memory_file("connector-file", [text.encode()]))
            seccomp = _FIRST_FILE + len(made)
            ports[seccomp] = _closed_after(stack, memory_file("connector-file", [self._launcher.filter]))
        return bubblewrap.Wall(
            bwrap=self._launcher.bwrap,
            hostname=self._spec.name,
            directory=directory,
            shim=_SHIM,
            channel=_CHANNEL,
            user_namespace=self._spec.untrusted or os.geteuid() != 0,
            forbid_more=self._launcher.forbids_namespaces,
            seccomp=seccomp,
            files=files,
            endpoints=None if self._endpoints is None else str(self._endpoints.folder),
        )

    async def _why_not_built(self) -> RunnerError:
        ended = await self._outer.exited()
        if ended.note is not None:
            return LaunchError(f"cannot be started: {ended.note}")
        if self._outer.shim_died:
            return ShimLostError("cannot be started: its shim has died")
        if ended.signal == signal.SIGKILL or ended.code == _KILLED:
            return ShimLostError("cannot be started: its sandbox was killed")
        try:
            said = os.read(self._said, _LONGEST_SAID_BYTES).decode(errors="replace")
        except BlockingIOError:
            said = ""
        return bubblewrap.cause(said or f"nothing, and ended: {describe(ended)}")

    def _seen_as(self, inside: int) -> int:
        """The process id out here of the program that has the id `inside` in there; 0 when it has ended."""
        for pid in descendants_of(self._bwrap_pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("NSpid:") and line.split()[2:] and int(line.split()[-1]) == inside:
                        return pid
        return 0

    def _forget_said(self) -> None:
        if self._said >= 0:
            os.close(self._said)
            self._said = -1


class SandboxLauncher(Launcher):
    """See the module. `bwrap` and `system` are known after `prepare` and `open`."""

    name = "sandbox"

    def __init__(self, context: LaunchContext) -> None:
        self.run = context.run
        self.bwrap = ""
        self.forbids_namespaces = True
        self.system = bubblewrap.System()
        self._pipeline = context.pipeline
        self._processes = ProcessLauncher(context)

    @cached_property
    def shim(self) -> int:
        """A descriptor of the shim's program: a sealed copy in memory, which no sandbox could write to."""
        return sealed_program(self._processes.shim)

    @cached_property
    def filter(self) -> bytes:
        """The seccomp filter of what is not trusted."""
        from runner.launch.seccomp import bpf_program

        return bpf_program(platform.machine())

    async def prepare(self, specs: Sequence[Processor]) -> None:
        """See `Launcher`. One sandbox of each kind is really built."""
        walled = [spec for spec in specs if spec.untrusted]
        if walled:
            facts = await asyncio.to_thread(gather_for, walled)
            for problem in filter(None, (requirement(spec, facts) for spec in walled)):
                raise problem
        self._look()
        kinds: dict[tuple[bool, bool], Processor] = {}
        for spec in specs:
            identity = self._identity(spec, 1)
            if identity.given:
                check_reach(spec, identity.uid, identity.gid)
            kinds.setdefault((spec.untrusted, spec.network == "none"), spec)
        for spec in kinds.values():
            await self._try(spec)

    async def open(self, spec: Processor, replica: int) -> SandboxHandle:
        """See `Launcher`; the sandbox itself comes with the first start."""
        self._look()
        identity = self._identity(spec, replica)
        endpoints = None
        if spec.bridge == "zeromq":
            user = (identity.uid, identity.gid) if identity.given else None
            endpoints = await self._processes.endpoints.make(bubblewrap.endpoints_inside(spec), user)
        outer = self._processes.handle(spec, replica, spare_pids=_SPARE_PIDS)
        return SandboxHandle(self, spec, identity, outer, endpoints)

    async def close(self) -> None:
        """See `Launcher`."""
        await self._processes.close()
        if "shim" in self.__dict__:
            os.close(self.__dict__.pop("shim"))

    def _look(self) -> None:
        if self.bwrap:
            return
        found = shutil.which("bwrap", path=f"{os.environ.get('PATH', '')}:{bubblewrap.DEFAULT_PATH}")
        if found is None:
            raise MachineError("bubblewrap is not there, and sandboxes are made by it", remedy=_INSTALL)
        try:
            said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise MachineError(f"{found} does not work: {error}", remedy=_INSTALL) from error
        self.forbids_namespaces = bubblewrap.can_forbid_namespaces(said)
        self.system = look_around()
        self.bwrap = found

    def _identity(self, spec: Processor, replica: int) -> Identity:
        """Whom the sandbox runs as. Raises MachineError where a root runner has nobody else for an untrusted one."""
        if not spec.untrusted or os.geteuid() != 0:
            return Identity(os.geteuid(), os.getegid(), given=False)
        uids = usable_ids(Path("/proc/self/uid_map").read_text())
        gids = usable_ids(Path("/proc/self/gid_map").read_text())
        if uids is None or gids is None:
            raise MachineError(
                "the runner is root, and has no other users to give to what is not trusted",
                where=spec.name,
                remedy="start the runner as another user, or in a user namespace of at least 65536 users",
            )
        uid = instance_uid(self._pipeline, spec.name, replica, uids)
        return Identity(uid, instance_gid(self._pipeline, spec.name, gids), given=True)

    async def _try(self, spec: Processor) -> None:
        """Have a sandbox of this kind check that it is there. Raises MachineError."""
        bare = Processor(
            name=spec.name, command=(), directory=None, home=Home.SANDBOX, trust=spec.trust, network=spec.network
        )
        identity = self._identity(spec, 1)
        handle = SandboxHandle(self, bare, identity, self._processes.handle(bare, 1, spare_pids=_SPARE_PIDS))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            async with asyncio.timeout(_LONGEST_TRY_S):
                await handle.start(LaunchRequest((PROBE, "file", "/"), "/", {}, dict.fromkeys(range(3), null)))
                exited = await handle.exited()
            if not exited.ok:
                raise MachineError("a sandbox was built, and nothing can be run in it")
        except TimeoutError:
            raise MachineError(f"no sandbox was built within {_LONGEST_TRY_S:g}s", where=spec.name) from None
        except RunnerError as error:
            raise MachineError(error.what, where=spec.name, remedy=error.remedy) from error
        finally:
            os.close(null)
            await handle.close()


def _closed_after(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor
