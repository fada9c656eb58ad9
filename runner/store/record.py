"""A record: consecutive messages of one channel as they are stored, and what is checked whenever it is read.

A fixed head (checksum, number of messages, number of the first, whether bytes of others may be put to it, name of the
codec) and the framed bytes behind it. The checksum (CRC-32) goes over the bytes first and the head and the channel's
name last, so that messages added to a small record cost a checksum of themselves alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

from runner.codec.base import Buffer
from runner.store.checksum import checksum

RECORD_BYTES = 512 << 10
"""Up to here messages are put into one record; a longer batch is one of its own."""
_CHECKSUM = Struct("<I")
_HEAD = Struct("<IQ?47s")
HEAD_BYTES = _CHECKSUM.size + _HEAD.size
MOST_CODEC_BYTES = 47
KEY = Struct(">Q")
KEY_BYTES = KEY.size


@dataclass(frozen=True, slots=True)
class Record:
    """Messages `first` to `last`, framed by `codec`. `data` is never changed.

    `joins`: its bytes and those of the next messages are, put together, the messages of both (not so for `raw`).
    """

    first: int
    count: int
    codec: str
    joins: bool
    data: Buffer

    @property
    def last(self) -> int:
        """The number of its last message."""
        return self.first + self.count - 1


def checksum_of(parts: Sequence[Buffer], before: int = 0) -> int:
    """The checksum of the bytes alone, going on from that of those before."""
    for part in parts:
        before = checksum(part, before)
    return before


def head_of(channel: bytes, first: int, count: int, codec: str, data_checksum: int, *, joins: bool) -> bytes:
    """What goes before the bytes."""
    fields = _HEAD.pack(count, first, joins, codec.encode())
    return _CHECKSUM.pack(checksum(channel, checksum(fields, data_checksum))) + fields


def opened(channel: bytes, first: int, stored: Buffer) -> Record | None:
    """The record that is stored as number `first` of `channel`; None when it is not what was stored there."""
    if len(stored) < HEAD_BYTES:
        return None
    count, number, joins, codec = _HEAD.unpack_from(stored, _CHECKSUM.size)
    data = memoryview(stored)[HEAD_BYTES:]
    whole = checksum(channel, checksum(stored[_CHECKSUM.size : HEAD_BYTES], checksum(data, 0)))
    if number != first or count < 1 or _CHECKSUM.unpack_from(stored)[0] != whole:
        return None
    return Record(first, count, codec.rstrip(b"\0").decode(), joins, bytes(data))
