"""Numbered messages, and how each codec frames them: what sources write and what tests expect to find."""

from __future__ import annotations

import struct

CODECS = ("lines", "length-prefixed", "null")

_FILLER = {"lines": b"x", "null": b"x\n", "length-prefixed": b"x\n\0\xff"}


def message(number: int, size: int, codec: str = "lines", form: str = "number") -> bytes:
    """The payload of one message, `size` bytes where its number leaves room.

    `form` "json" gives a JSON object for programs that want one (lines only), "number" the number and a filler with
    bytes that other codecs would trip over.
    """
    if form == "json":
        head = b'{"n":%d,"pad":"' % number
        return head + b"x" * max(0, size - len(head) - 2) + b'"}'
    head = b"%010d " % number
    filler = _FILLER[codec]
    room = max(0, size - len(head))
    return head + (filler * (room // len(filler) + 1))[:room]


def number_of(payload: bytes) -> int:
    """The number that `message` put in."""
    if payload.startswith(b"{"):
        return int(payload[5 : payload.index(b",")])
    return int(payload[:10])


def frame(payload: bytes, codec: str) -> bytes:
    """The bytes of one message on the wire."""
    if codec == "lines":
        return payload + b"\n"
    if codec == "null":
        return payload + b"\0"
    return struct.pack(">I", len(payload)) + payload


def unframe(data: bytes, codec: str) -> tuple[list[bytes], bytes]:
    """All whole messages in `data`, and the bytes that are left over."""
    if codec != "length-prefixed":
        *whole, rest = data.split(b"\n" if codec == "lines" else b"\0")
        return whole, rest
    whole, at = [], 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 4 + length > len(data):
            break
        whole.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return whole, data[at:]
