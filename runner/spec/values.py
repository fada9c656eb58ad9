"""The kinds of values that a pipeline file is made of, each with its pattern and how a wrong one is explained.

`Meta.extra` tells `runner.spec.walk` what a JSON Schema cannot say; `Extra` lists the entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypedDict

from msgspec import Meta

from runner.spec.findings import show
from runner.units import parse_duration, parse_rate, parse_size

NAME = "[a-z][a-z0-9_-]{0,62}"

_NUMBER = r"[0-9]{1,9}(\.[0-9]{1,6})?"
_DURATION = rf"{_NUMBER}(ms|s|m|h)"
_NOT_ZERO = r"(?=[0.]*[1-9])"
_BINARY_SIZE = rf"([0-9]{{1,15}}B?|{_NUMBER}(KiB|MiB)|[0-9]{{1,6}}(\.[0-9]{{1,6}})?(GiB|TiB))"
_LARGEST = 1 << 50


class Extra(TypedDict, total=False):
    """What an annotation tells the walk.

    `pattern` must match the whole of a string; `explain` turns one that does not into a sentence, which shows the value
    where it may be seen. `words` maps wrong values to what is meant. `later` refuses the key and `later_values` some
    values of it, each with a sentence about what works instead. `quiet` keeps the value out of messages.
    """

    pattern: str
    explain: Callable[[str], str]
    words: dict[str, str]
    later: str
    later_values: dict[str, str]
    quiet: bool


def meta(description: str, **extra: object) -> Meta:
    """A description for the schema and entries of `Extra` for the walk."""
    return Meta(description=description, extra=extra or None)


def later(description: str, instead: str) -> Meta:
    """A key that a later version brings; `instead` says what works now."""
    return Meta(description=f"Not supported yet. {description}", extra={"later": instead})


def _by(parse: Callable[[str], object]) -> Callable[[str], str]:
    def explain(text: str) -> str:
        try:
            parse(text)
        except (ValueError, OverflowError) as error:
            return str(error)
        return f"{show(text)} is zero or too large"

    return explain


def _explain_name(text: str) -> str:
    if len(text) > 63:
        return f"{show(text)}: a name has at most 63 characters, this one has {len(text)}"
    return f"{show(text)}: a name begins with a small letter and goes on with small letters, digits, _ and -"


def _explain_backoff(text: str) -> str:
    first, _, most = text.partition("..")
    for part in (first, most) if most else (first,):
        try:
            parse_duration(part)
        except ValueError as error:
            return f'{error}; a backoff is one duration or a range such as "100ms..30s"'
    return f"{show(text)} is too large"


def text(pattern: str, explain: Callable[[str], str], **json_schema: object) -> Meta:
    """A string that has to fit `pattern` as a whole; `json_schema` adds to its JSON Schema.

    The pattern is not `Meta.pattern`: msgspec 0.22 frees the pattern of a string in a union with a list or a table as
    something else, and the interpreter crashes at its end (`TypeNode_get_traverse_ranges` leaves its slot out).
    """
    return Meta(
        extra_json_schema={"pattern": f"^{pattern}$", **json_schema}, extra={"pattern": pattern, "explain": explain}
    )


def _no(sentence: str) -> Callable[[str], str]:
    return lambda value: f"{show(value)}: {sentence}"


_NUL = "holds a NUL character, which no program can be given"

Text = Annotated[str, text("[^\\u0000]*", lambda _: _NUL)]
Word = Annotated[str, text("[^\\u0000]+", lambda value: _NUL if value else "is empty")]
Name = Annotated[str, text(NAME, _explain_name)]
Duration = Annotated[str, text(f"{_NOT_ZERO}{_DURATION}", _by(parse_duration))]
DurationOrZero = Annotated[str, text(_DURATION, _by(parse_duration))]
Backoff = Annotated[str, text(rf"{_DURATION}(\.\.{_DURATION})?", _explain_backoff)]
RateText = Annotated[str, text(f"[0-9]{{1,9}} in {_NOT_ZERO}{_DURATION}", _by(parse_rate))]
SizeText = Annotated[str, text(f"{_NOT_ZERO}{_BINARY_SIZE}", _by(parse_size))]
Size = Annotated[int, Meta(ge=1, le=_LARGEST)] | SizeText
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
EnvName = Annotated[
    str, text("[^=\\u0000]+", _no('the name of an environment variable is not empty and holds no "=" and no NUL'))
]
CodecName = Annotated[
    str, text("[a-z][a-z0-9_-]*", _explain_name, examples=["lines", "length-prefixed", "null", "raw"])
]
Address = Annotated[
    str,
    text(
        r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/\u0000]+):[0-9]{1,5}",
        _no('an address is HOST:PORT, such as "127.0.0.1:8080"'),
    ),
]
Url = Annotated[
    str,
    text(
        r"https?://[^\s/\u0000]+[^\s\u0000]*",
        _no('a URL begins with http:// or https://, such as "http://127.0.0.1:8080/"'),
    ),
]
Image = Annotated[
    str,
    text(
        r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,511}",
        _no('an image is named as the engine names it, such as "python:3.13-slim" or "registry.example/team/app:1"'),
    ),
]
Network = Annotated[
    str,
    text(
        "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}",
        _no('a network is "none", "outbound", "host" or the name of one of the engine\'s'),
        examples=["none", "outbound", "host"],
    ),
]
Secret = Annotated[
    str,
    text("(file|env):[^\\u0000]+", lambda _: 'a secret is "file:PATH" or "env:NAME"; its value is not written here'),
    Meta(extra={"quiet": True}),
]


def size_bytes(value: int | str) -> int:
    """The bytes of a `Size`; at least 1."""
    return max(1, parse_size(value))
