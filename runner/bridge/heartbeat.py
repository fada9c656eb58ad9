"""Whether a program under `acknowledged` still listens while there is nothing for it to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from runner.units import format_duration


@dataclass(frozen=True, slots=True)
class Beat:
    """`every_s` seconds of silence bring a ping, `within_s` without a sign of life after it mean that it is gone."""

    every_s: float = 10.0
    within_s: float = 60.0


class Heartbeat:
    """Asks by `ping` (which says whether it did), and tells `silent`, once, unless the program is `excused`."""

    def __init__(
        self, beat: Beat, ping: Callable[[], bool], excused: Callable[[], bool], silent: Callable[[str], None]
    ) -> None:
        self._beat = beat
        self._ping = ping
        self._excused = excused
        self._silent = silent
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Listen from now on."""
        self.heard()
        self._arm(self._beat.every_s)

    def heard(self) -> None:
        """The program gave a sign of life."""
        self._heard_s = self._loop.time()

    def answered(self) -> None:
        """It answered a ping."""
        self._asked = False

    def stop(self) -> None:
        """The program has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, after_s: float) -> None:
        self._timer = self._loop.call_later(max(0.001, after_s), self._look)

    def _look(self) -> None:
        quiet_s = self._loop.time() - self._heard_s
        patience_s = self._beat.within_s if self._asked else self._beat.every_s
        if self._excused():
            self.heard()
            self._arm(patience_s)
        elif quiet_s < patience_s:
            self._arm(patience_s - quiet_s)
        elif self._asked:
            self._timer = None
            self._silent(f"silent: no answer to a ping for {format_duration(self._beat.within_s)}")
        else:
            self._asked = self._ping()
            self.heard()
            self._arm(self._beat.within_s if self._asked else self._beat.every_s)
