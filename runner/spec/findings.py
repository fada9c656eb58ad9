"""Collects every problem of a pipeline, each with its place in the text that it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from runner.errors import Problem
from runner.spec.scanner import Path, Positions

At = Literal["key", "value"]


class Source(Struct, frozen=True):
    """One document as it was read: its name as people know it (None: built in Python), its data, its places."""

    name: str | None
    data: dict[str, Any]
    positions: Positions = {}

    def place(self, path: Path, at: At) -> tuple[int | None, int | None]:
        """Line and column of `path`, or of the nearest table around it that was written."""
        if not self.positions:
            return None, None
        for length in range(len(path), -1, -1):
            place = self.positions.get(path[:length])
            if place is not None:
                return place.value if at == "value" and length == len(path) else place.key
        return 1, 1


class Findings:
    """All problems found so far; those of the document called `main` come first."""

    def __init__(self, main: str | None) -> None:
        self._found: list[tuple[int, Problem]] = []
        self._sources: dict[str | None, int] = {main: 0}

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return any(problem.severity == "error" for _, problem in self._found)

    def add(
        self,
        severity: Literal["error", "warning"],
        source: Source,
        path: Path,
        message: str,
        *,
        remedy: str | None = None,
        at: At = "value",
    ) -> None:
        """Note a problem of what `path` is in `source`."""
        line, column = source.place(path, at)
        self.note(Problem(severity, message, show_path(path), remedy, source.name, line, column))

    def note(self, problem: Problem) -> None:
        """Note a problem that knows its place; the same one twice counts once."""
        rank = self._sources.setdefault(problem.file, len(self._sources))
        if (rank, problem) not in self._found:
            self._found.append((rank, problem))

    def problems(self) -> tuple[Problem, ...]:
        """All of them, file by file, from the top of each to its end."""
        ordered = sorted(self._found, key=lambda found: (found[0], found[1].line or 0, found[1].column or 0))
        return tuple(problem for _, problem in ordered)


class Scope(Struct, frozen=True):
    """One table: problems of its keys are noted where the key was written.

    For a processor with `use`, `inherited` holds the paths that come from `template`, its processor.toml.
    """

    findings: Findings
    source: Source
    prefix: Path = ()
    template: Source | None = None
    inherited: frozenset[Path] = frozenset()

    def error(self, path: Path, message: str, remedy: str | None = None, *, at: At = "value") -> None:
        """Note an error of `path`, which is relative to this table."""
        source, full = self.origin(path)
        self.findings.add("error", source, full, message, remedy=remedy, at=at)

    def warning(self, path: Path, message: str, remedy: str | None = None, *, at: At = "value") -> None:
        """Note a warning of `path`, which is relative to this table."""
        source, full = self.origin(path)
        self.findings.add("warning", source, full, message, remedy=remedy, at=at)

    def origin(self, path: Path) -> tuple[Source, Path]:
        """The document in which `path` was written, and its path there."""
        if self.template is not None and any(path[:length] in self.inherited for length in (1, 2)):
            return self.template, path
        return self.source, (*self.prefix, *path)


def show_path(path: Path) -> str:
    """A path as TOML would write it: `processors.fetch.command[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part)
            text += f".{key}" if text else key
    return text


def show(value: object) -> str:
    """A value for a message: short, on one line, without control characters."""
    if isinstance(value, Mapping):
        return "a table"
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(str(value))
    return text if len(text) <= 60 else f"{text[:56]} ..."


def listed(words: list[str], conjunction: str = "or") -> str:
    """`words` as people list them: `a`, `a or b`, `a, b or c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
