"""Dead letters in the store: messages that nobody could handle, with everything a person needs to judge them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

from runner.store.damage import Damage, DamageError
from runner.store.store import Store

TABLE = "dead-letters"
_KEY = struct.Struct(">Q")


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter.

    `kind` "poison": `processor` could not handle it, and `number` is its number in `channel`, within `epoch`. `kind`
    "refused": it is the message `number` that `processor` wrote on the port of `channel`, whose schema it does not fit.
    `code` and `signal` are of the last death, `log` the last lines before it. `at_s` is wall-clock time. `replay`: it
    is to be given back to its reader.
    """

    id: int
    kind: Literal["poison", "refused"]
    run: str
    processor: str
    channel: str
    number: int
    epoch: str = ""
    at_s: float
    cause: str
    code: int | None = None
    signal: int | None = None
    log: tuple[str, ...] = ()
    payload: bytes
    replay: bool = False


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Letter)


def letters(store: Store) -> Iterator[Letter]:
    """Every committed dead letter, oldest first. Raises DamageError."""
    for key, value in store.items(TABLE):
        try:
            yield _DECODER.decode(value)
        except msgspec.DecodeError as error:
            raise DamageError(str(store.path), [Damage(f"dead letter {key!r} is damaged")]) from error


def numbers(store: Store) -> list[int]:
    """The numbers of every committed dead letter, oldest first. Raises DamageError."""
    return [_KEY.unpack(key)[0] for key, _ in store.items(TABLE)]


def letter(store: Store, number: int) -> Letter | None:
    """The committed dead letter `number`; None where there is none."""
    value = store.get(TABLE, _KEY.pack(number))
    return None if value is None else _DECODER.decode(value)


def put(store: Store, item: Letter) -> None:
    """In the transaction in the making: keep `item`, in place of the one of its id."""
    store.transaction.put(TABLE, _KEY.pack(item.id), _ENCODER.encode(item))


def delete(store: Store, number: int) -> None:
    """In the transaction in the making: the letter `number` is no more."""
    store.transaction.delete(TABLE, _KEY.pack(number))
