"""Where each key and value of a TOML text stands; TOML parsers do not say.

The scanner reads only texts that `tomllib` has accepted, so it looks for structure and leaves values alone.
Grammar: https://toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

from msgspec import Struct

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")


class Place(Struct, frozen=True):
    """Where one path stands: (line, column) of its key and of its value, both counted from 1, in characters.

    An element of an array has no key of its own: both are the place of the element.
    """

    key: tuple[int, int]
    value: tuple[int, int]


Positions = dict[Path, Place]


def scan(text: str) -> Positions:
    """The place of every key path in `text`, a TOML document that `tomllib` accepts.

    A path holds keys, and numbers for the elements of arrays and arrays of tables. Tables that are only named in a
    header or a dotted key have the place of that name. The root is the empty path.
    """
    return _Scanner(text).document()


class _Scanner:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._places: Positions = {(): Place((1, 1), (1, 1))}
        self._tables_in_array: dict[Path, int] = {}

    def document(self) -> Positions:
        table: Path = ()
        while self._skip(_BLANK_LINES) < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._places

    def _header(self) -> Path:
        """`[a.b]` or `[[a.b]]`; returns the path of the table that follows."""
        start = self._at
        of_array = self._text.startswith("[[", start)
        self._at += 2 if of_array else 1
        parts = self._key()
        self._at += 2 if of_array else 1
        path: Path = ()
        for number, (part, offset) in enumerate(parts, 1):
            path = (*path, part)
            if number == len(parts):
                self._record(path, offset, start, explicit=not of_array)
                if of_array:
                    index = self._tables_in_array.get(path, 0)
                    self._tables_in_array[path] = index + 1
                    path = (*path, index)
                    self._record(path, start, start)
            else:
                self._record(path, offset, start, explicit=False)
                if path in self._tables_in_array:
                    path = (*path, self._tables_in_array[path] - 1)
        return path

    def _pair(self, table: Path) -> None:
        """`a.b = value` in `table`."""
        parts = self._key()
        self._at += 1
        value = self._skip(_BLANK)
        path = table
        for number, (part, offset) in enumerate(parts, 1):
            path = (*path, part)
            self._record(path, offset, value, explicit=number == len(parts))
        self._value(path)

    def _key(self) -> list[tuple[str, int]]:
        """A simple or dotted key: its parts with their offsets. Stops behind it and the blanks after it."""
        parts = []
        while True:
            start = self._skip(_BLANK)
            quoted = self._text[start] in "\"'"
            end = self._match(_STRING if quoted else _BARE_KEY, start)
            raw = self._text[start:end]
            parts.append((tomllib.loads(f"key = {raw}")["key"] if quoted else raw, start))
            self._at = end
            if self._text[self._skip(_BLANK)] != ".":
                return parts
            self._at += 1

    def _value(self, path: Path) -> None:
        """The value of `path`, from its first character on."""
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._at = self._match(_STRING if first in "\"'" else _SCALAR, self._at)

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._text[self._skip(_BLANK_LINES)] != "]":
            element = (*path, index)
            self._record(element, self._at, self._at)
            self._value(element)
            self._comma()
            index += 1
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._text[self._skip(_BLANK_LINES)] != "}":
            self._pair(path)
            self._comma()
        self._at += 1

    def _comma(self) -> None:
        if self._text[self._skip(_BLANK_LINES)] == ",":
            self._at += 1

    def _record(self, path: Path, key: int, value: int, *, explicit: bool = True) -> None:
        """Note the place of `path`; a place that is only implied does not replace one that was noted before."""
        if explicit or path not in self._places:
            self._places[path] = Place(self._line_column(key), self._line_column(value))

    def _line_column(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def _skip(self, blank: re.Pattern[str]) -> int:
        self._at = self._match(blank, self._at)
        return self._at

    def _match(self, pattern: re.Pattern[str], start: int) -> int:
        match = pattern.match(self._text, start)
        if match is None:
            raise ValueError(f"no TOML at offset {start}")
        return match.end()
