"""The frames of a link, as `docs/link.md` lays them out: bytes to values and back, each checked.

Integers are big-endian. Every frame begins with the CRC-32 of all that follows, and a byte that says what it is.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from runner.channel.link.transport import DownError
from runner.codec.base import Batch, Buffer
from runner.store.checksum import checksum

VERSION = 1
HELLO, DATA, END, ACK, PING, BYE, REFUSED = b"HDEAPBR"
_HEAD = struct.Struct(">IB")
_DATA = struct.Struct(">QI")
_KIND_DATA = struct.Struct(">BQI")
_NUMBER = struct.Struct(">Q")
_ACK = struct.Struct(">QQ")
_MOST_HELLO_BYTES = 16 << 10
MOST_NUMBER = 2**63


class CorruptError(DownError):
    """A frame that is not what was sent, or that nobody may send here."""


class Hello(msgspec.Struct, frozen=True):
    """Who speaks, for what, and how far it is; each side sends one first.

    Of a writer, `epoch` is that of its numbers, `acknowledged` the number up to which a reader had acknowledged them
    and `last` that of the last it has. Of a reader, `epoch` and `received` are those of the last message it holds (0:
    none), `ended` tells that this was the end, and `credit` how many bytes of messages it has room for.
    """

    pipeline: str
    channel: str
    role: Literal["writer", "reader"]
    runner: str
    codec: str
    epoch: str = ""
    acknowledged: int = 0
    last: int = 0
    received: int = 0
    ended: bool = False
    credit: int = 0
    link: int = VERSION


class Data(msgspec.Struct, frozen=True):
    """Messages `number` and following, `count` of them, framed by the channel's codec."""

    number: int
    count: int
    payload: memoryview


class End(msgspec.Struct, frozen=True):
    """The end of what this writer writes; it has the number after the last message."""

    number: int


class Ack(msgspec.Struct, frozen=True):
    """All up to `number` is safe; on this connection messages of up to `credit` bytes in all may have been sent."""

    number: int
    credit: int


class Ping(msgspec.Struct, frozen=True):
    """Somebody is there."""


class Bye(msgspec.Struct, frozen=True):
    """Nothing more comes on this connection. `final`: nor on another one, as all is done."""

    why: str
    final: bool = False


class Refused(msgspec.Struct, frozen=True):
    """The other side's hello does not fit. `final`: no other try would."""

    why: str
    final: bool = True


Frame = Hello | Data | End | Ack | Ping | Bye | Refused
_encoder = msgspec.json.Encoder()
_TEXT = {HELLO: Hello, BYE: Bye, REFUSED: Refused}
_decoders = {kind: msgspec.json.Decoder(struct) for kind, struct in _TEXT.items()}


def encode(frame: Hello | End | Ack | Ping | Bye | Refused) -> bytes:
    """A frame without messages."""
    if isinstance(frame, End):
        return _framed(END, _NUMBER.pack(frame.number))
    if isinstance(frame, Ack):
        return _framed(ACK, _ACK.pack(frame.number, frame.credit))
    if isinstance(frame, Ping):
        return _framed(PING, b"")
    kind = HELLO if isinstance(frame, Hello) else BYE if isinstance(frame, Bye) else REFUSED
    return _framed(kind, _encoder.encode(frame))


def encode_data(number: int, batch: Batch) -> tuple[Buffer, ...]:
    """The parts of a frame with messages; those of `batch` are not copied."""
    head = _KIND_DATA.pack(DATA, number, batch.count)
    crc = checksum(head, 0)
    for part in batch.parts:
        crc = checksum(part, crc)
    return (crc.to_bytes(4, "big") + head, *batch.parts)


def _framed(kind: int, body: bytes) -> bytes:
    rest = bytes((kind,)) + body
    return checksum(rest, 0).to_bytes(4, "big") + rest


def decode(frame: Buffer) -> Frame:
    """The value of one frame. Raises CorruptError; nothing of a corrupt frame is used."""
    view = memoryview(frame)
    if len(view) < _HEAD.size:
        raise CorruptError("a frame of it is too short")
    crc, kind = _HEAD.unpack_from(view)
    if checksum(view[4:], 0) != crc:
        raise CorruptError("what came from it is corrupt: a checksum does not match")
    body = view[_HEAD.size :]
    try:
        return _decode(kind, body)
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptError(f"a frame of it is malformed: {error}") from error


def _decode(kind: int, body: memoryview) -> Frame:
    if kind == DATA:
        number, count = _DATA.unpack_from(body)
        if not 0 < number < MOST_NUMBER or not count:
            raise CorruptError("a frame of it numbers its messages wrongly")
        return Data(number, count, body[_DATA.size :])
    if kind == ACK:
        return Ack(*_ACK.unpack(body))
    if kind == END:
        return End(*_NUMBER.unpack(body))
    if kind == PING:
        return Ping()
    if kind not in _decoders:
        raise CorruptError(f"a frame of it is of no known kind ({kind})")
    if len(body) > _MOST_HELLO_BYTES:
        raise CorruptError("a frame of it is too long")
    frame: Frame = _decoders[kind].decode(body)
    return frame
