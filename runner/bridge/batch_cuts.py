"""Contract `batch`: where batches were cut, on record, so that a runner that died goes on with the same ones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

import msgspec

from runner.store.store import Store

_TABLE = "notes"


class Cut(msgspec.Struct, frozen=True, array_like=True):
    """Messages `first` to `last` of a channel are a batch, which is run for the `attempt`th time (from 1).

    A number below 1 is that of a dead letter which is replayed; nothing of it is kept here.
    """

    first: int
    last: int
    attempt: int


_DECODER = msgspec.msgpack.Decoder(list[Cut])


class Cuts:
    """The batches of one processor that are cut and not acknowledged, by channel.

    Of `channels` (the durable ones) they are kept in the `store`; nothing that comes from others outlives the runner.
    """

    def __init__(self, processor: str, channels: Iterable[str], store: Store | None) -> None:
        self._store = store
        self._keys = {channel: f"batches {channel}\0{processor}".encode() for channel in channels}
        self._open = {channel: self._kept(channel) for channel in self._keys}
        self._due = {channel: deque(cuts) for channel, cuts in self._open.items()}

    def _kept(self, channel: str) -> list[Cut]:
        kept = self._store.get(_TABLE, self._keys[channel]) if self._store is not None else None
        return sorted(_DECODER.decode(kept), key=_first) if kept is not None else []

    def due(self, channel: str) -> Cut | None:
        """The next batch that an earlier part of the run had cut and that did not succeed."""
        waiting = self._due.get(channel)
        return waiting[0] if waiting else None

    def take_due(self, channel: str) -> None:
        """That one is being cut again, or nothing that is left begins with it."""
        self._due[channel].popleft()

    def keep(self, channel: str, cut: Cut) -> asyncio.Future[None] | None:
        """The batch `cut` is about to be run; a future that is done once that is on record, None where nothing is."""
        if channel not in self._keys or self._store is None or cut.first < 1:
            return None
        self._drop(channel, cut)
        self._open[channel].append(cut)
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(channel)
        self._store.transaction.on_committed(lambda: None if kept.done() else kept.set_result(None))
        return kept

    def forget(self, channel: str, cut: Cut) -> None:
        """The batch is acknowledged, which is committed with whatever else the same callback does."""
        if channel in self._keys and self._store is not None:
            self._drop(channel, cut)
            self._put(channel)

    def _drop(self, channel: str, cut: Cut) -> None:
        apart = [each for each in self._open[channel] if each.last < cut.first or cut.last < each.first]
        self._open[channel] = apart

    def _put(self, channel: str) -> None:
        assert self._store is not None
        cuts, transaction = self._open[channel], self._store.transaction
        if cuts:
            transaction.put(_TABLE, self._keys[channel], msgspec.msgpack.encode(cuts))
        else:
            transaction.delete(_TABLE, self._keys[channel])


def _first(cut: Cut) -> int:
    return cut.first
