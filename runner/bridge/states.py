"""What a program keeps from one run to the next: the state that was committed last."""

from __future__ import annotations

from collections.abc import Callable

from runner.store.store import Store

_TABLE = "states"


class KeptState:
    """The state of one processor: in the store's table where one is open, else in memory for as long as the run.

    `value` is what the next run of the program is given: what was set last, None before the first.
    """

    def __init__(self, processor: str, store: Store | None) -> None:
        self._key = processor.encode()
        self._store = store
        self.value = store.get(_TABLE, self._key) if store is not None else None

    def set(self, value: bytes, committed: Callable[[], None]) -> None:
        """Keep `value`, committed with whatever the same callback publishes and acknowledges; then `committed`."""
        self.value = value
        if self._store is None:
            committed()
            return
        transaction = self._store.transaction
        transaction.put(_TABLE, self._key, value)
        transaction.on_committed(committed)
