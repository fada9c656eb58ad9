"""The context of a build as a tar stream that is the same for the same content, made while it is sent."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from runner.plan.content import ContentError, Entry
from runner.plan.image import Recipe

ADDED_DOCKERFILE = ".connector.Dockerfile"
"""Where a Dockerfile that is not in the context stands in it."""

_TIME_S = 315_619_200
"""All files are of 1980-01-02: the first day that a zip file can name in every time zone."""

_PIECE_BYTES = 1 << 18
_END = b"\0" * 1024  # two empty blocks end a tar file


def dockerfile_name(recipe: Recipe) -> str:
    """Where the Dockerfile stands in the context."""
    return recipe.dockerfile_path or ADDED_DOCKERFILE


def context_bytes(recipe: Recipe) -> int:
    """The bytes of all files that are sent."""
    return sum(entry.size_bytes for entry in recipe.entries)


def tar_of(recipe: Recipe, sent: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """The context of `recipe`; `sent` is told how many bytes of files have gone, piece by piece.

    Raises ContentError where a file is not what it was when the recipe was made: its hash would be a lie.
    """
    if recipe.dockerfile_path is None:
        data = recipe.dockerfile.encode()
        yield _header(ADDED_DOCKERFILE, tarfile.REGTYPE, 0o644, size=len(data))
        yield data + _padding(len(data))
    if recipe.prefix:
        yield _header(recipe.prefix.rstrip("/"), tarfile.DIRTYPE, 0o755)
    for entry in recipe.entries:
        name = recipe.prefix + entry.path
        if entry.kind == "folder":
            yield _header(name, tarfile.DIRTYPE, 0o755)
        elif entry.kind == "link":
            yield _header(name, tarfile.SYMTYPE, 0o777, target=entry.target)
        else:
            assert recipe.folder is not None
            yield _header(name, tarfile.REGTYPE, 0o755 if entry.executable else 0o644, size=entry.size_bytes)
            yield from _file(recipe.folder / entry.path, entry, sent)
            yield _padding(entry.size_bytes)
    yield _END


def _file(file: Path, entry: Entry, sent: Callable[[int], None]) -> Iterator[bytes]:
    left, seen = entry.size_bytes, hashlib.sha256()
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as opened:
            while left and (piece := opened.read(min(left, _PIECE_BYTES))):
                left -= len(piece)
                seen.update(piece)
                yield piece
                sent(len(piece))
    except OSError as error:
        raise ContentError(f"{file} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if left or seen.hexdigest() != entry.digest:
        raise ContentError(f"{file} was changed while it was sent", remedy="build again")


def _header(name: str, kind: bytes, mode: int, *, size: int = 0, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, size, target, _TIME_S
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _padding(size_bytes: int) -> bytes:
    return b"\0" * (-size_bytes % tarfile.BLOCKSIZE)
