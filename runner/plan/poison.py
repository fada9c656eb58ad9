"""Which message kills its reader: a search that never blames an innocent. Pure: no clock, no process, no bytes.

Messages are numbers that whoever asks has given them. The search begins with those that were in flight at each of some
deaths in a row, and says what is to be given to a fresh run of the program next, and nothing after it: half of what is
still in question, down to one message alone. A message that killed twice alone is accused. It is a dead letter once
another message has succeeded after that; if another one is accused before, the trouble lies elsewhere.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from runner.events import Exited
from runner.units import Rate

ALONE = 2
"""A message that killed its reader so often while it was alone in flight is accused."""
ALONE_SENT = 4
"""The same, where a death was by a signal that somebody may have sent from outside."""
COMPARISONS = 3
"""So many other messages are tried before one of them is tried again: killers may stand side by side."""

_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}


class Blow(Enum):
    """How a program died of what it was given, as far as that tells who did it."""

    OWN = "own"
    SENT = "sent"


def blow_of(exited: Exited | None, why: str | None) -> Blow:
    """What kind of death this was. `why`: the runner ended it (it stalled, say), which is the program's own doing."""
    if why is None and exited is not None and exited.note is None and exited.signal in _FROM_OUTSIDE:
        return Blow.SENT
    return Blow.OWN


@dataclass(frozen=True, slots=True)
class Trial:
    """Give these to a run of their own, in their order, and nothing else."""

    messages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dead:
    """This one is a dead letter."""

    message: int


@dataclass(frozen=True, slots=True)
class NeedsOther:
    """Another message has to be tried, and there is none: `Search.add` one, or say `Search.no_other`."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The search is over: the suspicion against these, which are all that have no outcome, is dropped."""

    messages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The trouble is not with a message: nothing is set aside, the processor fails."""

    cause: str


Step = Trial | Dead | NeedsOther | Closed | Elsewhere


class Search:
    """See the module. `succeeded`: whether any message has succeeded since one was accused before (or ever).

    `next` says what to do. A `Trial` is followed by one call of `ended`; after `Dead`, which comes once, `next` is
    asked again; `Closed` and `Elsewhere` are the end.
    """

    def __init__(self, suspects: Iterable[int], *, succeeded: bool) -> None:
        self._open = dict.fromkeys(suspects)
        self._field = tuple(self._open)
        self._added: list[int] = []
        self._kills: dict[int, int] = {}
        self._sent: set[int] = set()
        self._trial: tuple[int, ...] = ()
        self._elsewhere: str | None = None
        self._before = succeeded
        self._sentenced = False
        self.accused: int | None = None

    @property
    def left(self) -> int:
        """How many messages are in question."""
        return len(self._field) if self.accused is None else 1

    @property
    def wants(self) -> int:
        """How many messages more would be of use, to be tried beside the accused."""
        if self.accused is None or self._sentenced:
            return 0
        return max(0, COMPARISONS - (len(self._open) - 1))

    def add(self, message: int) -> None:
        """Another message that nobody suspects."""
        self._open[message] = None
        self._added.append(message)

    def no_other(self) -> None:
        """Nothing else will come: what succeeded before has to do."""
        if self.accused is None or self._sentenced:
            return
        if self._before:
            self._sentenced = True
        else:
            self._elsewhere = "killed by the only message there is; none has ever succeeded"

    def succeeded(self) -> None:
        """Another replica has answered a message that is not in question here."""
        if self.accused is None:
            self._before = True
        else:
            self._sentenced = True

    def next(self) -> Step:
        """What is to be done now."""
        if self._elsewhere is not None:
            return Elsewhere(self._elsewhere)
        if self.accused is not None:
            if self._sentenced:
                dead, self.accused = self.accused, None
                self._open.pop(dead)
                self._field = ()
                return Dead(dead)
            other = self._comparison()
            if other is None:
                return NeedsOther()
            self._trial = (other,)
        elif self._field:
            self._trial = self._field[: (len(self._field) + 1) // 2]
        else:
            return Closed(tuple(self._open))
        return Trial(self._trial)

    def _comparison(self) -> int | None:
        """The message to try beside the accused: one that is far away from it, and that killed least often."""
        far = [message for message in reversed(self._open) if message != self.accused and message not in self._added]
        candidates = [*(message for message in self._added if message in self._open), *far][:COMPARISONS]
        return min(candidates, key=lambda message: self._kills.get(message, 0), default=None)

    def ended(
        self,
        *,
        answered: Collection[int],
        touched: Collection[int],
        blow: Blow | None,
        withdrawn: Collection[int] = (),
    ) -> None:
        """The trial is over: `answered` of its messages were, and so were `touched` others in work, at least in part.

        `blow` None: however it ended, that is held against nobody. `withdrawn` were given back by the program itself,
        which shows that they do not kill it: they are in question no more, here or as a comparison.
        """
        trial, self._trial = self._trial, ()
        gone = {*answered, *withdrawn}
        for message in gone:
            del self._open[message]
        self._added = [message for message in self._added if message not in gone]
        if answered:
            self.succeeded()
        self._field = tuple(message for message in self._field if message not in gone)
        suspects = set(touched) - gone
        culprits = tuple(message for message in trial if message in suspects)
        if blow is None or not culprits:
            return
        if len(trial) > 1:
            self._field = culprits
        else:
            self._killed_alone(culprits[0], blow)

    def _killed_alone(self, culprit: int, blow: Blow) -> None:
        self._kills[culprit] = self._kills.get(culprit, 0) + 1
        if blow is Blow.SENT:
            self._sent.add(culprit)
        if self._kills[culprit] < (ALONE_SENT if culprit in self._sent else ALONE):
            return
        if self.accused is None:
            self.accused, self._sentenced = culprit, False
        else:
            self._elsewhere = (
                "killed by two messages in a row, each of them alone, with no success between them:"
                " the trouble does not lie with a message"
            )


def too_many(times_s: Sequence[float], now_s: float, limit: Rate) -> bool:
    """Whether a dead letter now is one more than `limit` allows, after those at `times_s`."""
    return sum(1 for at_s in times_s if now_s - at_s < limit.per_s) + 1 > limit.count
