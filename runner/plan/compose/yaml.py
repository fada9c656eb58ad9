"""YAML as a careful person writes it: in the order given, with comments, and quotes only where they are needed.

The values are strings, whole numbers, booleans, lists and mappings; enough for a Compose file, and no more.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@+=-]*(?::[A-Za-z0-9_./@+=-]+)*")
_AMBIGUOUS = re.compile(
    r"(?i)y|n|yes|no|on|off|true|false|null|~|[-+.]?[0-9][0-9_.,:]*(?:e[-+]?[0-9]+)?|[0-9]{4}-[0-9]{1,2}-[0-9].*|0[xob][0-9a-f_]+|[-+]?\.(?:inf|nan)"
)
"""What some reader of YAML takes for something else than a string: words of YAML 1.1, numbers, dates, times."""
_WIDTH = 110


@dataclass(frozen=True)
class Alias:
    """`*name`: what is marked with that name."""

    name: str


@dataclass
class Block:
    """A mapping, its keys in order. `notes` are comments above a key; `mark` names it, for aliases.

    `apart`: its keys have an empty line between them. Keys whose value is None are left out.
    """

    keys: Mapping[str, Value]
    notes: Mapping[str, str] = field(default_factory=dict)
    mark: str | None = None
    apart: bool = False


Value = str | int | bool | None | Sequence["str | Block"] | Block | Alias


def dump(block: Block, heading: str) -> str:
    """The whole file, `heading` as comments at its top."""
    lines = [*_comments(heading, ""), "", *_block(block, "")]
    return "\n".join(lines) + "\n"


def scalar(value: str | int | bool) -> str:
    """One value on its line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and not _AMBIGUOUS.fullmatch(value):
        return value
    return "".join(_escaped(each) for each in json.dumps(value, ensure_ascii=False))


def _escaped(character: str) -> str:
    """A character between quotes; what cannot be seen, in YAML's way: some are not allowed, or end lines."""
    if character == " " or character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def literal(text: str) -> str:
    """`text` for a value in which Compose puts variables: as it is."""
    return text.replace("$", "$$")


def _block(block: Block, indent: str) -> Iterator[str]:
    first = True
    for key, value in block.keys.items():
        if value is None:
            continue
        if block.apart and not first:
            yield ""
        first = False
        if key in block.notes:
            yield from _comments(block.notes[key], indent)
        yield from _entry(key, value, indent)


def _entry(key: str, value: Value, indent: str) -> Iterator[str]:
    name = f"{indent}{scalar(key) if key != '<<' else key}:"
    match value:
        case Alias():
            yield f"{name} *{value.name}"
        case Block():
            mark = f" &{value.mark}" if value.mark is not None else ""
            if any(inner is not None for inner in value.keys.values()):
                yield name + mark
                yield from _block(value, indent + "  ")
            else:
                yield f"{name}{mark} {{}}"
        case str() | int():
            yield f"{name} {scalar(value)}"
        case None:
            return
        case _:
            yield from _list(name, value, indent)


def _list(name: str, values: Sequence[str | Block], indent: str) -> Iterator[str]:
    texts = [scalar(each) for each in values if isinstance(each, str)]
    short = f"{name} [{', '.join(texts)}]"
    if len(texts) == len(values) and len(short) <= _WIDTH:
        yield short
        return
    yield name
    for each in values:
        if isinstance(each, Block):
            first, *rest = _block(each, indent + "    ")
            yield f"{indent}  - {first.lstrip()}"
            yield from rest
        else:
            yield f"{indent}  - {scalar(each)}"


def _comments(text: str, indent: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        yield from textwrap.wrap(
            paragraph,
            _WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_long_words=False,
            break_on_hyphens=False,
        ) or [f"{indent}#"]
