r"""Text from programs made harmless: nothing in it can move a cursor, hide or reorder what a person sees.

Control characters (C0, DEL, C1), format characters (bidi embeddings and overrides, invisible marks, tags), line and
paragraph separators and lone surrogates become visible escapes such as `\x1b`. A tab becomes four spaces. The zero
width joiner and non-joiner stay, since Persian, Indic scripts and emoji need them. See "Trojan Source" (CVE-2021-42574)
and ECMA-48 for what the rest can do.
"""

from __future__ import annotations

import re
import unicodedata

_HARMFUL_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
_SUSPECT = re.compile(r"[^ -~]")
_NAMED = {"\t": "    ", "\n": "\\n", "\r": "\\r"}


def visible(text: str) -> str:
    """`text` as one line of harmless text. For showing only: a backslash is not escaped, so there is no way back."""
    if text.isprintable():
        return text
    return _SUSPECT.sub(_shown, text)


def json_safe(encoded: str) -> str:
    r"""JSON text that means the same as `encoded` and is harmless to show: dangerous characters become `\uXXXX`.

    Such characters occur only within the strings of compact JSON, where the escape is the same character.
    """
    if encoded.isprintable():
        return encoded
    return _SUSPECT.sub(_json_escaped, encoded)


def clip(text: str, width: int) -> str:
    """`text` cut to at most `width` terminal cells, with "…" where something is missing."""
    if cells(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += _cells_of(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def cells(text: str) -> int:
    """How many terminal cells `text` takes, nearly: East Asian wide characters take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or character in _JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _harmful(character: str) -> bool:
    return unicodedata.category(character) in _HARMFUL_CATEGORIES and character not in _JOINERS


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    if not _harmful(character):
        return character
    if character in _NAMED:
        return _NAMED[character]
    if character < "\x80":
        return f"\\x{ord(character):02x}"
    return character.encode("ascii", "backslashreplace").decode()


def _json_escaped(match: re.Match[str]) -> str:
    character = match[0]
    if not _harmful(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
