"""TOML documents of every shape that the grammar knows, for hypothesis."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import strategies as st

BLANKS = st.sampled_from(["", " ", "  ", "\t"])
COMMENTS = st.sampled_from(["", " # note", " #", "  # [not.a.table] = 'x' \"", " # ünïcode"])
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\n\n", "\n  # between\n\n"])
WORDS = st.text("abcXYZ019_-", min_size=1, max_size=4)
ODD_WORDS = st.sampled_from(["", "a.b", "x y", 'q"q', "it's", "é", "[x]", "#", "=", "\t", "日本", "\\", "tab\there"])


def quoted(text: str) -> str:
    """A basic string; JSON's escapes are TOML's as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, str]:
    """A key as it is and as it is written."""
    if draw(st.booleans()):
        word = draw(WORDS)
        return word, draw(st.sampled_from([word, f'"{word}"', f"'{word}'"]))
    word = draw(ODD_WORDS)
    literal = "'" not in word and "\t" not in word and draw(st.booleans())
    return word, f"'{word}'" if literal else quoted(word)


SCALARS = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.sampled_from(
        [
            *("true", "false", "1.5", "-0.0", "6.02e+23", "inf", "-inf", "nan", "0xDEAD_BEEF", "0o17", "0b11", "1_000"),
            *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5-07:00"),
            *('"""a"""', '""""quoted" here"""', '"""two\nlines \\\n   on"""', '""" \\""" """', '"""x"""""', '""""""'),
            *("'''b'''", "'''it's'''", "'''two\nlines'''", "'''''x'''", "''''''", "''", '""', "'a # b'", '"a \\" # b"'),
            *('"= [x]"', "'{'", '"}"', '","', '"\\u00e9"'),
        ]
    ),
    st.text(max_size=6).map(quoted),
)


@st.composite
def inline(draw: st.DrawFn, depth: int = 2) -> str:
    """A value on the right of a `=`."""
    kind = draw(st.sampled_from(["scalar", "scalar", "array", "table"] if depth else ["scalar"]))
    if kind == "array":
        elements = draw(st.lists(inline(depth - 1), max_size=3))
        between = draw(st.sampled_from([", ", ",", " ,\n  ", ", # note ] \n\n "]))
        last = draw(st.sampled_from(["", ",", ",\n", "\n # end\n"])) if elements else draw(st.sampled_from(["", "\n"]))
        return f"[{draw(st.sampled_from(['', ' ', chr(10)]))}{between.join(elements)}{last}]"
    if kind == "table":
        seen: set[str] = set()
        pairs = []
        for (key, written), value in draw(st.lists(st.tuples(keys(), inline(depth - 1)), max_size=3)):
            if key not in seen:
                seen.add(key)
                dotted = f"{written} . {draw(keys())[1]}" if draw(st.integers(0, 4)) == 0 else written
                pairs.append(f"{dotted}{draw(BLANKS)}={draw(BLANKS)}{value}")
        return "{" + ", ".join(f" {pair} " for pair in pairs) + "}"
    return draw(SCALARS)


@st.composite
def table(draw: st.DrawFn, path: tuple[str, ...] = (), depth: int = 2) -> str:
    """The pairs of a table, then its tables and arrays of tables with their headers."""
    seen: set[str] = set()
    head, tail = "", ""
    for (key, written), kind in draw(st.lists(st.tuples(keys(), st.integers(0, 7)), max_size=4)):
        if key in seen:
            continue
        seen.add(key)
        end = draw(COMMENTS) + draw(LINE_ENDS)
        header = draw(st.sampled_from([".", " . "])).join((*path, written))
        blank = draw(BLANKS)
        if kind < 4 or depth == 0:
            head += f"{blank}{written}{draw(BLANKS)}={draw(BLANKS)}{draw(inline())}{end}"
        elif kind == 4:
            parts = dict(draw(st.lists(keys(), min_size=1, max_size=3)))
            for part in parts.values():
                head += f"{blank}{written}{draw(BLANKS)}.{draw(BLANKS)}{part} = {draw(inline(1))}{end}"
        elif kind == 5:
            deeper = (*path, written, *([draw(keys())[1]] if draw(st.booleans()) else []))
            tail += f"{blank}[{draw(BLANKS)}{' . '.join(deeper)}{draw(BLANKS)}]{end}{draw(table(deeper, depth - 1))}"
        elif kind == 6:
            for _ in range(draw(st.integers(1, 3))):
                tail += f"{blank}[[{header}]]{end}{draw(table((*path, written), depth - 1))}"
        else:
            tail += f"{blank}[{header}]{end}"
    return head + tail


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=5)


def same(one: Any, other: Any) -> bool:
    """Equal, where nan equals nan."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other
