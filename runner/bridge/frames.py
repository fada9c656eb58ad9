"""Program to runner under `acknowledged`: reads the frames that it writes to stdout, and hands them to its exchange."""

from __future__ import annotations

from collections.abc import Callable

from runner.bridge.exchange import Exchange
from runner.bridge.intake import Intake
from runner.bridge.outlet import RoomOf
from runner.errors import CodecError, ContractError, RunnerError


class FrameIntake(Intake):
    """See the module."""

    def __init__(
        self,
        descriptor: int,
        exchange: Exchange,
        *,
        on_error: Callable[[RunnerError], None],
        on_end: Callable[[], None],
    ) -> None:
        room = RoomOf(exchange.committer.outlets)
        super().__init__(descriptor, room, port="stdout", on_error=on_error, on_end=on_end)
        self._exchange = exchange

    @property
    def delivered_by_port(self) -> dict[str, int]:
        """See `Intake`."""
        return self._exchange.committer.delivered

    def _take(self, data: bytes) -> bool:
        try:
            self._exchange.receive(data)
        except (CodecError, ContractError) as error:
            self._fail_with(error)
            return False
        self.delivered = sum(self._exchange.committer.delivered.values())
        return True

    def finish(self, *, clean: bool) -> None:
        """See `Intake`."""
        if not self._failed:
            self._exchange.finish(clean=clean)
