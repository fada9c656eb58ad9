"""How far a channel that comes from somewhere else has been received: kept in the store, committed with the messages.

It outlives a run that completed: who sent the messages may not have heard yet that the last of them arrived, and sends
them once more to the next run. Who sends keeps here that its end has arrived, and then waits for nobody any more.
"""

from __future__ import annotations

import msgspec

from runner.store.store import Store

TABLE = "links"


class Position(msgspec.Struct, frozen=True):
    """Everything up to `number` of `epoch` is here ("" and 0: nothing of anything); `ended`: that was its end.

    `outside` is where a broker was read up to, in its own words; None where there is no broker.
    """

    epoch: str = ""
    number: int = 0
    ended: bool = False
    outside: int | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Position)


def position_of(store: Store | None, channel: str, writer: str) -> Position:
    """What is on record of `writer` (somebody far away) at `channel`. Raises DamageError."""
    stored = None if store is None else store.get(TABLE, _key(channel, writer))
    return Position() if stored is None else _DECODER.decode(stored)


def keep_position(store: Store | None, channel: str, writer: str, position: Position) -> None:
    """Put it on record, in the transaction in the making."""
    if store is not None:
        store.transaction.put(TABLE, _key(channel, writer), _ENCODER.encode(position))


def end_arrived(store: Store | None, channel: str, reader: str, epoch: str) -> bool:
    """Whether it is on record that `reader` (somebody far away) has all of `epoch`, its end too. Raises DamageError."""
    return store is not None and store.get(TABLE, _end_key(channel, reader)) == epoch.encode()


def keep_end_arrived(store: Store | None, channel: str, reader: str, epoch: str) -> None:
    """Put that on record, in the transaction in the making."""
    if store is not None:
        store.transaction.put(TABLE, _end_key(channel, reader), epoch.encode())


def _end_key(channel: str, reader: str) -> bytes:
    return f"{channel}\0{reader}\0end".encode()


def _key(channel: str, writer: str) -> bytes:
    return f"{channel}\0{writer}".encode()
