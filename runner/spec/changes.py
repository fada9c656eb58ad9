"""Keys that are laid over a pipeline file, where it runs in other surroundings than those that it was written for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.spec.reading import read_source


def read_changes(file: Path) -> dict[str, Any]:
    """The tables in `file`. Raises SpecError with its one problem where it cannot be read or is no TOML."""
    return read_source(file, str(file)).data


def laid_over(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with `changes`: tables key by key, everything else replaced."""
    result = dict(data)
    for key, value in changes.items():
        before = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = laid_over(before, value) if both else value  # type: ignore[arg-type]
    return result
