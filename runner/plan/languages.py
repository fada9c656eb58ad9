"""What a processor is written in, and how the libraries that it needs are installed, by what is in its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Literal

from msgspec import Struct

Language = Literal["python", "node", "java", "static"]

_PROGRAMS: tuple[tuple[str, Language], ...] = (
    (r"python(3(\.\d+)?)?", "python"),
    (r"node|nodejs|npm|npx", "node"),
    (r"java", "java"),
)
_ELF = b"\x7fELF"
_PT_INTERP = 3
_HEAD_BYTES = 4096


class Guess(Struct, frozen=True):
    """The language, or (None) why it cannot be told."""

    language: Language | None
    why_not: str = ""


def guess(program: str, folder: Path) -> Guess:
    """The language of a processor in `folder` by its command's first word."""
    name = PurePath(program).name
    for pattern, language in _PROGRAMS:
        if re.fullmatch(pattern, name):
            return Guess(language)
    unknown = Guess(None, f'nothing tells the language of "{program}"')
    if "/" not in program:
        return unknown
    file = folder / program
    if not file.is_relative_to(folder) or ".." in file.parts:
        return Guess(None, f'"{program}" is not in the folder')
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError as error:
        return Guess(None, f"{file} cannot be read: {(error.strerror or str(error)).lower()}")
    if head.startswith(_ELF):
        return Guess("static") if _is_static(head) else Guess(None, f'"{program}" needs shared libraries')
    interpreter = _interpreter(head)
    return unknown if interpreter is None else guess(interpreter, folder)


def _interpreter(head: bytes) -> str | None:
    """The name of the program that a script asks for in its first line."""
    if not head.startswith(b"#!"):
        return None
    words = [PurePath(word).name for word in head[2:].split(b"\n")[0].decode("utf-8", "replace").split()]
    return next((word for word in words if word != "env" and not word.startswith("-")), None)


def _is_static(head: bytes) -> bool:
    """Whether an ELF file asks for no interpreter (elf(5)): then it needs nothing but the kernel."""
    wide = head[4] == 2

    def number(at: int, size: int) -> int:
        return int.from_bytes(head[at : at + size], "little" if head[5] == 1 else "big")

    table, size, count = (
        (number(32, 8), number(54, 2), number(56, 2)) if wide else (number(28, 4), number(42, 2), number(44, 2))
    )
    return all(number(table + index * size, 4) != _PT_INTERP for index in range(count))


class Install(Struct, frozen=True):
    """The command that installs a program's libraries; `early` are the files that are all it needs, empty: not known.

    `ignored` is what it makes itself, so that a copy of it in the folder does not belong into the image.
    """

    command: str
    early: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def install(language: Language | None, folder: Path) -> Install | None:
    """How the libraries that the folder names are installed; None where it names none."""
    if language == "python":
        return _pip(folder)
    return _npm(folder) if language == "node" else None


def _pip(folder: Path) -> Install | None:
    text = _text(folder / "requirements.txt")
    if text is None:
        return None
    lines = [line.strip() for line in text.splitlines()]
    local = any(re.match(r"-[rcef]|--(?!hash)|[./]", line) or "file:" in line for line in lines)
    command = "python3 -m pip install --no-cache-dir --disable-pip-version-check --requirement requirements.txt"
    return Install(command, () if local else ("requirements.txt",))


def _npm(folder: Path) -> Install | None:
    package = _text(folder / "package.json")
    if package is None:
        return None
    try:
        keys = json.loads(package)
    except ValueError:
        keys = {}
    lock = _text(folder / "package-lock.json")
    if not isinstance(keys, dict) or not (keys.get("dependencies") or keys.get("optionalDependencies")):
        return None
    scripts = keys.get("scripts")
    hooked = isinstance(scripts, dict) and any(name in scripts for name in ("preinstall", "install", "postinstall"))
    local = hooked or "workspaces" in keys or '"file:' in package + (lock or "")
    early: Sequence[str] = ("package.json", "package-lock.json") if lock is not None else ("package.json",)
    verb = "ci" if lock is not None else "install --no-package-lock"
    command = f"npm {verb} --omit=dev --no-audit --no-fund --no-update-notifier"
    return Install(command, () if local else tuple(early), ("**/node_modules",))


def _text(file: Path) -> str | None:
    try:
        return file.read_text("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
