"""A link's frames as binary websocket messages (RFC 6455, section 5): what both sides send and refuse."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from runner.channel.link.framing import EndedError, Framing, too_long
from runner.codec.base import Buffer
from runner.codec.masking import KEY_BYTES, masked

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_LAST, _RESERVED, _OPCODE, _CONTROL = 0x80, 0x70, 0x0F, 0x08
_MASKED = 0x80
_MOST_CONTROL_BYTES = 125
_TWO, _EIGHT = struct.Struct(">H"), struct.Struct(">Q")
_NORMAL, _PROTOCOL, _UNSUPPORTED, _NO_TEXT, _TOO_BIG = 1000, 1002, 1003, 1007, 1009  # section 7.4.1
_SAID = {
    _TOO_BIG: "it has closed the connection: a frame was longer than it allows",
    _PROTOCOL: "it has closed the connection: it says that a frame was none",
}


class WebsocketFraming(Framing):
    """Of one side: who connects masks what it sends, who listens does not."""

    def __init__(self, most_bytes: int, *, listens: bool) -> None:
        super().__init__()
        self.most_head_bytes = 2 + _EIGHT.size + KEY_BYTES * listens
        self._most_bytes = most_bytes
        self._listens = listens
        self._first = 0
        self._key: bytes | None = None
        """Of the frame whose head was last seen whole."""
        self._message: bytearray | None = None
        """What has come of a message in several frames."""
        self._closed = False
        """We have said that we close."""

    # -- what is sent

    def begun(self, parts: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """See `Framing`."""
        length = sum(map(len, parts))
        if self._listens:
            return (_head(_BINARY, length, 0), *parts)
        key = os.urandom(KEY_BYTES)
        return (masked(parts, key, _head(_BINARY, length, _MASKED) + key),)

    def farewell(self) -> bytes:
        """See `Framing`."""
        return self._close(_TWO.pack(_NORMAL))

    def _close(self, body: bytes) -> bytes:
        """Empty when it was said before."""
        if self._closed:
            return b""
        self._closed = True
        return b"".join(self._control(_CLOSE, body))

    def _control(self, opcode: int, body: bytes) -> tuple[Buffer, ...]:
        if self._listens:
            return (_head(opcode, len(body), 0), body)
        key = os.urandom(KEY_BYTES)
        return (masked((body,), key, _head(opcode, len(body), _MASKED) + key),)

    # -- what comes

    def head(self, buffer: bytearray, start: int, end: int) -> tuple[int, int] | None:
        """See `Framing`."""
        there = end - start
        if there < 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        self._check(first, second)
        length = second & ~_MASKED
        size = 2
        if length > _MOST_CONTROL_BYTES:
            number = _TWO if length == 126 else _EIGHT
            size += number.size
            if there < size:
                return None
            least = 126 if number is _TWO else 1 << 16
            (length,) = number.unpack_from(buffer, start + 2)
            if length < least:
                raise self._wrong("it sends a length in more bytes than it needs")
        before = 0 if self._message is None else len(self._message)
        if before + length > self._most_bytes and not first & _CONTROL:
            raise self._wrong(too_long(before + length, self._most_bytes), _TOO_BIG)
        if self._listens:
            if there < size + KEY_BYTES:
                return None
            self._key = bytes(buffer[start + size : start + size + KEY_BYTES])
            size += KEY_BYTES
        self._first = first
        return size, length

    def _check(self, first: int, second: int) -> None:
        """What may stand in the two bytes that every frame begins with, now."""
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise self._wrong("it sends a frame with bits that mean nothing here")
        if bool(second & _MASKED) != self._listens:
            raise self._wrong("it sends a frame that is not masked" if self._listens else "it sends a masked frame")
        if opcode in {_CLOSE, _PING, _PONG}:
            if not first & _LAST or second & ~_MASKED > _MOST_CONTROL_BYTES:
                raise self._wrong("it sends a control frame that is in parts or too long")
        elif opcode not in {_CONTINUATION, _TEXT, _BINARY}:
            raise self._wrong(f"it sends a frame of no known kind ({opcode})")
        elif (opcode == _CONTINUATION) != (self._message is not None):
            raise self._wrong("it sends the parts of a message in disorder")
        elif opcode == _TEXT:
            raise self._wrong("it sends text where frames are due", _UNSUPPORTED)

    def short(self, body: memoryview) -> Buffer | None:
        """See `Framing`."""
        return self._take(bytes(body) if self._key is None else masked((body,), self._key, b""))

    def long(self, body: Sequence[Buffer]) -> Buffer | None:
        """See `Framing`."""
        if self._key is not None:
            return self._take(masked(body, self._key, b""))
        return self._take(body[0] if len(body) == 1 else b"".join(body))

    def _take(self, body: Buffer) -> Buffer | None:
        """The message that is whole with this."""
        if self._first & _CONTROL:
            self._take_control(self._first & _OPCODE, bytes(body))
            return None
        last = self._first & _LAST
        if self._message is None:
            if last:
                return body
            self._message = bytearray()
        self._message += body
        if not last:
            return None
        whole, self._message = bytes(self._message), None
        return whole

    def _take_control(self, opcode: int, body: bytes) -> None:
        if opcode == _PING and not self._closed:
            self.answer(b"".join(self._control(_PONG, body)))
        elif opcode == _CLOSE:
            code = self._code(body)
            why = _SAID.get(code, "it has closed the connection")
            raise EndedError(why, self._close(body[: _TWO.size]), heard=True)

    def _code(self, body: bytes) -> int:
        """Why the other side closes, as it says."""
        if not body:
            return _NORMAL
        code = _TWO.unpack(body[:2])[0] if len(body) > 1 else 0
        if not (code in _CODES or 3000 <= code < 5000):
            raise self._wrong("it closes the connection with a code that is none")
        try:
            body[2:].decode()
        except UnicodeDecodeError as error:
            raise self._wrong("it closes the connection with a text that is none", _NO_TEXT) from error
        return int(code)

    def _wrong(self, why: str, code: int = _PROTOCOL) -> EndedError:
        return EndedError(why, self._close(_TWO.pack(code)))


_CODES = frozenset(range(1000, 1015)) - {1004, 1005, 1006}


def _head(opcode: int, length: int, mask: int) -> bytes:
    first = _LAST | opcode
    if length <= _MOST_CONTROL_BYTES:
        return bytes((first, mask | length))
    if length < 1 << 16:
        return bytes((first, mask | 126)) + _TWO.pack(length)
    return bytes((first, mask | 127)) + _EIGHT.pack(length)
