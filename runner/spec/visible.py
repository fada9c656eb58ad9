"""What an untrusted command sees of this machine, and whether its program is among it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from runner.spec import scanner
from runner.spec.findings import Scope, show
from runner.spec.model import Mount
from runner.spec.presence import is_there

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Of this machine, read-only in every sandbox; where they are links into /usr they are links there too."""

_RUNTIME_MARKS = ("pyvenv.cfg", "include", "lib")


def check_visible(
    scope: Scope,
    path: scanner.Path,
    words: Sequence[str],
    *,
    directory: Path,
    search_path: str | None,
    template: Path | None,
    mounts: Iterable[Mount],
) -> None:
    """An error where the program of an untrusted command would not be there, with the mounts line that adds it.

    An argument that names a file which would not be there gets a warning.
    """
    seen = [*map(Path, SYSTEM_FOLDERS), *(Path(mount.target) for mount in mounts), *([template] if template else [])]
    program = _found(words[0], directory, search_path, seen)
    if program is not None and not all(_within(each, seen) for each in _hops(program)):
        needed = sorted({_folder_to_mount(each) for each in _hops(program) if not _within(each, seen)})
        scope.error(
            path,
            f"{program} is not visible to an untrusted processor",
            f"add mounts = {json.dumps([str(each) for each in needed])} (read-only), or use a program in /usr",
        )
    for word in words[1:]:
        named = directory / word
        if word and not word.startswith("-") and is_there(named) and not _within(named, seen):
            scope.warning(
                path,
                f"{show(word)} names a file that is not visible to an untrusted processor",
                f'add mounts = {json.dumps([word])} if the program reads it (":rw" behind it lets it write)',
            )


def _found(program: str, directory: Path, search_path: str | None, seen: Sequence[Path]) -> Path | None:
    """The file that will be run: the first in the path that is visible, else the first at all; None: none is."""
    if "/" in program:
        return directory / program
    folders = (os.defpath if search_path is None else search_path).split(os.pathsep)
    there = [each for folder in folders if is_there(each := directory / folder / program)]
    return next((each for each in there if _within(each, seen)), there[0] if there else None)


def _hops(program: Path) -> tuple[Path, ...]:
    """The file, and what it is when every link is followed."""
    try:
        return (program, program.resolve())
    except (OSError, RuntimeError):
        return (program,)


def _within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _folder_to_mount(program: Path) -> Path:
    """The folder that a program's installation stands in: a virtual environment, a version of nvm or pyenv."""
    home = program.parent.parent
    if program.parent.name == "bin" and any(is_there(home / mark) for mark in _RUNTIME_MARKS):
        return home
    return program
