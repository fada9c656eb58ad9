"""From a file to a `Source`: its data, and where everything in it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.errors import Problem, SpecError
from runner.spec.findings import Source
from runner.spec.scanner import scan

LARGEST_FILE = 8 << 20
"""Bytes; a pipeline file beyond this is something else."""


def read_source(file: Path, name: str) -> Source:
    """Read the TOML document `file`, which is called `name` in problems.

    Raises SpecError with its one problem where it cannot be read or is no TOML.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _failed(name, f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError:
        raise _failed(name, "is no name of a file") from None
    if len(raw) > LARGEST_FILE:
        raise _failed(name, "is larger than 8 MiB, which no pipeline file is")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        raise _failed(name, "is not UTF-8", *_end_of(before)) from None
    return parse_source(text, name)


def parse_source(text: str, name: str) -> Source:
    """The TOML document `text`; raises SpecError with its one problem where it is no TOML."""
    text = text.replace("\r\n", "\n")
    try:
        return Source(name, tomllib.loads(text), scan(text))
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        line, column = _end_of(text)
        if found:
            message = message[: found.start()]
            if found[1]:
                line, column = int(found[1]), int(found[2])
        said = f"no valid TOML: {message[:1].lower()}{message[1:]}"
        twice = "a table, and a key in its table, stands once" if "annot" in message or "uplicate" in message else None
        raise _failed(name, said, line, column, twice) from None
    except RecursionError:
        raise _failed(name, "is nested too deeply", 1, 1) from None
    except ValueError as error:
        raise _failed(name, f"no valid TOML: {error}", 1, 1) from None


def given_source(document: Mapping[str, Any]) -> Source:
    """The document that was built in Python: tuples count as lists, paths as strings."""
    try:
        return Source(None, _plain(document))
    except RecursionError:
        raise SpecError((Problem("error", "is nested too deeply", ""),)) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _end_of(text: str) -> tuple[int, int]:
    """Line and column behind the last character of `text`."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _failed(
    name: str, message: str, line: int | None = None, column: int | None = None, remedy: str | None = None
) -> SpecError:
    return SpecError((Problem("error", message, "", remedy, name, line, column),))
