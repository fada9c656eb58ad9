"""Server-sent events out of a stream of bytes (HTML, 9.2.6), each in bounds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runner.codec.unfinished import SHOWN_BYTES, too_long
from runner.errors import CodecError

_LINE_END = re.compile(rb"\r\n|\r|\n")
_MARK = b"\xef\xbb\xbf"
_DATA = b"data: "
_NO_HEADER = re.compile(r"[\x00-\x1f\x7f]")
"""What a `Last-Event-ID` cannot have: the id goes back as a header."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event's data, or why it is no message; and the id that is the last after it (None: there was none)."""

    data: bytes | CodecError
    last_id: str | None


class Events:
    """The state of one stream; it holds one event of at most `most_bytes`, and one line."""

    def __init__(self, most_bytes: int, most_id_bytes: int, last_id: str | None) -> None:
        self._most_bytes = most_bytes
        self._most_id_bytes = most_id_bytes
        self._last_id = last_id
        self._line = bytearray()
        self._line_too_long = False
        self._first = True
        self._after_return = False
        self._data = bytearray()
        self._has_data = False
        self._too_long: CodecError | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that are whole now."""
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
            self._after_return = False
        if not data:
            return []
        self._after_return = data.endswith(b"\r")
        *ended, rest = _LINE_END.split(data)
        found: list[Event] = []
        for piece in ended:
            self._add(piece)
            if (event := self._line_over()) is not None:
                found.append(event)
        self._add(rest)
        return found

    def _add(self, piece: bytes) -> None:
        """To the line; of one that is longer than any that counts only the beginning is looked at."""
        if self._line_too_long:
            return
        self._line += piece
        if len(self._line) > self._most_bytes + len(_DATA) + len(_MARK):
            self._line_too_long = True
            self._look_at(bytes(self._line))
            self._line.clear()

    def _line_over(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._line_too_long:
            self._line_too_long = False
        elif self._first and line in (b"", _MARK):
            self._first = False
        elif line:
            self._look_at(line)
        else:
            return self._event_over()
        return None

    def _event_over(self) -> Event | None:
        data = self._too_long or bytes(self._data)
        found = Event(data, self._last_id) if self._has_data else None
        self._data.clear()
        self._has_data, self._too_long = False, None
        return found

    def _look_at(self, line: bytes) -> None:
        """One line that is not empty."""
        if self._first:
            line, self._first = line.removeprefix(_MARK), False
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._more_data(value)
        elif name == b"id" and len(value) <= self._most_id_bytes:
            last_id = value.decode(errors="replace")
            if not _NO_HEADER.search(last_id):
                self._last_id = last_id

    def _more_data(self, value: bytes) -> None:
        if self._too_long is not None:
            return
        if self._has_data:
            self._data += b"\n"
        self._has_data = True
        if len(self._data) + len(value) > self._most_bytes:
            self._data += value[:SHOWN_BYTES]
            self._too_long = too_long(self._most_bytes, index=0, beginning=bytes(self._data[:SHOWN_BYTES]))
            self._data.clear()
        else:
            self._data += value
