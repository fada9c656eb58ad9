"""Whether, when and why a program is started again. Pure: no clock, no process, chance as a parameter."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from runner.events import Exited
from runner.spec.model import RestartPolicy, Resume
from runner.units import format_count, format_duration

EX_TEMPFAIL = 75
"""sysexits.h: "later"; counts neither for the limit nor for poison."""


class Next(Enum):
    """What comes after a run of a program."""

    AGAIN = "again"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Death:
    """How one run of a program ended, as far as the decision needs it.

    `exited` None: it could not be started, or the runner ended it for the reason in `why`. `asked`: we asked it to end.
    """

    exited: Exited | None
    why: str | None = None
    asked: bool = False

    @property
    def sentence(self) -> str:
        """The cause, for people."""
        if self.why is not None:
            return self.why
        return describe(self.exited)

    @property
    def failure(self) -> bool:
        """Whether it is held against the program."""
        return not self.asked and (self.why is not None or self.exited is None or not self.exited.ok)

    @property
    def ours(self) -> bool:
        """Whether its shim died, which is a part of the runner."""
        return self.why is None and self.exited is not None and self.exited.code is None and self.exited.signal is None

    @property
    def held_against(self) -> bool:
        """Whether it counts for the limit."""
        return self.failure and not self.later and not self.ours

    @property
    def later(self) -> bool:
        """Whether the program asked to be started later."""
        return self.why is None and self.exited is not None and self.exited.code == EX_TEMPFAIL


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why; `after_s` seconds from now for `AGAIN`."""

    next: Next
    cause: str
    after_s: float = 0.0


def describe(exited: Exited | None) -> str:
    """How a program ended: "exit 3", "killed by SIGSEGV"."""
    if exited is None or (exited.code is None and exited.signal is None):
        return "its shim died" if exited is None or exited.note is None else exited.note
    said = _status(exited)
    return said if exited.note is None else f"{said}, {exited.note}"


def _status(exited: Exited) -> str:
    if exited.signal is not None:
        try:
            return f"killed by {signal.Signals(exited.signal).name}"
        except ValueError:
            return f"killed by signal {exited.signal}"
    return f"exit {exited.code}"


def decide(
    policy: RestartPolicy,
    death: Death,
    *,
    source: Resume | None,
    failures_s: Sequence[float],
    now_s: float,
    streak: int,
    chance: float,
) -> Decision:
    """What comes after `death`.

    `source` is the `resume` of a source, None for whatever reads. `failures_s` are the times of the processor's earlier
    failures that count, without this one; `streak` how many restarts in a row have gone before (0: none); `chance`
    from 0 to 1 picks the moment within the backoff (full jitter).
    """
    cause = death.sentence
    if death.asked:
        return Decision(Next.ENDED, cause)
    wanted = policy.when == "always" or (policy.when == "on-failure" and death.failure)
    if source is Resume.NONE and death.failure:
        return Decision(Next.FAILED, f'{cause}; a source with resume = "none" is not restarted')
    if not wanted or (source is Resume.NONE):
        return Decision(Next.FAILED if death.failure else Next.ENDED, cause)
    if not death.failure:
        return Decision(Next.AGAIN, f'{cause}; restart = "always"', backoff_s(policy, streak, chance))
    if death.held_against:
        recent = sum(1 for at_s in failures_s if now_s - at_s < policy.limit.per_s) + 1
        if recent > policy.limit.count:
            deaths = format_count(recent, "death")
            return Decision(
                Next.FAILED,
                f"{cause}; {deaths} within {format_duration(policy.limit.per_s)}, the limit is {policy.limit}",
            )
    return Decision(Next.AGAIN, cause, backoff_s(policy, streak, chance))


def backoff_s(policy: RestartPolicy, streak: int, chance: float) -> float:
    """Seconds to wait: a random part of the backoff, which doubles with each restart in a row."""
    backoff = policy.backoff
    return chance * min(backoff.most_s, backoff.first_s * 2.0 ** min(streak, 60))
