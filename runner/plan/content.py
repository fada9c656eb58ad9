"""What a folder holds, as a value: the same on every machine, whenever and wherever the folder was copied.

It counts what an image gets of it: the paths, whether a file may be executed, the bytes, and where a link leads. Times,
owners and other permissions do not count. `.dockerignore` is obeyed as Docker obeys it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from runner.errors import RunnerError

IGNORE_FILE = ".dockerignore"
ALWAYS_IGNORED = ("**/.git", "**/__pycache__")
"""What never belongs into an image; a line of .dockerignore that begins with `!` brings it back."""

_PIECE_BYTES = 1 << 20


class ContentError(RunnerError):
    """A folder that cannot be read as a whole."""


class Entry(Struct, frozen=True):
    """One thing in a folder: `path` is relative, with `/`; `digest` is the SHA-256 of a file's bytes (else empty).

    `target` is where a link leads, as it was written; a link out of the folder stays a link.
    """

    path: str
    kind: Literal["file", "link", "folder"]
    executable: bool = False
    size_bytes: int = 0
    digest: str = ""
    target: str = ""


class Ignored:
    """Patterns of a .dockerignore: the last one that matches a path, or a folder around it, decides."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [rule for rule in map(_rule, patterns) if rule is not None]
        self.has_exceptions = any(not leave_out for leave_out, _ in self._rules)

    def __call__(self, path: str) -> bool:
        """Whether `path` is left out."""
        parts = path.split("/")
        around = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        left_out = False
        for leave_out, pattern in self._rules:
            if leave_out != left_out and any(map(pattern.fullmatch, around)):
                left_out = leave_out
        return left_out


def ignored_in(folder: Path, more: Iterable[str] = ()) -> Ignored:
    """What is left out of `folder`: what never belongs into an image, `more`, and what its .dockerignore says.

    Raises ContentError where that file cannot be read or understood.
    """
    file = folder / IGNORE_FILE
    try:
        lines = file.read_text("utf-8-sig", "surrogateescape").splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise _unreadable(file, error) from None
    for number, line in enumerate(lines, 1):
        try:
            _rule(line)
        except re.error as error:
            raise ContentError(
                f"{line.strip()} is no pattern: {error}", where=f"{file}:{number}", remedy="correct or remove that line"
            ) from None
    return Ignored((*ALWAYS_IGNORED, *more, *lines))


def entries_of(folder: Path, ignored: Ignored) -> tuple[Entry, ...]:
    """Everything in `folder` that is not left out, by path. Raises ContentError: what cannot be read, and why."""
    try:
        found = list(_walk(folder, "", ignored))
    except OSError as error:
        raise _unreadable(Path(error.filename or folder), error) from None
    return tuple(sorted(found, key=lambda entry: os.fsencode(entry.path)))


def digest_of(entries: Iterable[Entry], *more: str) -> str:
    """SHA-256 (hex) of the entries, and of the texts that belong to them."""
    total = hashlib.sha256()
    for text in more:
        _add(total.update, "text", text)
    for each in entries:
        _add(total.update, each.kind, each.path, "x" if each.executable else "-", each.digest, each.target)
    return total.hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) of what `folder` holds."""
    return digest_of(entries_of(folder, ignored_in(folder)))


def file_digest(file: Path) -> str:
    """SHA-256 (hex) of a file's bytes. Raises ContentError."""
    try:
        return _hash(file)
    except OSError as error:
        raise _unreadable(file, error) from None


def _walk(folder: Path, prefix: str, ignored: Ignored) -> Iterator[Entry]:
    with os.scandir(folder) as listing:
        for each in listing:
            path = prefix + each.name
            left_out = ignored(path)
            if each.is_dir(follow_symlinks=False):
                if not left_out:
                    yield Entry(path, "folder")
                if not left_out or ignored.has_exceptions:
                    yield from _walk(Path(each.path), f"{path}/", ignored)
            elif not left_out:
                yield _entry(each, path)


def _entry(each: os.DirEntry[str], path: str) -> Entry:
    if each.is_symlink():
        return Entry(path, "link", target=os.readlink(each.path))  # noqa: PTH115  (its bytes, not a Path of them)
    status = each.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise ContentError(
            f"{each.path} is no file, folder or link", remedy=f"remove it, or write a line {path} in {IGNORE_FILE}"
        )
    executable = bool(status.st_mode & stat.S_IXUSR)
    return Entry(path, "file", executable, status.st_size, _hash(Path(each.path)))


def _hash(file: Path) -> str:
    total = hashlib.sha256()
    with file.open("rb", buffering=0) as opened:
        while piece := opened.read(_PIECE_BYTES):
            total.update(piece)
    return total.hexdigest()


def _add(update: Callable[[bytes], object], *fields: str) -> None:
    """Each field behind its length, so that no two lists of fields are the same bytes."""
    for field in fields:
        data = os.fsencode(field)
        update(b"%d:" % len(data))
        update(data)


def _unreadable(path: Path, error: OSError) -> ContentError:
    remedy = f"give this user the right to read it, or leave it out by a line in {IGNORE_FILE}"
    return ContentError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}", remedy=remedy)


def _rule(line: str) -> tuple[bool, re.Pattern[str]] | None:
    """Whether a line leaves out or brings back, and what; None for a blank one or a comment.

    As docs.docker.com/build/concepts/context/#dockerignore-files has it.
    """
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    leave_out = not text.startswith("!")
    text = os.path.normpath(text.removeprefix("!").strip()).lstrip("/")
    return (leave_out, re.compile(_expression(text), re.DOTALL)) if text not in {"", "."} else None


def _expression(pattern: str) -> str:
    """The regular expression for a pattern of Go's filepath.Match with `**`."""
    parts = []
    rest = pattern
    while rest:
        if rest.startswith("**"):
            rest = rest.lstrip("*")
            parts.append("(?:.*/)?" if rest.startswith("/") else ".*")
            rest = rest.removeprefix("/")
            continue
        one, rest = rest[0], rest[1:]
        if one == "*":
            parts.append("[^/]*")
        elif one == "?":
            parts.append("[^/]")
        elif one == "[" and "]" in rest:
            inner, _, rest = rest.partition("]")
            parts.append(f"[{inner}]")
        elif one == "\\" and rest:
            parts.append(re.escape(rest[0]))
            rest = rest[1:]
        else:
            parts.append(re.escape(one))
    return "".join(parts)
