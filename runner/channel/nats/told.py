"""What a person is told of a server that is not there, or has no room."""

from __future__ import annotations

import asyncio

from runner.channel.base import Outside
from runner.channel.nats.server import Server
from runner.channel.repeats import Absence


class Told:
    """Tells a person when the server is not there for a while, why, how often it was tried, and when it is back."""

    def __init__(self, server: Server, channel: str, outside: Outside, patience_s: float = 1.0) -> None:
        self._server = server
        self._channel = channel
        self._outside = outside
        self._patience_s = patience_s
        self._absence = Absence(self._tell)
        self._waiting: asyncio.TimerHandle | None = None
        server.on_trouble = self._changed
        self._changed()

    def _changed(self) -> None:
        self._stop_waiting()
        if self._server.trouble is not None:
            self._waiting = asyncio.get_running_loop().call_later(self._patience_s, self._look)
        else:
            self._absence.look(None, f"{self._server.shown} is there again")

    def _look(self) -> None:
        """Now and then, for as long as the trouble stays."""
        self._absence.look(f"waits: {self._server.trouble}; it is tried again", "", self._server.tries)
        self._waiting = asyncio.get_running_loop().call_later(self._patience_s, self._look)

    def _tell(self, text: str) -> None:
        self._outside.warn(f"channel `{self._channel}`: {text}")

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def close(self) -> None:
        """Tell no more."""
        self._server.on_trouble = lambda: None
        self._stop_waiting()
