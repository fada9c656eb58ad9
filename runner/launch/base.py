"""The launcher contract: a launcher starts one kind of thing, a handle is one started thing.

A handle belongs to one instance for its whole life and runs the instance's program again and again, one run at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.errors import LaunchError
from runner.events import Exited


class ShimLostError(LaunchError):
    """The shim that was to start the program has died; another try brings a new one."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One run of a program.

    `ports` maps the descriptor number that the program sees to the runner's own descriptor (the caller keeps and
    closes its own). 0, 1 and 2 are always there. `limits` maps RLIMIT_* numbers to values (soft and hard).
    """

    command: tuple[str, ...]
    directory: str
    env: Mapping[str, str] = field(repr=False)
    ports: Mapping[int, int] = field(default_factory=dict)
    limits: Mapping[int, int] = field(default_factory=dict)


class Handle(ABC):
    """One started thing. All methods are called on the event loop's thread."""

    @abstractmethod
    async def start(self, request: LaunchRequest) -> int:
        """Start the program; returns its process id. Only after the run before it is over and its tree is gone.

        Raises LaunchError when the program cannot be started (with the reason: not there, not executable, folder
        missing, limit refused) and MachineError when the machine refuses (no processes left).
        """

    @abstractmethod
    async def exited(self) -> Exited:
        """Wait until the program itself has ended; its descendants may live on. May be awaited more than once."""

    @abstractmethod
    def signal(self, signal_number: int) -> None:
        """Send a signal to the program's process group; nothing happens when it has ended."""

    @abstractmethod
    async def kill_tree(self) -> None:
        """SIGKILL the program and every descendant, whatever session it is in; returns when none is left."""

    @abstractmethod
    async def close(self) -> None:
        """Kill the tree and let go of everything. May be called more than once, and at any time."""


class Launcher(ABC):
    """Makes handles for one home (a bare process, later a sandbox or a container)."""

    name: str

    @abstractmethod
    async def open(self, *, processor: str, replica: int) -> Handle:
        """A handle for one instance; nothing of the program runs yet. Raises MachineError."""
