"""`relay`, the programs of random pipelines: one static program, an image of it, and its living processes by mark."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine import docker
from tests.faults.static import static_program
from tests.launch.images import Layers

SOURCE = Path(__file__).with_suffix(".c")
IMAGE = f"connector-test/relay:{os.getpid()}"
IN_IMAGE = "/relay"
_WALLS = (b"bwrap", b"connector-shim")
_PARENT, _STARTED = 1, 19  # fields of proc(5) stat, counted from the state


@dataclass(frozen=True)
class Relay:
    """The program; `folder` holds nothing else, and anybody may look into it."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "relay"

    def load(self, host: str | None = None) -> None:
        """Give the engine an image of it and nothing else."""
        Layers({IN_IMAGE[1:]: self.file.read_bytes()}, ("tmp",)).load(IMAGE, host)


@pytest.fixture(scope="session")
def relay() -> Iterator[Relay]:
    """The program, in a folder that sandboxes can see."""
    with static_program(SOURCE) as folder:
        yield Relay(folder)


@pytest.fixture(scope="session")
def relay_image(engine: str, relay: Relay) -> Iterator[str]:
    """The image, in the machine's engine."""
    relay.load()
    yield IMAGE
    docker("rmi", "-f", IMAGE, code=None)


# -- living processes


@dataclass(frozen=True)
class Living:
    """A process, named by its start too, so that it is never taken for another with its number."""

    pid: int
    started: int


def living(marks: Mapping[bytes, str]) -> dict[str, list[Living]]:
    """The living programs of this machine, in containers too, whose last argument is a mark; by the marks' names."""
    found: dict[str, list[Living]] = {name: [] for name in marks.values()}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = _read(f"{entry.path}/cmdline").split(b"\0")
                name = marks.get(words[-2]) if len(words) > 2 and not words[0].endswith(_WALLS) else None
                if name is not None:
                    found[name].append(Living(int(entry.name), int(_stat(int(entry.name))[_STARTED])))
    for processes in found.values():
        processes.sort(key=lambda process: (process.started, process.pid))
    return found


def kill(process: Living, above: int = 0, number: signal.Signals = signal.SIGKILL) -> bool:
    """Kill it (or send it another signal), or what is so many levels above it; whether that was there to be hit."""
    with contextlib.suppress(OSError):
        victim = process
        for _ in range(above):
            parent = int(_stat(victim.pid)[_PARENT])
            victim = Living(parent, int(_stat(parent)[_STARTED]))
        descriptor = os.pidfd_open(victim.pid)
        try:
            if int(_stat(process.pid)[_STARTED]) != process.started:
                return False
            if int(_stat(victim.pid)[_STARTED]) == victim.started:
                signal.pidfd_send_signal(descriptor, number)
                return True
        finally:
            os.close(descriptor)
    return False


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def _stat(pid: int) -> list[bytes]:
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
