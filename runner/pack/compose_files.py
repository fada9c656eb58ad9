"""The files of a Compose project: written, held to what they should be, and never over somebody's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from runner.errors import EXIT_USAGE, RunnerError
from runner.plan.compose.project import FOUND_BY_COMPOSE, MARK

_OWN_PLACE = "put what is yours into compose.override.yaml and remove it, or write elsewhere (--output)"


class ExportError(RunnerError):
    """The pipeline cannot be a Compose project as it stands, with every reason."""

    exit_code = EXIT_USAGE


class Project(Struct, frozen=True):
    """The files of a Compose project, by path; the Compose file is the first.

    `warnings` are what will keep it from working if nobody does something about it.
    """

    files: dict[Path, str]
    warnings: tuple[str, ...] = ()

    def differences(self) -> Iterator[str]:
        """What is not as it should be, file by file."""
        for path, text in self.files.items():
            found = _read(path)
            if found is None:
                yield f"{path} is not there"
            elif found != text:
                yield f"{path}:{_first_difference(found, text)} is not what the pipeline says now"

    def write(self) -> list[Path]:
        """Write what is missing or different; returns which. Raises ExportError where that is not ours to do."""
        self._refuse_what_is_not_ours()
        written = []
        for path, text in self.files.items():
            if _read(path) == text:
                continue
            try:
                path.parent.mkdir(exist_ok=True)
                fresh = path.with_name(f".{path.name}.new")
                fresh.write_text(text, "utf-8")
                fresh.chmod(0o644)  # the runner's user reads it
                fresh.replace(path)
            except OSError as error:
                raise ExportError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None
            written.append(path)
        return written

    def _refuse_what_is_not_ours(self) -> None:
        first, *_ = self.files
        found = {path: text for path in self.files if (text := _read(path)) is not None}
        ours = {path for path, text in found.items() if text.startswith(f"# {MARK}")}
        for path, text in found.items():
            mine = path in ours or (path != first and bool(ours))
            if not mine and text != self.files[path]:
                raise ExportError(f"{path} is there and was not written by this command", remedy=_OWN_PLACE)
        if first in found or first.name not in FOUND_BY_COMPOSE:
            return
        for name in FOUND_BY_COMPOSE:
            if (first.parent / name).exists():
                raise ExportError(
                    f"{first.parent / name} is there, and Compose reads one of it and {first.name}", remedy=_OWN_PLACE
                )


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise ExportError(f"{path} cannot be read: {why.lower()}") from None


def _first_difference(found: str, due: str) -> int:
    """The line where two texts part."""
    pairs = zip(re.split("\n", found), re.split("\n", due), strict=False)
    return next((number for number, (mine, theirs) in enumerate(pairs, 1) if mine != theirs), found.count("\n") + 1)
