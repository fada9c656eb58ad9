"""`${NAME}` and `${NAME:-default}` from the environment; `$${` is a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.spec.findings import Findings, Source
from runner.spec.scanner import Path

_MARK = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<wrong>\$\{)")


class Interpolated(str):
    """A string into which the environment put something; it may stand where a number or a boolean is expected."""

    __slots__ = ()


def interpolate(source: Source, env: Mapping[str, str], findings: Findings) -> tuple[dict[str, Any], frozenset[Path]]:
    """The data of `source` with the environment put in, and the paths that could not be; each of those is an error.

    Only values are looked at, never keys. `${NAME:-default}` gives the default where NAME is unset or empty.
    """
    failed: set[Path] = set()

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: walk(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner, (*path, index)) for index, inner in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            for message, remedy in _wrong(value, env):
                findings.add("error", source, path, message, remedy=remedy)
                failed.add(path)
            return value if path in failed else _replaced(value, env)
        return value

    return walk(source.data, ()), frozenset(failed)


def names_in(value: Any) -> Iterator[tuple[str, bool]]:
    """The variables that a document takes from the environment, and whether each has a default there."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from names_in(inner)
    elif isinstance(value, str):
        for match in _MARK.finditer(value):
            if match["name"] is not None:
                yield match["name"], match["default"] is not None


def _wrong(text: str, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What keeps `text` from being filled in: sentence and remedy for each."""
    for match in _MARK.finditer(text):
        name = match["name"]
        if match["wrong"]:
            yield '"${" without a name and "}"', 'write ${NAME} or ${NAME:-default}, or "$${" for a literal "${"'
        elif name is not None and match["default"] is None and name not in env:
            yield (
                f"the environment variable {name} is not set",
                f"set it, or write ${{{name}:-default}}; $${{{name}}} leaves it to the program",
            )


def _replaced(text: str, env: Mapping[str, str]) -> str:
    def put_in(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "${"
        value = env.get(match["name"], "")
        return value or match["default"] or ""

    filled = _MARK.sub(put_in, text)
    return Interpolated(filled) if any(match["name"] for match in _MARK.finditer(text)) else filled
