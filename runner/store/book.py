"""What is known of one channel on the event loop's thread."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from runner.codec.base import Buffer
from runner.store.cursor import Cursor
from runner.store.probe import Probe
from runner.store.sealed import SealError, seal, unseal
from runner.store.tail import Tail

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[str, int, int])


@dataclass(slots=True)
class Book:
    """`epoch` is in which messages are counted; up to `freed` they are deleted, up to `committed` they are there.

    Up to `made` they have a number. `held_bytes` are those that are neither deleted nor without a number.
    """

    name: str
    epoch: str
    freed: int
    committed: int
    made: int
    held_bytes: int
    tail: Tail
    probe: Probe
    name_bytes: bytes = field(init=False)
    cursors: dict[str, Cursor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name_bytes = self.name.encode()

    @property
    def passed(self) -> int:
        """The last message that all readers have passed; without readers none is."""
        return min((cursor.base for cursor in self.cursors.values()), default=0)


@dataclass(frozen=True, slots=True)
class Head:
    """What the store keeps of a channel beside its messages and cursors."""

    epoch: str
    freed: int
    last: int

    def encode(self, key: bytes) -> bytes:
        """As stored under `key`."""
        return seal(key, _ENCODER.encode((self.epoch, self.freed, self.last)))

    @classmethod
    def decode(cls, key: bytes, stored: Buffer) -> Head:
        """What `encode` made. Raises SealError."""
        try:
            head = cls(*_DECODER.decode(unseal(key, stored)))
        except msgspec.DecodeError as error:
            raise SealError from error
        if not 0 <= head.freed <= head.last:
            raise SealError
        return head


def head_key(channel: str) -> bytes:
    """What the head of `channel` is stored under."""
    return b"c" + channel.encode()


def cursor_key(channel: str, reader: str) -> bytes:
    """What the cursor of `reader` is stored under."""
    return b"r" + channel.encode() + b"\0" + reader.encode()


COMMIT_KEY = b"n"
"""What the number of the commit is stored under, so that a tree of another commit is noticed."""
