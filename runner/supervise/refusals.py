"""Messages that do not fit the schema of a channel: kept, counted, and told at most once a second."""

from __future__ import annotations

from runner.clock import Clock
from runner.events import Bus, MessagesRefused
from runner.supervise.letters import DeadLetters

_TELL_EVERY_S = 1.0


class Refusals:
    """See the module. Those of one processor at one channel."""

    def __init__(self, processor: str, channel: str, bus: Bus, clock: Clock, letters: DeadLetters) -> None:
        self._processor = processor
        self._channel = channel
        self._bus = bus
        self._clock = clock
        self._letters = letters
        self._untold = 0
        self._cause = ""
        self._told_s: float | None = None

    def refused(self, number: int, payload: bytes, cause: str) -> None:
        """The message `number` of the processor does not fit."""
        self._letters.refused(self._processor, self._channel, number, payload=payload, cause=cause)
        self._untold += 1
        self._cause = cause
        now_s = self._clock()
        if self._told_s is None or now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            self.tell()

    def tell(self) -> None:
        """Tell what was not told yet."""
        if self._untold:
            count, self._untold = self._untold, 0
            event = MessagesRefused(processor=self._processor, channel=self._channel, count=count, cause=self._cause)
            self._bus.emit(event)
