"""What happens again and again is told at once, and then more and more seldom, with how often it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from runner.clock import Clock, monotonic
from runner.errors import CodecError

FIRST_AGAIN_S, LONGEST_AGAIN_S = 10.0, 600.0
MOST_KINDS = 64
"""Strangers decide what comes: what is of yet another kind is told as one kind with all such."""
_OTHER = "\0other"
_STRANGE = re.compile(r"""b'.*'|b".*"|[\d,.]+""")


def kind_of(error: CodecError) -> str:
    """What is wrong with a message, without what its sender has put in: the beginning of it, and numbers."""
    return _STRANGE.sub("", error.what)


@dataclass(slots=True)
class _Told:
    """One kind: when it may be told again, how long it is not after that, when it was last, how often it was not."""

    again_s: float
    wait_s: float
    last_s: float
    untold: int = 0


class Repeats:
    """Tells a person by `tell`; what is of the same kind again after 10 s, 20 s, … 10 minutes, with a count."""

    def __init__(self, tell: Callable[[str], None], clock: Clock = monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._told: dict[str, _Told] = {}

    def say(self, text: str, kind: str | None = None) -> bool:
        """Whether it was told. `kind`: what is the same in other words, as from another address (None: `text`)."""
        now_s = self._clock()
        key = text if kind is None else kind
        if key not in self._told and len(self._told) >= MOST_KINDS:
            self._forget(now_s)
            key = key if len(self._told) < MOST_KINDS else _OTHER
        told = self._told.get(key)
        if told is None or now_s - told.last_s > LONGEST_AGAIN_S:
            self._told[key] = _Told(now_s + FIRST_AGAIN_S, 2 * FIRST_AGAIN_S, now_s)
            self._tell(text)
            return True
        told.last_s = now_s
        if now_s < told.again_s:
            told.untold += 1
            return False
        more = f" (and {told.untold:,} times more like it)" if told.untold else ""
        told.again_s, told.wait_s, told.untold = now_s + told.wait_s, min(2 * told.wait_s, LONGEST_AGAIN_S), 0
        self._tell(text + more)
        return True

    def _forget(self, now_s: float) -> None:
        """What was not for long is new when it comes again."""
        for key in [key for key, told in self._told.items() if now_s - told.last_s > LONGEST_AGAIN_S]:
            del self._told[key]


class Absence:
    """Tells why somebody is not there, and how often it was tried; and when somebody is again."""

    def __init__(self, tell: Callable[[str], None], clock: Clock = monotonic) -> None:
        self._tell = tell
        self._repeats = Repeats(tell, clock)
        self._clock = clock
        self._why: str | None = None
        self._told = False
        self._again_s = 0.0
        self._wait_s = 0.0

    def look(self, why: str | None, there: str, tries: int = 0) -> None:
        """`why`: who is waited for and why nobody is there; None: `there`. `tries` 0: nothing is tried again."""
        now_s = self._clock()
        if why is None:
            if self._told:
                self._tell(there)
            self._why, self._told = None, False
        elif why != self._why:
            self._why = why
            self._told = self._repeats.say(why) or self._told
            self._again_s, self._wait_s = now_s + FIRST_AGAIN_S, 2 * FIRST_AGAIN_S
        elif tries and now_s >= self._again_s:
            self._again_s, self._wait_s = now_s + self._wait_s, min(2 * self._wait_s, LONGEST_AGAIN_S)
            self._told = True
            self._tell(f"{why}; tried {tries:,} times")
