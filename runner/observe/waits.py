"""Tells waits that last: under backpressure instances wait and go on all the time, and nobody wants to read that.

A wait is told once it has lasted `patience_s`, and then its end. Each time an instance's wait has been told, its
patience doubles (up to five minutes), so that a pipeline that is simply slow does not fill its log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from runner.clock import Clock, monotonic
from runner.events import Event, InstanceState, StateChanged, WaitChanged
from runner.units import format_duration

PATIENCE_S = 5.0
_MOST_PATIENCE_S = 300.0
_OVER = frozenset({InstanceState.BACKOFF, InstanceState.EXITED, InstanceState.FAILED})


class TimerHandle(Protocol):
    """What `CallLater` returns."""

    def cancel(self) -> None:
        """Do not call."""


class CallLater(Protocol):
    """`asyncio.AbstractEventLoop.call_later`, or the like."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> TimerHandle:
        """Call `callback` once in `delay` seconds."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait to be told: it has lasted `waited_s`. `cause` None: it is over."""

    processor: str
    replica: int
    cause: str | None
    waited_s: float

    @property
    def text(self) -> str:
        """The sentence about it."""
        took = format_duration(self.waited_s)
        return f"goes on after {took}" if self.cause is None else f"{self.cause} (for {took} now)"


@dataclass(slots=True)
class _Open:
    since_s: float
    cause: str
    told: bool = False


class Waits:
    """Follows `WaitChanged` and hands on what lasts, to `tell`. Without `start` it looks only when an event comes."""

    def __init__(
        self, tell: Callable[[Wait], None], *, clock: Clock = monotonic, patience_s: float = PATIENCE_S
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._patience_s = patience_s
        self._patience_of: dict[tuple[str, int], float] = {}
        self._open: dict[tuple[str, int], _Open] = {}
        self._call_later: CallLater | None = None
        self._armed = False

    def start(self, call_later: CallLater) -> None:
        """Look by a timer from now on; the timer runs only while something waits untold."""
        self._call_later = call_later
        self._arm()

    def handle(self, event: Event) -> None:
        """Take notice of `event`."""
        match event:
            case WaitChanged(cause=None):
                self._close((event.processor, event.replica))
            case WaitChanged(cause=str() as cause):
                key = (event.processor, event.replica)
                if key in self._open:
                    self._open[key].cause = cause
                else:
                    self._open[key] = _Open(self._clock(), cause)
                self._look() if self._call_later is None else self._arm()
            case StateChanged() if event.new in _OVER:
                self._open.pop((event.processor, event.replica), None)

    def _close(self, key: tuple[str, int]) -> None:
        wait = self._open.pop(key, None)
        if wait is not None and wait.told:
            self._tell(Wait(*key, None, self._clock() - wait.since_s))

    def _due_s(self, key: tuple[str, int], wait: _Open) -> float:
        return wait.since_s + self._patience_of.get(key, self._patience_s)

    def _look(self) -> None:
        now_s = self._clock()
        for key, wait in self._open.items():
            if not wait.told and self._due_s(key, wait) <= now_s:
                wait.told = True
                self._patience_of[key] = min(_MOST_PATIENCE_S, 2 * self._patience_of.get(key, self._patience_s))
                self._tell(Wait(*key, wait.cause, now_s - wait.since_s))

    def _arm(self) -> None:
        if self._armed or self._call_later is None:
            return
        due_s = min((self._due_s(key, wait) for key, wait in self._open.items() if not wait.told), default=None)
        if due_s is not None:
            self._armed = True
            self._call_later(max(0.01, due_s - self._clock()), self._fired)

    def _fired(self) -> None:
        self._armed = False
        self._look()
        self._arm()
