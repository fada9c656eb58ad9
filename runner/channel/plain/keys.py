"""The keys of requests that were taken: the same one again is answered as before, and not taken twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import msgspec

from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.channel.positions import TABLE
from runner.store.store import Store

_MARK_BYTES = 16


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """A request that was taken: which it was of all with a key, how many messages it had, what was in it."""

    order: int
    messages: int
    mark: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Taken)


class SeenKeys:
    """The newest keys, in memory; where the channel is stored they are committed with the messages."""

    def __init__(self, store: Store | None, channel: str, bounds: Bounds = BOUNDS) -> None:
        self._store = store
        self._bounds = bounds
        self._prefix = f"{channel}\0key\0".encode()
        self._seen: OrderedDict[bytes, Taken] = OrderedDict()
        self._last = 0
        if store is not None:
            stored = (
                (key[len(self._prefix) :], _DECODER.decode(value)) for key, value in store.items(TABLE, self._prefix)
            )
            self._seen.update(sorted(stored, key=lambda entry: entry[1].order))
        if self._seen:
            self._last = next(reversed(self._seen.values())).order

    def taken(self, key: str) -> Taken | None:
        """What was taken with it; None: nothing that is remembered."""
        return self._seen.get(self._short(key))

    def keep(self, key: str, messages: int, mark: bytes) -> None:
        """It is taken, with what is published in the same callback."""
        short = self._short(key)
        self._last += 1
        self._seen[short] = taken = Taken(self._last, messages, mark)
        if self._store is not None:
            self._store.transaction.put(TABLE, self._prefix + short, _ENCODER.encode(taken))
        if len(self._seen) > self._bounds.keys:
            oldest, _ = self._seen.popitem(last=False)
            if self._store is not None:
                self._store.transaction.delete(TABLE, self._prefix + oldest)

    def _short(self, key: str) -> bytes:
        """A key that is as long as a store takes."""
        data = key.encode(errors="surrogateescape")
        return data if len(data) <= self._bounds.key_bytes else hashlib.sha256(data).hexdigest().encode()


def mark_of(content_type: str, body: bytes) -> bytes:
    """By which a request is known to be the same."""
    return hashlib.sha256(content_type.encode(errors="surrogateescape") + b"\0" + body).digest()[:_MARK_BYTES]
