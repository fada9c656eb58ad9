"""Values with a checksum over what they are stored under and what they say: LMDB itself has none."""

from __future__ import annotations

import zlib
from struct import Struct

from runner.codec.base import Buffer

_CHECKSUM = Struct("<I")
CHECKSUM_BYTES = _CHECKSUM.size


class SealError(ValueError):
    """The checksum does not fit: the bytes, or what they are stored under, have changed."""


def seal(key: bytes, payload: Buffer) -> bytes:
    """`payload` with its checksum, to be stored under `key`."""
    return b"".join((_CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(key))), payload))


def unseal(key: bytes, sealed: Buffer) -> bytes:
    """The payload (a copy). Raises SealError."""
    payload = bytes(sealed[CHECKSUM_BYTES:])
    if len(sealed) < CHECKSUM_BYTES or _CHECKSUM.unpack_from(sealed)[0] != zlib.crc32(payload, zlib.crc32(key)):
        raise SealError
    return payload
