"""Every home that the launcher contract is run against, and a program in one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import pytest

from runner.events import Event, Exited
from runner.launch.base import Handle, LaunchContext, Launcher, LaunchRequest
from runner.launch.container import ContainerLauncher
from runner.launch.process import ProcessLauncher
from runner.launch.sandbox import SandboxLauncher
from runner.spec.model import MIB, Home, Processor, Resources, Trust
from tests.launch.shims import WithShims

RUN = f"a-run-of-the-tests-{os.getpid()}"
IMAGE = "debian:trixie-slim"
ANOTHER_RUN = f"another-run-{os.getpid()}"
UNTRUSTED = Resources(memory_bytes=512 * MIB, cpus=1.0, pids=64, files=256, disk_bytes=64 * MIB)


@dataclass(frozen=True, slots=True)
class HomeKind:
    """A home to be tested: how its launcher is made, what its processors look like, and what it needs.

    `fixture` names the pytest fixture that skips where the home cannot be had. `own_files`: it starts in folders that
    it makes itself, so none is ever missing. `own_environment`: the runner's variables are not in it. Not `limits`:
    somebody else's business.
    """

    name: str
    launcher: Callable[[LaunchContext], Launcher]
    spec: Processor
    fixture: str | None = None
    own_files: bool = False
    own_environment: bool = False
    limits: bool = True
    marks: tuple[pytest.MarkDecorator, ...] = field(default=())

    def __str__(self) -> str:
        return self.name


HOMES = [
    HomeKind("process", ProcessLauncher, Processor(name="p", command=("true",), directory=None)),
    HomeKind(
        "sandbox-trusted",
        SandboxLauncher,
        Processor(name="p", command=("true",), directory=None, home=Home.SANDBOX),
        fixture="bubblewrap",
    ),
    HomeKind(
        "sandbox-untrusted",
        SandboxLauncher,
        Processor(
            name="p",
            command=("true",),
            directory=None,
            home=Home.SANDBOX,
            trust=Trust.UNTRUSTED,
            network="none",
            resources=UNTRUSTED,
        ),
        fixture="bubblewrap",
        own_files=True,
        own_environment=True,
    ),
    HomeKind(
        "container-trusted",
        ContainerLauncher,
        Processor(name="p", command=(), directory=None, home=Home.CONTAINER, image=IMAGE, network="none"),
        fixture="container_image",
        own_environment=True,
        marks=(pytest.mark.engine,),
    ),
    HomeKind(
        "container-untrusted",
        ContainerLauncher,
        Processor(
            name="p",
            command=(),
            directory=None,
            home=Home.CONTAINER,
            image=IMAGE,
            trust=Trust.UNTRUSTED,
            network="none",
            resources=UNTRUSTED,
        ),
        fixture="container_image",
        own_environment=True,
        marks=(pytest.mark.engine,),
    ),
    HomeKind(
        "attached",
        WithShims,
        Processor(name="p", command=("true",), directory=None, home=Home.ATTACHED),
        own_environment=True,
        limits=False,
    ),
]


class Program:
    """A handle, and a pipe from the program's stdout."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.pid = 0
        self._null = os.open(os.devnull, os.O_RDWR)
        self._ours, self._theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._data = b""

    async def start(
        self,
        *command: str,
        directory: str = "/",
        env: Mapping[str, str] | None = None,
        ports: Mapping[int, int] | None = None,
    ) -> None:
        """Its stdin and stderr are /dev/null unless `ports` says otherwise."""
        request = LaunchRequest(
            command=command,
            directory=directory,
            env={"CONNECTOR_RUN": RUN, **(env or {})},
            ports={0: self._null, 1: self._theirs, 2: self._null, **(ports or {})},
        )
        self.pid = await self.handle.start(request)

    async def script(self, text: str) -> None:
        """Start a shell with it."""
        await self.start("sh", "-c", text)

    async def line(self) -> str:
        """The next line of its stdout, without the newline."""
        while b"\n" not in self._data:
            assert await self._more(), f"its stdout ended with {self._data!r}"
        line, self._data = self._data.split(b"\n", 1)
        return line.decode()

    async def rest(self) -> str:
        """All of its stdout, until nobody of its tree has it any more. Nothing can be started after that."""
        self._no_more_starts()
        while await self._more():
            pass
        return self._data.decode()

    def nobody_writes(self) -> bool:
        """Whether every copy of the program's stdout is closed now: nobody of its tree is left."""
        self._no_more_starts()
        try:
            while piece := os.read(self._ours, 65536):
                self._data += piece
        except BlockingIOError:
            return False
        return True

    async def end(self) -> tuple[int | None, int | None]:
        """Its code and signal."""
        return as_ended(await self.handle.exited())

    async def close(self) -> None:
        """Let go of everything."""
        await self.handle.close()
        for descriptor in (self._null, self._ours, self._theirs):
            if descriptor >= 0:
                os.close(descriptor)

    async def _more(self) -> bool:
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        while True:
            try:
                piece = os.read(self._ours, 65536)
            except BlockingIOError:
                loop.add_reader(self._ours, readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(self._ours)
                readable.clear()
                continue
            self._data += piece
            return piece != b""

    def _no_more_starts(self) -> None:
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1


def context_of(
    run: str = RUN, *, exclusive: bool = False, notify: Callable[[Event], None] = lambda _: None
) -> LaunchContext:
    return LaunchContext(run, "pipeline", exclusive=exclusive, notify=notify)


@contextlib.asynccontextmanager
async def started(kind: HomeKind, run: str = RUN, *, exclusive: bool = False) -> AsyncIterator[Launcher]:
    """The launcher of that home, ready."""
    launcher = kind.launcher(context_of(run, exclusive=exclusive))
    await launcher.prepare([kind.spec])
    try:
        yield launcher
    finally:
        await launcher.close()


@contextlib.asynccontextmanager
async def program(
    kind: HomeKind, launcher: Launcher | None = None, *, resources: Resources | None = None
) -> AsyncIterator[Program]:
    """A program in that home; with `resources` in place of the home's own."""
    async with contextlib.AsyncExitStack() as stack:
        if launcher is None:
            launcher = await stack.enter_async_context(started(kind))
        spec = kind.spec if resources is None else msgspec.structs.replace(kind.spec, resources=resources)
        made = Program(await launcher.open(spec, 1))
        try:
            yield made
        finally:
            await made.close()


def run(test: Callable[[], Awaitable[None]], limit_s: float = 60) -> None:
    """Run the test, bounded in time."""

    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await test()

    asyncio.run(bounded())


def as_ended(exited: Exited) -> tuple[int | None, int | None]:
    return exited.code, exited.signal
