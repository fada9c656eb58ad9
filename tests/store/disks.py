"""A disk whose errors are real: ext4 on a loop device, whose backing file lies in a file system of its own.

When that one is full, the disk has room and cannot write; where the backing file was cut off, it cannot read.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import without

BACKING_BYTES = 24 << 20
DISK_BYTES = 64 << 20
BLOCK_BYTES = 4096
_EXTENT = re.compile(r"^\s*\d+:\s+\d+\.\.\s*\d+:\s+(\d+)\.\.\s*(\d+):", re.MULTILINE)


class Disk:
    """The disk, mounted at `folder`."""

    def __init__(self, place: Path) -> None:
        self._backing = place / "backing"
        self._image = self._backing / "image"
        self._ballast = self._backing / "ballast"
        self.folder = place / "disk"
        for folder in (self._backing, self.folder):
            folder.mkdir()

    def make(self) -> None:
        """Make and mount it."""
        _run("mount", "-t", "tmpfs", "-o", f"size={BACKING_BYTES}", "connector-test", self._backing)
        with self._image.open("wb") as image:
            image.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", "-b", BLOCK_BYTES, self._image)
        self.mount()

    def mount(self) -> None:
        """With nothing of it in memory."""
        _run("mount", "-o", "loop,errors=continue", self._image, self.folder)

    def unmount(self) -> None:
        """Write what can be written, forget what cannot."""
        _run("umount", self.folder)

    def fill(self) -> None:
        """From now on what takes room on the disk cannot be written."""
        with self._ballast.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 12))

    def empty(self) -> None:
        """It can again."""
        self._ballast.unlink()

    def places(self, file: Path) -> list[int]:
        """Where on the disk the blocks of a file are, in bytes, in the order of the disk (filefrag(8))."""
        told = _run("filefrag", "-b1", "-v", file)
        extents = [(int(first), int(last)) for first, last in _EXTENT.findall(told)]
        return sorted(at for first, last in extents for at in range(first, last, BLOCK_BYTES))

    @contextlib.contextmanager
    def cut(self, length: int) -> Iterator[None]:
        """Until this is over, what lies behind `length` and is not in memory cannot be read."""
        with self._image.open("r+b") as image:
            image.seek(length)
            rest = image.read()
            image.truncate(length)
            try:
                yield
            finally:
                image.truncate(length + len(rest))
                for at in range(0, len(rest), BLOCK_BYTES):
                    if (block := rest[at : at + BLOCK_BYTES]).strip(b"\0"):
                        image.seek(length + at)
                        image.write(block)

    def remove(self) -> None:
        """Whatever there is of it."""
        for folder in (self.folder, self._backing):
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        without(f"no disk of one's own can be made here: {command[0]}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """One, gone at the end. Only root can make it."""
    if os.geteuid() != 0:
        without("a disk of one's own needs root")
    made = Disk(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.remove()
