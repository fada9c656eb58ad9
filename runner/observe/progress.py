"""How often the progress of something long is worth a line: at its beginning, now and then, and at its end."""

from __future__ import annotations

from runner.events import Event, Progress

_EVERY_S = 5.0


class Now:
    """Lets through what is to be told: all events but most of those that tell a progress."""

    def __init__(self) -> None:
        self._told_s: dict[str, float] = {}

    def worth_a_line(self, event: Event) -> bool:
        """Whether to tell `event`; to be asked once for each."""
        if not isinstance(event, Progress):
            return True
        if event.done:
            self._told_s.pop(event.what, None)
            return True
        last_s = self._told_s.get(event.what)
        if last_s is not None and event.at_s - last_s < _EVERY_S:
            return False
        self._told_s[event.what] = event.at_s
        return True
