"""The keys of requests that were taken: the same one again is answered, and not taken twice."""

from __future__ import annotations

from collections import OrderedDict

from runner.channel.positions import TABLE
from runner.store.store import Store

MOST_KEYS = 10_000
_MOST_KEY_BYTES = 200


class SeenKeys:
    """The newest keys, in memory; where the channel is stored they are committed with the messages."""

    def __init__(self, store: Store | None, channel: str) -> None:
        self._store = store
        self._prefix = f"{channel}\0key\0".encode()
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._last = 0
        if store is not None:
            found = sorted((int(value), key[len(self._prefix) :]) for key, value in store.items(TABLE, self._prefix))
            self._seen.update((key, number) for number, key in found)
            self._last = found[-1][0] if found else 0

    def seen(self, key: str) -> bool:
        """Whether it was taken."""
        return _short(key) in self._seen

    def keep(self, key: str) -> None:
        """It is taken, with what is published in the same callback."""
        short = _short(key)
        self._last += 1
        self._seen[short] = self._last
        if self._store is not None:
            self._store.transaction.put(TABLE, self._prefix + short, b"%d" % self._last)
        if len(self._seen) > MOST_KEYS:
            oldest, _ = self._seen.popitem(last=False)
            if self._store is not None:
                self._store.transaction.delete(TABLE, self._prefix + oldest)


def _short(key: str) -> bytes:
    """A key that is as long as a store takes."""
    data = key.encode()
    if len(data) <= _MOST_KEY_BYTES:
        return data
    import hashlib

    return hashlib.sha256(data).hexdigest().encode()
