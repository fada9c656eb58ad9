"""What a run looks like at one moment, for whoever shows it, and what became of it, for the report."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from runner.events import RunStatus


@dataclass(frozen=True, slots=True)
class ProcessorRow:
    """One processor now, over all its replicas. Counts are messages since the run began."""

    name: str
    state: str
    read: int
    written: int
    queue_messages: int
    queue_bytes: int
    restarts: int
    stray: int
    pids: tuple[int, ...]
    waiting: str | None
    """Why it makes no progress ("waiting for `store`, 8 MiB in flight"); None when nothing holds it."""
    batches: int | None = None
    """How many batches are done; None where the contract has none."""


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """The whole run now."""

    pipeline: str
    elapsed_s: float
    stopping: bool
    rows: tuple[ProcessorRow, ...]


class ExitReport(msgspec.Struct, frozen=True):
    """How a run of a program ended; both None while it could not be started or its shim died."""

    code: int | None
    signal: int | None


class InstanceReport(msgspec.Struct, frozen=True):
    """One run of a program."""

    replica: int
    attempt: int
    exit: ExitReport
    cause: str
    peak_rss_bytes: int
    cpu_s: float


class ProcessorReport(msgspec.Struct, frozen=True):
    """One processor over all its replicas; `instances` holds the last 20 runs. Null counts: a `pipe` channel.

    `batches` counts those that are done; null where the contract has none.
    """

    state: str
    restarts: int
    cause: str
    read: int | None
    written: int | None
    stray: int
    log_lines_left_out: int
    instances: list[InstanceReport]
    batches: int | None = None


class ReaderReport(msgspec.Struct, frozen=True):
    """One reader's side of a channel; messages."""

    carried: int | None
    replayed: int | None
    acknowledged: int | None
    dead: int | None
    dropped: int | None
    indeterminate: int | None
    unread: int | None


class ChannelReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One channel's account; messages; null for `pipe` channels. `listens`: where, if the file says port 0."""

    kind: str
    written: int | None
    refused: int | None
    readers: dict[str, ReaderReport]
    listens: str | None = None


class DeadLetterReport(msgspec.Struct, frozen=True):
    """One dead letter; its payload is in one of the last two fields."""

    id: int
    kind: str
    processor: str
    channel: str
    number: int
    at: str
    cause: str
    exit: ExitReport
    log: list[str]
    size_bytes: int
    payload: str | None
    payload_base64: str | None


class DeadLettersReport(msgspec.Struct, frozen=True):
    """The dead letters of a run: how many of each kind, how many nobody kept, and the first 100."""

    kept: str
    poison: int
    refused: int
    left_out: int
    letters: list[DeadLetterReport]


class SupervisorReport(msgspec.Struct, frozen=True):
    """What the runner itself used."""

    peak_rss_bytes: int
    cpu_s: float


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run; `observe.report` writes it as JSON. Its fields are documented in docs/report.md."""

    version: int = 1
    pipeline: str
    runner: str | None = None
    run: str
    status: RunStatus
    cause: str | None
    started_at: str
    duration_s: float
    balanced: bool
    supervisor: SupervisorReport
    processors: dict[str, ProcessorReport] = msgspec.field(default_factory=dict)
    channels: dict[str, ChannelReport] = msgspec.field(default_factory=dict)
    dead_letters: DeadLettersReport | None = None
