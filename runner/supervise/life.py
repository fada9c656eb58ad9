"""The state of an instance, and the one door that changes it."""

from __future__ import annotations

from runner.errors import BugError
from runner.events import Bus, Exited, InstanceState, StateChanged

_STARTING, _RUNNING, _BACKOFF, _DRAINING, _STOPPING, _EXITED, _FAILED = (
    InstanceState.STARTING,
    InstanceState.RUNNING,
    InstanceState.BACKOFF,
    InstanceState.DRAINING,
    InstanceState.STOPPING,
    InstanceState.EXITED,
    InstanceState.FAILED,
)
LEGAL: dict[InstanceState, frozenset[InstanceState]] = {
    _STARTING: frozenset({_RUNNING, _STOPPING, _BACKOFF, _EXITED, _FAILED}),
    _RUNNING: frozenset({_DRAINING, _STOPPING, _BACKOFF, _EXITED, _FAILED}),
    _DRAINING: frozenset({_STOPPING, _BACKOFF, _EXITED, _FAILED}),
    _STOPPING: frozenset({_EXITED, _FAILED, _BACKOFF}),
    _BACKOFF: frozenset({_STARTING, _EXITED, _FAILED}),
    _EXITED: frozenset(),
    _FAILED: frozenset(),
}
"""Which states may follow each."""


class Life:
    """Of the instance `replica` of `processor`: its state, and why it is in it."""

    def __init__(self, bus: Bus, processor: str, replica: int) -> None:
        self.state = InstanceState.STARTING
        self.cause = "not started yet"
        self._bus = bus
        self._processor = processor
        self._replica = replica

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return not LEGAL[self.state]

    def become(self, new: InstanceState, cause: str, *, attempt: int, exited: Exited | None = None) -> None:
        """Change the state and tell it; to stay in one says nothing, but for the first start. Raises BugError."""
        old = self.state
        if new is old and not (new is _STARTING and attempt <= 1):
            return
        if new is not old and new not in LEGAL[old]:
            raise BugError(f"`{self._processor}` instance {self._replica} cannot go from {old} to {new}: {cause}")
        self.state = new
        self.cause = cause
        self._bus.emit(
            StateChanged(
                processor=self._processor,
                replica=self._replica,
                attempt=attempt,
                old=old,
                new=new,
                cause=cause,
                exited=exited,
            )
        )
