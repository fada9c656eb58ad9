"""What happens in a run, as values that any observer can follow.

The supervisor emits events on a `Bus`; the terminal, the log, the report (and later a control socket and metrics)
subscribe. Sentences for people are made by the observers.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


class InstanceState(enum.StrEnum):
    """Where an instance is in its life; one door (`runner.supervise.life`) changes it."""

    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPING = "stopping"
    EXITED = "exited"
    FAILED = "failed"


class RunStatus(enum.StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run of a program used: CPU seconds (user and system) and its largest resident set in bytes.

    From wait4(2): the program and the children that it waited for.
    """

    cpu_s: float = 0.0
    peak_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Exited:
    """How one run of a program ended: `code` is None when a signal ended it, `signal` None when it exited.

    `note` says what the status does not ("out of memory: its limit is 64 MiB"); None: nothing to add.
    """

    code: int | None
    signal: int | None
    usage: Usage = Usage()
    note: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; `at_s` is wall-clock time in seconds since 1970."""

    at_s: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run began; `processors` in the order of the file."""

    pipeline: str
    run: str
    processors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopping(Event):
    """The run is being stopped: a signal came or a processor failed for good."""

    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """The run is over. `cause` is None for a completed run."""

    status: RunStatus
    cause: str | None
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    """An instance changed its state; `cause` is one sentence; `exited` is set when a program's run ended."""

    processor: str
    replica: int
    attempt: int
    old: InstanceState
    new: InstanceState
    cause: str
    exited: Exited | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorFailed(Event):
    """A processor failed for good; `last_log` holds its last log lines, oldest first."""

    processor: str
    replica: int
    cause: str
    exited: Exited | None
    last_log: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter(Event):
    """A message killed its reader again and again, and was set aside.

    `number` is its number in the channel (0: it had been a dead letter before and was replayed), `letter` that of the
    dead letter; `beginning` is how it begins. `kept` tells that all of it is in the state (`connector dead-letters`).
    """

    processor: str
    replica: int
    channel: str
    number: int
    letter: int
    cause: str
    exited: Exited | None
    size_bytes: int
    beginning: str
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesRefused(Event):
    """`count` messages of `processor` did not fit the schema of `channel`, since this was told last.

    `cause` is what is wrong with the last of them. Told at most once a second.
    """

    processor: str
    channel: str
    count: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine(Event):
    """One line that a program wrote to its log. `text` is as written (escapes and all), without its newline.

    `stream`: "stderr", "stdout" (of a processor whose stdout is no port), or "stray" (kept out of the data by `guard`).
    `cut` tells that the line was longer than the limit, `apart` that it is in the log of the program's own container,
    where people find it.
    """

    processor: str
    replica: int
    stream: Literal["stderr", "stdout", "stray"]
    text: str
    cut: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLeftOut(Event):
    """`count` log lines were left out because a program logged faster than the limit."""

    processor: str
    replica: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitChanged(Event):
    """What an instance waits for changed; `cause` is None when it goes on."""

    processor: str
    replica: int
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """How far something long has come, for people: `what` ("image debian:trixie-slim"), `doing` ("downloading").

    `fraction` is from 0 to 1, None where nobody knows; `done`: it is over. Sent at most a few times a second.
    """

    what: str
    doing: str
    fraction: float | None = None
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something a person should know; `processor` is None for the whole run."""

    message: str
    processor: str | None = None


class Bus:
    """Hands each event to every subscriber, in order of subscription, at once.

    A subscriber must not raise and must not block: it is called on the thread of the data path.
    """

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Call `subscriber` with every event from now on."""
        self._subscribers.append(subscriber)

    def emit(self, event: Event) -> None:
        """Hand `event` to all subscribers."""
        for subscriber in self._subscribers:
            subscriber(event)
