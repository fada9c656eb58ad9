"""Bytes that an untrusted program wrote, to frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from runner.protocol.errors import ProtocolError
from runner.protocol.frames import (
    LEVELS,
    MOST_DIGITS,
    MOST_HEADER_BYTES,
    MOST_NUMBER,
    MOST_TEXT_BYTES,
    RUNNER_KINDS,
    Ack,
    End,
    Frame,
    Log,
    Nack,
    Out,
    Pong,
    Ready,
    State,
)

_SHOWN_BYTES = 60
_PRINTABLE = bytes(range(0x20, 0x7F))
_OUT = re.compile(rb"out ([0-9]{1,15}) ([0-9]{1,15}) ([!-~]{1,255})\n").match
_LEAST_WORDS = {
    b"ready": 3,
    b"out": 4,
    b"ack": 3,
    b"nack": 3,
    b"state": 3,
    b"log": 3,
    b"pong": 3,
    b"end": 2,
}


class _Bad(Exception):  # noqa: N818  (never seen outside of this module)
    """What is wrong with one frame; `Decoder` knows where it is."""

    def __init__(self, code: str, what: str) -> None:
        self.code = code
        self.what = what


class Decoder:
    """The state of one stream of frames.

    It holds at most one unfinished frame, of at most `MOST_HEADER_BYTES` and `max_payload_bytes`, plus one read (and
    while a frame is completed, a copy of that). A length is refused before any of what it announces is kept.
    """

    def __init__(self, ports: Iterable[str], max_payload_bytes: int) -> None:
        self._ports = {port.encode(): port for port in ports}
        self._max_payload_bytes = max_payload_bytes
        self._held = bytearray()
        self._needed = 0
        self._rescued: list[Frame] = []
        self._offset = 0
        """Where the unfinished frame begins in the stream."""
        self.frames = 0
        """How many whole good frames there have been."""

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Frame]:
        """Take `data` as it was read (any cut) and return the frames that are whole now.

        Raises ProtocolError; then `rescued` has the good frames of this call, and the decoder is not fed again.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return []
            data = bytes(self._held)
            self._held = bytearray()
        found: list[Frame] = []
        start = 0
        try:
            start = self._walk(data, found)
        except _Bad as bad:
            self._rescued = found
            self.frames += len(found)
            raise ProtocolError(bad.code, bad.what, frame=self.frames + 1, offset=self._offset) from None
        if start < len(data):
            self._held += data[start:] if start else data
        self.frames += len(found)
        return found

    def rescued(self) -> list[Frame]:
        """The good frames that came before the error in the call that raised it."""
        return self._rescued

    def finish(self) -> None:
        """The stream has ended and should be whole. Raises ProtocolError when it ends within a frame."""
        if self._held:
            seen = _shown(bytes(self._held[:_SHOWN_BYTES]))
            what = f"its output ends within a frame, {len(self._held):,} bytes after its beginning: {seen}"
            raise ProtocolError("cut-short", what, frame=self.frames + 1, offset=self._offset)

    def message(self, parts: Sequence[bytes]) -> Frame:
        """The frame of one ZeroMQ message: its header without the newline, then its payload if it has one.

        Raises ProtocolError.
        """
        try:
            frame = self._of_parts(parts)
        except _Bad as bad:
            raise ProtocolError(bad.code, bad.what, frame=self.frames + 1) from None
        self.frames += 1
        return frame

    def _of_parts(self, parts: Sequence[bytes]) -> Frame:
        header = parts[0] if parts else b""
        if len(parts) not in {1, 2}:
            raise _Bad("bad-header", f"a message of {len(parts)} parts is no frame")
        if len(header) >= MOST_HEADER_BYTES:
            raise _too_long(header)
        words = header.split(b" ")
        length = self._length(header, words)
        payload = parts[1] if len(parts) == 2 else b""
        if len(payload) != length:
            raise _Bad(
                "bad-field", f"its LENGTH is {length:,}, its payload has {len(payload):,} bytes: {_shown(header)}"
            )
        return self._frame(header, words, payload)

    def _walk(self, data: bytes, found: list[Frame]) -> int:
        """Put the whole frames of `data` into `found`; returns where the rest begins."""
        begin = start = 0
        base = self._offset
        append = found.append
        ports = self._ports
        most = self._max_payload_bytes
        new = tuple.__new__  # a third of the time of Out(…)
        while True:
            self._offset = base + start
            if found_out := _OUT(data, start):  # what there is most of, without a call
                size, delivery, name = found_out.groups()
                if (length := int(size)) <= most and (port := ports.get(name)) is not None:
                    begin = found_out.end()
                    end = begin + length
                    if end > len(data):
                        self._needed = end - start
                        return start
                    append(new(Out, (int(delivery), port, data[begin:end])))
                    start = end
                    continue
            stop = data.find(b"\n", start, start + MOST_HEADER_BYTES)
            if stop < 0:
                if len(data) - start >= MOST_HEADER_BYTES:
                    raise _too_long(data[start : start + _SHOWN_BYTES])
                self._needed = 0
                return start
            header = data[start:stop]
            words = header.split(b" ")
            begin = stop + 1
            end = begin + self._length(header, words)
            if end > len(data):
                self._needed = end - start
                return start
            append(self._frame(header, words, data[begin:end]))
            start = end

    def _length(self, header: bytes, words: list[bytes]) -> int:
        """The length that a header announces, when it and the header are within bounds. Raises _Bad."""
        least = _LEAST_WORDS.get(words[0])
        if least is None:
            raise _unknown_kind(header, words[0])
        if header.translate(None, _PRINTABLE) or b"" in words:
            raise _Bad("bad-header", f"a header of anything but words with one space between them: {_shown(header)}")
        if len(words) < least:
            raise _Bad("missing-field", f"{_shown(header)} has {len(words)} words, it needs {least}")
        length = _number(words[1], header)
        most = MOST_TEXT_BYTES if words[0] in {b"log", b"nack"} else self._max_payload_bytes
        if words[0] in {b"ready", b"ack", b"pong", b"end"}:
            most = 0
        if length > most:
            raise _Bad("payload-too-long", f"{_shown(header)} announces {length:,} bytes, at most {most:,} are allowed")
        return length

    def _frame(self, header: bytes, words: list[bytes], payload: bytes) -> Frame:
        """One frame of any kind, its header within bounds. Raises _Bad."""
        return _MAKERS[words[0]](self, header, words, payload)

    def _out(self, header: bytes, words: list[bytes], payload: bytes) -> Frame:
        port = self._ports.get(words[3])
        if port is None:
            known = ", ".join(sorted(self._ports.values())) or "none"
            raise _Bad("unknown-port", f"it writes to no port {_shown(words[3])} (there is: {known})")
        return Out(_number(words[2], header), port, payload)

    def _ready(self, header: bytes, words: list[bytes], _payload: bytes) -> Frame:
        stateful = _field(words, 3, b"stateful")
        if stateful not in {None, b"yes", b"no"}:
            raise _Bad("bad-field", f"stateful is yes or no: {_shown(header)}")
        return Ready(_number(words[2], header), stateful == b"yes")

    def _ack(self, header: bytes, words: list[bytes], _payload: bytes) -> Frame:
        first = _number(words[2], header)
        last = _number(words[3], header) if len(words) > 3 and b"=" not in words[3] else first
        if last < first:
            raise _Bad("bad-field", f"the last is before the first: {_shown(header)}")
        return Ack(first, last)

    def _nack(self, header: bytes, words: list[bytes], payload: bytes) -> Frame:
        delay = _field(words, 3, b"delay")
        reason = payload.decode("utf-8", "replace")
        return Nack(_number(words[2], header), reason, 0 if delay is None else _number(delay, header))

    def _state(self, header: bytes, words: list[bytes], payload: bytes) -> Frame:
        return State(_number(words[2], header), payload)

    def _log(self, header: bytes, words: list[bytes], payload: bytes) -> Frame:
        level = words[2].decode()
        if level not in LEVELS:
            raise _Bad("bad-field", f"the levels are {', '.join(LEVELS)}: {_shown(header)}")
        return Log(level, payload.decode("utf-8", "replace"))

    def _pong(self, header: bytes, words: list[bytes], _payload: bytes) -> Frame:
        return Pong(_number(words[2], header))

    def _end(self, _header: bytes, _words: list[bytes], _payload: bytes) -> Frame:
        return End()


_MAKERS: dict[bytes, Callable[[Decoder, bytes, list[bytes], bytes], Frame]] = {
    b"ready": Decoder._ready,  # noqa: SLF001  (methods of the class above)
    b"out": Decoder._out,  # noqa: SLF001
    b"ack": Decoder._ack,  # noqa: SLF001
    b"nack": Decoder._nack,  # noqa: SLF001
    b"state": Decoder._state,  # noqa: SLF001
    b"log": Decoder._log,  # noqa: SLF001
    b"pong": Decoder._pong,  # noqa: SLF001
    b"end": Decoder._end,  # noqa: SLF001
}


def _number(word: bytes, header: bytes) -> int:
    """A number of the protocol. Raises _Bad."""
    if not word.isdigit() or len(word) > MOST_DIGITS or (number := int(word)) > MOST_NUMBER:
        raise _Bad("bad-number", f"{_shown(word)} is no number: {_shown(header)}")
    return number


def _field(words: list[bytes], after: int, name: bytes) -> bytes | None:
    """The value of the optional field `name`, the last one where it is repeated; None where it is missing."""
    for word in reversed(words[after:]):
        key, equals, value = word.partition(b"=")
        if equals and key == name:
            return value
    return None


def _too_long(beginning: bytes) -> _Bad:
    shown = _shown(beginning[:_SHOWN_BYTES])
    return _Bad("header-too-long", f"no newline within {MOST_HEADER_BYTES:,} bytes where a header begins: {shown}")


def _unknown_kind(header: bytes, kind: bytes) -> _Bad:
    if kind.decode("latin-1") in RUNNER_KINDS:
        return _Bad("unknown-kind", f"{_shown(kind)} is a frame that only the runner sends")
    return _Bad("unknown-kind", f"{_shown(kind)} is no kind of frame: {_shown(header)}")


def _shown(data: bytes) -> str:
    """Its beginning, safe to print."""
    text = data[:_SHOWN_BYTES].decode("latin-1")
    safe = "".join(each if " " <= each <= "~" else f"\\x{ord(each):02x}" for each in text)
    return f'"{safe}"' + (" ..." if len(data) > _SHOWN_BYTES else "")
