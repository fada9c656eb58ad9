"""What the tests of containers share: a launcher that is prepared, and programs with pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.events import Event, Exited
from runner.launch.base import LaunchContext, LaunchRequest
from runner.launch.container import ContainerHandle, ContainerLauncher
from runner.spec.model import UNTRUSTED_RESOURCES, Home, Processor, Trust
from tests.engine import docker

LIMIT_S = 60.0


def spec_of(image: str, *command: str, **more: object) -> Processor:
    """A processor of that image without a network, unless `more` says otherwise."""
    values: dict[str, object] = {
        "name": "p",
        "command": command,
        "directory": None,
        "home": Home.CONTAINER,
        "image": image,
        "network": "none",
        "pull": "never",
        **more,
    }
    return Processor(**values)  # type: ignore[arg-type]


def untrusted(image: str, *command: str, **more: object) -> Processor:
    """The same, not trusted."""
    return spec_of(image, *command, **{"trust": Trust.UNTRUSTED, "resources": UNTRUSTED_RESOURCES, **more})


@dataclass
class Launched:
    """A launcher, and the events that it told."""

    launcher: ContainerLauncher
    events: list[Event] = field(default_factory=list)

    @property
    def run(self) -> str:
        return self.launcher._context.run

    def containers(self, *more: str) -> list[str]:
        """The ids of the run's containers."""
        return docker("ps", "-aq", "--no-trunc", "--filter", f"label=connector.run={self.run}", *more).split()


@contextlib.asynccontextmanager
async def launched(*specs: Processor, run: str | None = None) -> AsyncIterator[Launched]:
    """A launcher that is prepared for these."""
    events: list[Event] = []
    run = run or f"test-{os.urandom(4).hex()}"
    launcher = ContainerLauncher(LaunchContext(run, "pipeline", exclusive=False, notify=events.append))
    made = Launched(launcher, events)
    try:
        await launcher.prepare(specs)
        yield made
    finally:
        await launcher.close()


class Program:
    """A handle, and pipes to and from its program."""

    def __init__(self, handle: ContainerHandle) -> None:
        self.handle = handle
        self.pid = 0
        self.stdin = self.stdout = self.stderr = -1

    async def start(self, *command: str, env: Mapping[str, str] | None = None, directory: str | None = None) -> None:
        """Start it; the pipes of a run before are closed."""
        self._close()
        theirs_in, self.stdin = os.pipe()
        self.stdout, theirs_out = os.pipe()
        self.stderr, theirs_err = os.pipe()
        ports = {0: theirs_in, 1: theirs_out, 2: theirs_err}
        try:
            self.pid = await self.handle.start(LaunchRequest(command, directory, env or {}, ports))
        finally:
            for descriptor in ports.values():
                os.close(descriptor)

    async def line(self, descriptor: int | None = None) -> str:
        """The next line that it wrote to stdout; "" at its end."""
        found = self.stdout if descriptor is None else descriptor

        def read() -> str:
            data = b""
            while not data.endswith(b"\n") and (more := os.read(found, 1)):
                data += more
            return data.decode().strip()

        return await asyncio.to_thread(read)

    async def rest(self, descriptor: int | None = None) -> str:
        """All that it still writes."""
        found = self.stdout if descriptor is None else descriptor

        def read() -> str:
            data = b""
            while more := os.read(found, 1 << 16):
                data += more
            return data.decode().strip()

        return await asyncio.to_thread(read)

    async def says(self, *command: str, **more: str) -> str:
        """Run it to its end; all that it wrote to stdout."""
        await self.start(*command, **more)  # type: ignore[arg-type]
        said = await self.rest()
        await self.handle.exited()
        await self.handle.kill_tree()
        return said

    async def ended(self) -> tuple[int | None, int | None]:
        """How it ended."""
        exited = await self.handle.exited()
        return exited.code, exited.signal

    async def close(self) -> None:
        """Of the handle and the pipes."""
        await self.handle.close()
        self._close()

    def _close(self) -> None:
        for descriptor in {self.stdin, self.stdout, self.stderr} - {-1}:
            os.close(descriptor)
        self.stdin = self.stdout = self.stderr = -1


@contextlib.asynccontextmanager
async def program(made: Launched, spec: Processor, replica: int = 1) -> AsyncIterator[Program]:
    """A handle of `made`, closed at the end."""
    it = Program(await made.launcher.open(spec, replica))
    try:
        yield it
    finally:
        await it.close()


@contextlib.asynccontextmanager
async def running(spec: Processor) -> AsyncIterator[tuple[Launched, Program]]:
    """Both at once."""
    async with launched(spec) as made, program(made, spec) as it:
        yield made, it


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run it to its end, within a limit."""

    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test()

    asyncio.run(bounded())


def pids_with(mark: str) -> list[int]:
    """The living processes of this machine with `mark` in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


KILLED = Exited(None, int(signal.SIGKILL))
