"""ZMTP 3.1, what ZeroMQ's sockets say to each other, from the side that listens: greeting, handshake, frames.

See https://rfc.zeromq.org/spec/37/ (and 23/ for 3.0). The mechanism is NULL: who may connect is the file system's
business. No input or output of its own; what comes in is not trusted, and bounded before any of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

MORE, LONG, COMMAND = 1, 2, 4
"""The flags of a frame."""
MOST_COMMAND_BYTES = 4096
MOST_PINGS = 8
"""So many are answered at a time; who sends more is not asking whether anybody is there."""

GREETING_BYTES = 64
_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_MECHANISM = b"NULL".ljust(20, b"\0")
GREETING = (_SIGNATURE + b"\x03\x01" + _MECHANISM).ljust(GREETING_BYTES, b"\0")
_LONG_HEAD = Struct(">BQ")
_LENGTH = Struct(">I")
_TTL_BYTES = 2
_MOST_CONTEXT_BYTES = 16


class PeerError(Exception):
    """What a peer did wrong, in words."""


class TooLongError(PeerError):
    """Part `part` (from 0) of a message is announced as `size_bytes` long, and may not be."""

    def __init__(self, part: int, size_bytes: int) -> None:
        super().__init__(f"a part of {size_bytes:,} bytes")
        self.part = part
        self.size_bytes = size_bytes


class TooManyPartsError(PeerError):
    """A message has more parts than any may have."""


def head(size_bytes: int, flags: int = 0) -> bytes:
    """What comes before a frame's body of so many bytes."""
    return bytes((flags, size_bytes)) if size_bytes < 256 else _LONG_HEAD.pack(flags | LONG, size_bytes)


def command(name: bytes, data: bytes) -> bytes:
    """A whole command."""
    body = bytes((len(name),)) + name + data
    return head(len(body), COMMAND) + body


def ready(socket_type: bytes) -> bytes:
    """The command that says what kind of socket this is."""
    return command(b"READY", b"\x0bSocket-Type" + _LENGTH.pack(len(socket_type)) + socket_type)


def pong(body: bytes) -> bytes | None:
    """The answer to a command, where it is a ping (`body` is all behind its head); else None."""
    if not body.startswith(b"\x04PING"):
        return None
    return command(b"PONG", body[5 + _TTL_BYTES :][:_MOST_CONTEXT_BYTES])


def sizes(data: bytes, start: int) -> tuple[int, int] | None:
    """(Bytes of the head, bytes of the body) of the frame that begins at `start`; None while that cannot be known."""
    there = len(data) - start
    if there < 2:
        return None
    if not data[start] & LONG:
        return 2, data[start + 1]
    return None if there < _LONG_HEAD.size else (_LONG_HEAD.size, _LONG_HEAD.unpack_from(data, start)[1])


class Handshake:
    """One peer's greeting and READY. `done`: it is one that is wanted, and `rest` is what it has sent behind that.

    `GREETING` is to be sent first. `theirs` is the type that its socket must have.
    """

    def __init__(self, ours: bytes, theirs: bytes) -> None:
        self.done = False
        self.rest = b""
        self._ours = ours
        self._theirs = theirs
        self._greeted = False

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return self._greeted or bool(self.rest)

    def feed(self, data: bytes) -> bytes:
        """Take what was read; returns what is to be sent. Raises PeerError for a peer that is not wanted."""
        self.rest += data
        answer = b""
        if not self._greeted:
            self._check_greeting(self.rest)
            if len(self.rest) < GREETING_BYTES:
                return b""
            self.rest = self.rest[GREETING_BYTES:]
            self._greeted = True
            answer = ready(self._ours)
        found = sizes(self.rest, 0)
        if self.rest and not self.rest[0] & COMMAND:
            raise PeerError("it sends a message before it has said what it is")
        if found is not None:
            self._take(*found)
        return answer

    def _take(self, head_bytes: int, body_bytes: int) -> None:
        if body_bytes > MOST_COMMAND_BYTES:
            raise PeerError(f"it says what it is in {body_bytes:,} bytes")
        end = head_bytes + body_bytes
        if len(self.rest) >= end:
            self._check_ready(self.rest[head_bytes:end])
            self.rest = self.rest[end:]
            self.done = True

    @staticmethod
    def _check_greeting(data: bytes) -> None:
        if data[0] != _SIGNATURE[0] or (len(data) >= len(_SIGNATURE) and not data[9] & 1):
            raise PeerError("it does not speak ZMTP")
        if len(data) > len(_SIGNATURE) and data[10] < GREETING[10]:
            raise PeerError("it speaks a version of ZMTP before 3.0")
        if len(data) >= GREETING_BYTES and data[12:32] != _MECHANISM:
            shown = data[12:32].rstrip(b"\0").decode("latin-1")
            raise PeerError(f"its security mechanism is {shown!a}, and there is no other than NULL here")

    def _check_ready(self, body: bytes) -> None:
        if body.startswith(b"\x05ERROR"):
            raise PeerError(f"it says {body[7:].decode('latin-1')!a}")
        if not body.startswith(b"\x05READY"):
            raise PeerError("it does not say what kind of socket it is")
        found = _properties(body[6:]).get(b"socket-type", b"")
        if found != self._theirs:
            wanted = self._theirs.decode()
            raise PeerError(f"its socket is of type {found.decode('latin-1')!a}, and {wanted} is due here")


def _properties(data: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        value_start = name_end + _LENGTH.size
        if value_start > len(data):
            raise PeerError("what it says about itself is cut short")
        value_end = value_start + _LENGTH.unpack_from(data, name_end)[0]
        found[data[at + 1 : name_end].lower()] = data[value_start:value_end]
        at = value_end
    return found


class Splitter:
    """The frames of one peer after its handshake, put together to messages of at most `len(most_bytes)` parts.

    `most_bytes` bounds each part by its place. `pongs` are the answers to its pings, taken away by who sends them.
    It holds at most one unfinished message.
    """

    def __init__(self, *most_bytes: int) -> None:
        self.pongs: list[bytes] = []
        self._most_bytes = most_bytes
        self._held = bytearray()
        self._needed = 0
        self._parts: list[bytes] = []

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._held or self._parts)

    def feed(self, data: bytes) -> Iterator[list[bytes]]:
        """Take `data` as it was read; the messages that are whole now, as their parts. Raises PeerError."""
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return
            data = bytes(self._held)
            self._held = bytearray()
        start = 0
        self._needed = 0
        while (found := sizes(data, start)) is not None:
            flags = data[start]
            self._check(flags, found[1])
            begin = start + found[0]
            end = begin + found[1]
            if end > len(data):
                self._needed = end - start
                break
            start = end
            if flags & COMMAND:
                self._command(data[begin:end])
                continue
            self._parts.append(data[begin:end])
            if not flags & MORE:
                parts, self._parts = self._parts, []
                yield parts
        self._held += data[start:]

    def _check(self, flags: int, size_bytes: int) -> None:
        if flags > (MORE | LONG | COMMAND):
            raise PeerError(f"a frame with the flags {flags:#04x}")
        if flags & COMMAND:
            if size_bytes > MOST_COMMAND_BYTES:
                raise PeerError(f"a command of {size_bytes:,} bytes")
            return
        part = len(self._parts)
        if part == len(self._most_bytes):
            raise TooManyPartsError(f"a message of more than {part} parts")
        if size_bytes > self._most_bytes[part]:
            raise TooLongError(part, size_bytes)

    def _command(self, body: bytes) -> None:
        answer = pong(body)
        if answer is not None and len(self.pongs) < MOST_PINGS:
            self.pongs.append(answer)
