"""Events as sentences for people. Pure: the same event always reads the same."""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass

from runner.events import (
    DeadLetter,
    Event,
    Exited,
    InstanceState,
    LogLeftOut,
    LogLine,
    MessagesRefused,
    ProcessorFailed,
    Progress,
    RunEnded,
    RunStarted,
    RunStatus,
    RunStopping,
    StateChanged,
    Warned,
)
from runner.units import format_count, format_duration

RUN = "run"
"""Who speaks when it is the run itself; no processor has an instance of that name, since those carry a number."""

_NAMES_SHOWN = 8


class Level(enum.IntEnum):
    """How much an event matters; `--quiet` shows errors only."""

    INFO = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Sentence:
    """One line for people: `who` is an instance (`enrich[1]`), a processor or the run. `text` is not yet harmless.

    `log` tells that the words are the program's, not the runner's; `stray` that they were meant to be data.
    """

    level: Level
    who: str
    text: str
    log: bool = False
    stray: bool = False


def instance_name(processor: str, replica: int) -> str:
    """How an instance is called everywhere: `enrich[1]`."""
    return f"{processor}[{replica}]"


def level_of(event: Event) -> Level:
    """How much `event` matters."""
    match event:
        case ProcessorFailed() | RunEnded(status=RunStatus.FAILED):
            return Level.ERROR
        case Warned() | LogLeftOut() | LogLine(stream="stray") | DeadLetter() | MessagesRefused():
            return Level.WARNING
        case StateChanged(new=InstanceState.BACKOFF | InstanceState.FAILED):
            return Level.WARNING
        case _:
            return Level.INFO


def sentences(event: Event) -> tuple[Sentence, ...]:
    """What a person should read about `event`; empty when nothing.

    Silent are the changes that another line tells better: to `starting` and `draining`, and to `failed`, which a
    `ProcessorFailed` follows. Waits are told by `runner.observe.waits`, once they last.
    """
    level = level_of(event)
    match event:
        case LogLine():
            return () if event.apart else (_log_line(event, level),)
        case StateChanged():
            text = _state_text(event)
            return (Sentence(level, instance_name(event.processor, event.replica), text),) if text else ()
        case ProcessorFailed():
            return _failed(event)
        case LogLeftOut():
            text = f"… {format_count(event.count, 'log line')} left out: more than the limit"
            return (Sentence(level, instance_name(event.processor, event.replica), text),)
        case DeadLetter():
            return (Sentence(level, instance_name(event.processor, event.replica), _dead_letter(event)),)
        case _:
            who, text = _told(event)
            return (Sentence(level, who, text),) if text else ()


def _told(event: Event) -> tuple[str, str]:
    """(Who speaks, what) for an event that is told in one line and by no instance."""
    match event:
        case MessagesRefused():
            count = format_count(event.count, "message")
            return event.processor, f"{count} refused by the schema of `{event.channel}`: {event.cause}"
        case Warned():
            return event.processor or RUN, f"warning: {event.message}"
        case _:
            return RUN, _run_text(event)


def describe_exit(exited: Exited | None) -> str:
    """How a run of a program ended: "exit status 1", "killed by SIGKILL"; empty when it is not known."""
    if exited is None:
        return ""
    if exited.signal is not None:
        try:
            return f"killed by {signal.Signals(exited.signal).name}"
        except ValueError:
            return f"killed by signal {exited.signal}"
    return "" if exited.code is None else f"exit status {exited.code}"


def _dead_letter(event: DeadLetter) -> str:
    message = f"message {event.number:,} of channel `{event.channel}`" if event.number else "a replayed message"
    kept = f"kept as dead letter {event.letter}" if event.kept else "kept in the report alone"
    return f"{message} is set aside ({event.cause}), {kept}; it begins with {event.beginning!r}"


def _log_line(event: LogLine, level: Level) -> Sentence:
    text = event.text.removesuffix("\r") + (" … (cut: longer than the limit)" if event.cut else "")
    who = instance_name(event.processor, event.replica)
    return Sentence(level, who, text, log=True, stray=event.stream == "stray")


def _state_text(event: StateChanged) -> str:
    cause = _with_exit(event.cause, event.exited)
    match event.new:
        case InstanceState.RUNNING:
            return f"{'started' if event.attempt <= 1 else f'started again (attempt {event.attempt})'}: {cause}"
        case InstanceState.BACKOFF:
            return f"will be restarted: {cause}"
        case InstanceState.STOPPING:
            return f"is being stopped: {cause}"
        case InstanceState.EXITED:
            return f"ended: {cause}"
        case _:
            return ""


def _failed(event: ProcessorFailed) -> tuple[Sentence, ...]:
    who = instance_name(event.processor, event.replica)
    head = Sentence(Level.ERROR, who, f"failed for good: {_with_exit(event.cause, event.exited)}")
    if not event.last_log:
        return (head, Sentence(Level.ERROR, who, "it logged nothing"))
    intro = Sentence(Level.ERROR, who, "its last log lines:")
    return (head, intro, *(Sentence(Level.ERROR, who, line.removesuffix("\r"), log=True) for line in event.last_log))


def _run_text(event: Event) -> str:
    match event:
        case RunStarted():
            count = format_count(len(event.processors), "processor")
            names = f" ({', '.join(event.processors)})" if len(event.processors) <= _NAMES_SHOWN else ""
            return f"pipeline {event.pipeline} started with {count}{names}, run {event.run}"
        case Progress():
            far = "" if event.fraction is None or event.done else f" {event.fraction:.0%}"
            return f"{event.what}: {event.doing}{far}"
        case RunStopping():
            return f"stopping: {event.cause}"
        case RunEnded():
            took = format_duration(event.duration_s)
            head = f"completed in {took}" if event.status is RunStatus.COMPLETED else f"{event.status} after {took}"
            return f"{head}: {event.cause}" if event.cause else head
        case _:
            return ""


def _with_exit(cause: str, exited: Exited | None) -> str:
    """`cause`, and how the program ended where the cause does not say so."""
    how = describe_exit(exited)
    return f"{cause} ({how})" if how and how not in cause else cause
