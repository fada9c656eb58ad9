"""The scanner against tomllib: every path that the parser yields is found, and stands where the scanner says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given, reject, settings

from runner.spec.scanner import Path, Place, scan
from tests.spec.toml_texts import DOCUMENTS, same, table


def paths(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every path of a document with its value."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*path, index))


def offset_of(text: str, place: tuple[int, int]) -> int:
    line, column = place
    return sum(len(each) + 1 for each in text.split("\n")[: line - 1]) + column - 1


def begins_with_value(text: str, value: Any) -> bool:
    """Whether some beginning of `text` is `value`, written in TOML."""
    for end in range(1, len(text) + 1):
        try:
            if same(tomllib.loads(f"v = {text[:end]}")["v"], value):
                return True
        except ValueError:
            continue
    return False


def begins_with_key(text: str, key: str) -> bool:
    """Whether some beginning of `text` is `key`, written in TOML."""
    for end in range(1, len(text) + 1):
        try:
            if tomllib.loads(f"{text[:end]} = 1") == {key: 1}:
                return True
        except ValueError:
            continue
    return False


def check(text: str) -> None:
    text = text.replace("\r\n", "\n")
    data = tomllib.loads(text)
    places = scan(text)
    expected = dict(paths(data))
    assert set(places) == set(expected)
    for path, value in expected.items():
        if not path:
            continue
        place = places[path]
        if isinstance(path[-1], str):
            assert begins_with_key(text[offset_of(text, place.key) :], path[-1]), (path, place)
        at_value = text[offset_of(text, place.value) :]
        if not isinstance(value, dict | list):
            assert begins_with_value(at_value, value), (path, place)


@given(table())
@example("a.b.c = 1\na.b.d = 2\n")
@example("[[a]]\nx = 1\n[a.b]\n[[a.c]]\n[[a]]\n[a.b.c]\n")
@example('"" = 1\n[b."x.y".\'z\']\n')
@example("a = [ [1, 2] , # ]\n {b = '}'}, ]")
@settings(max_examples=300, deadline=None)
def test_documents_of_every_shape(text: str) -> None:
    try:
        tomllib.loads(text)
    except ValueError:
        reject()  # a dotted key that meets a table, for example
    check(text)


@given(DOCUMENTS)
@settings(max_examples=150, deadline=None)
def test_what_tomli_w_writes(document: dict[str, Any]) -> None:
    for multiline in (False, True):
        check(tomli_w.dumps(document, multiline_strings=multiline))


@pytest.mark.parametrize(
    ("text", "path", "key", "value"),
    [
        ("a = 1", ("a",), (1, 1), (1, 5)),
        ("\n  a  =  'x' # c", ("a",), (2, 3), (2, 9)),
        ("a.b = 1", ("a", "b"), (1, 3), (1, 7)),
        ("a.b = 1", ("a",), (1, 1), (1, 7)),
        ("[t.u]\nx = 1", ("t", "u"), (1, 4), (1, 1)),
        ("[t.u]\nx = 1", ("t", "u", "x"), (2, 1), (2, 5)),
        ("[a.b]\n[a]\n", ("a",), (2, 2), (2, 1)),
        ("a = [1, 'b',\n {c = 2}]", ("a", 2, "c"), (2, 3), (2, 7)),
        ("[[p]]\nx = 1\n[[p]]\nx = 2", ("p", 1, "x"), (4, 1), (4, 5)),
        ('"é" = "ü"', ("é",), (1, 1), (1, 7)),
        ('a = """\nx = 1\n"""\nb = 2', ("b",), (4, 1), (4, 5)),
    ],
)
def test_places(text: str, path: Path, key: tuple[int, int], value: tuple[int, int]) -> None:
    assert scan(text)[path] == Place(key, value)
