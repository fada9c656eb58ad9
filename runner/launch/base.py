"""The launcher contract: a launcher starts one kind of thing, a handle is one started thing.

A handle belongs to one instance for its whole life and runs the instance's program again and again, one run at a time.
The launcher is made once per run and home; it is asked to `prepare` before anything of the pipeline is started.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from runner.errors import LaunchError
from runner.events import Event, Exited
from runner.spec.model import Processor


class ShimLostError(LaunchError):
    """The shim that was to start the program has died; another try brings a new one."""


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What every launcher is made with.

    `run` is the run's id and `pipeline` the pipeline's name. `exclusive`: this process has no children but those of
    the run. `notify` takes an event for the observers (a warning, the progress of a download), and `stop` asks for an
    orderly end of the run, with a cause; both are called on the event loop's thread only. `stopping` tells whether it
    is being stopped. `bridges` is where the folders of attached processors are; `own_logs`: what their programs log is
    written into the logs of their containers.
    """

    run: str
    pipeline: str
    exclusive: bool
    notify: Callable[[Event], None]
    stop: Callable[[str], None] = lambda _cause: None
    stopping: Callable[[], bool] = lambda: False
    bridges: Path | None = None
    own_logs: bool = False


TakeListener = Callable[[socket.socket], None]
"""Who is given a listening socket, and owns it from then on."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One run of a program.

    `command` may be empty where the home has one of its own (an image). `directory` None: where the home starts
    programs by itself. `env` is added to what the home gives by itself. `ports` maps the descriptor number that the
    program sees to the runner's own descriptor (the caller keeps and closes its own). 0, 1 and 2 are always there.
    `endpoints` maps a variable's name to who takes the listening unix socket that the program finds in it, as
    `ipc://PATH`: a new one for each run, that nobody but this instance (and root) can reach. For processors whose
    bridge is "zeromq" only.
    """

    command: tuple[str, ...]
    directory: str | None
    env: Mapping[str, str] = field(repr=False)
    ports: Mapping[int, int] = field(default_factory=dict)
    endpoints: Mapping[str, TakeListener] = field(default_factory=dict)


class Handle(ABC):
    """One started thing. All methods are called on the event loop's thread."""

    checks_inside: frozenset[str] = frozenset()
    """Which kinds of checks ("file", "tcp", "http") are looked at from inside of it, by `probe`."""

    waiting: str | None = None
    """What a `start` under way waits for that somebody else has to bring; None: nothing."""

    standby: bool = False
    """Whether nobody misses it while it waits: it is there for the case that more is brought."""

    def write_log(self, text: str) -> bool:
        """Write a line that the program logged into the log of its own container; False: there is none, or not now."""
        del text
        return False

    @abstractmethod
    async def start(self, request: LaunchRequest) -> int:
        """Start the program; returns its process id as the runner sees it (0 where it cannot be seen).

        Only after the run before it is over and its tree is gone. Raises LaunchError when the program cannot be started
        (with the reason: not there, not executable, folder missing, limit refused), ShimLostError when another try may
        help, and MachineError when the machine refuses (no processes left, no engine).
        """

    @abstractmethod
    async def exited(self) -> Exited:
        """Wait until the program itself has ended; its descendants may live on. May be awaited more than once.

        `Exited.note` says what the exit status does not (out of memory, with the limit). A program whose end nobody saw
        because the home died under it has neither code nor signal.
        """

    @abstractmethod
    def signal(self, signal_number: int) -> None:
        """Send a signal to the program's process group; nothing happens when it has ended."""

    @abstractmethod
    async def probe(self, command: tuple[str, ...]) -> Exited:
        """Run a second program beside the first, with its environment and folder, to its end; its output is dropped.

        Only while the program runs; raises LaunchError when the second one cannot be started. Cancelled: it is killed.
        `command` may begin with `PROBE`: then the home's own prober does it (see `shim/PROTOCOL.md`).
        """

    @abstractmethod
    async def kill_tree(self) -> None:
        """SIGKILL the program and every descendant, whatever session it is in; returns when none is left."""

    @abstractmethod
    async def close(self) -> None:
        """Kill the tree and let go of everything. May be called more than once, and at any time."""


FROM_INSIDE = frozenset({"file", "tcp", "http"})
FILES_INSIDE = frozenset({"file"})
"""`Handle.checks_inside` of one with a network of its own, and of one that shares the machine's."""

PROBE = "connector-probe"
"""The first word of a probe that the shim's own prober is to make: ("connector-probe", "tcp", "127.0.0.1:80")."""


class Launcher(ABC):
    """Makes handles for one home: a bare process, a sandbox, a container. Made from a `LaunchContext`."""

    name: ClassVar[str]

    async def prepare(self, specs: Sequence[Processor]) -> None:  # noqa: B027 - nothing to get ready is usual
        """Get ready for these processors, before anything is started: look whether it can be done, fetch images.

        Raises MachineError where this machine cannot do or enforce what is asked.
        """

    @abstractmethod
    async def open(self, spec: Processor, replica: int) -> Handle:
        """A handle for one instance; nothing of the program runs yet. Raises MachineError."""

    def tell_over(self, code: int) -> None:  # noqa: B027 - the same
        """The run has ended for good, and the runner exits with `code`; `close` follows. Not called after a stop."""

    async def close(self) -> None:  # noqa: B027 - the same
        """The run is over and every handle is closed: let go of what was made for the run."""
