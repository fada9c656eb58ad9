"""A file that is read from a committed position on, also where it is exchanged for others. Calls may block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from runner.channel.file_disk import file_error, open_file, tail_of
from runner.channel.file_plan import (
    TAIL_BYTES,
    Found,
    Kept,
    Sibling,
    after,
    checksum_of,
    looks_rotated,
    plan_reading,
)

MOST_READ_BYTES = 256 << 10


class InFile:
    """See the module. `read` gives the bytes behind what it gave before.

    `kept` says how far messages were taken of the file that is being read; `opened` whether there is one.
    """

    def __init__(self, path: Path, channel: str, *, follow: bool) -> None:
        self.path = Path(os.path.realpath(path))
        self._channel = channel
        self._follow = follow
        self._descriptor = -1
        self._tail = b""
        self._at = 0
        self._next: Sibling | None = None
        self.kept = self._kept(1, 0, 0)

    @property
    def opened(self) -> bool:
        """Whether there is a file to read."""
        return self._descriptor >= 0

    @property
    def at(self) -> int:
        """How far it is read."""
        return self._at

    def open(self, kept: Kept | None) -> None:
        """Go on where `kept` says, or begin. A file that is followed may not be there yet.

        Raises RunnerError: what is to be gone on with cannot be found. Raises OSError.
        """
        if kept is None:
            try:
                self._begin(self.path, 1, 0)
            except FileNotFoundError:
                if not self._follow:
                    raise
            return
        self._hold(self._found(kept), kept.generation, kept.length_bytes)

    def _found(self, kept: Kept) -> int:
        """The file that was read, open: at its path, or (followed) under a name that it got since."""
        descriptor = -1
        try:
            descriptor = open_file(self.path, os.O_RDONLY)
            stat = os.fstat(descriptor)
            found = Found(stat.st_ino, stat.st_size, self._same(descriptor, kept))
        except FileNotFoundError:
            found = None
        refusal = plan_reading(kept, found)
        if refusal is None:
            return descriptor
        if descriptor >= 0:
            os.close(descriptor)
        if self._follow:
            for sibling in sorted(self._siblings(), key=lambda each: each.inode != kept.inode):  # itself, then copies
                if (descriptor := self._goes_on(sibling, kept)) >= 0:
                    return descriptor
        more = ", and no file beside it is that one" if self._follow else ""
        raise file_error(self.path, refusal.why + more, self._channel)

    def _goes_on(self, sibling: Sibling, kept: Kept) -> int:
        """`sibling`, open, if it is what was read: the same file, or a copy; else -1."""
        if sibling.size_bytes < kept.length_bytes or (not kept.length_bytes and sibling.inode != kept.inode):
            return -1
        try:
            descriptor = open_file(self.path.with_name(sibling.name), os.O_RDONLY)
        except FileNotFoundError:
            return -1
        if self._same(descriptor, kept):
            return descriptor
        os.close(descriptor)
        return -1

    @staticmethod
    def _same(descriptor: int, kept: Kept) -> bool:
        tail = tail_of(descriptor, kept.length_bytes)
        return len(tail) == min(TAIL_BYTES, kept.length_bytes) and checksum_of(tail) == kept.checksum

    def _begin(self, path: Path, generation: int, inode: int) -> None:
        """Read `path` from its beginning. Raises FileNotFoundError, also when it is not `inode` (0: any) any more."""
        descriptor = open_file(path, os.O_RDONLY)
        if inode and os.fstat(descriptor).st_ino != inode:
            os.close(descriptor)
            raise FileNotFoundError
        self._hold(descriptor, generation, 0)

    def _hold(self, descriptor: int, generation: int, at: int) -> None:
        self.close()
        self._descriptor = descriptor
        self._at = at
        self._tail = tail_of(descriptor, at)
        self._next = None
        self.kept = self._kept(generation, os.fstat(descriptor).st_ino, at)

    def took(self, data: bytes) -> Kept:
        """The next messages, which are `data` in the file, were taken; what is to be on record with them."""
        self._tail = (self._tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        self.kept = self._kept(self.kept.generation, self.kept.inode, self.kept.length_bytes + len(data))
        return self.kept

    def _kept(self, generation: int, inode: int, length_bytes: int) -> Kept:
        return Kept(str(self.path), generation, inode, length_bytes, checksum_of(self._tail), written=False)

    def read(self) -> bytes:
        """The next bytes; none at what is the end for now, or when it was cut short. Raises OSError."""
        if not self.opened:
            self.open(None)
            if not self.opened:
                return b""
        data = os.pread(self._descriptor, MOST_READ_BYTES, self._at)
        if self._follow and self.cut_short:
            return b""  # whether it was before or after the bytes were read, nobody knows
        self._at += len(data)
        return data

    @property
    def cut_short(self) -> bool:
        """Whether what was taken of it is in it no more (`copytruncate`)."""
        if not self.opened:
            return False
        return os.fstat(self._descriptor).st_size < self._at or not self._same(self._descriptor, self.kept)

    def go_on_elsewhere(self) -> bool:
        """It was cut short: go on in the copy that was made of it before, or at its beginning; whether there is one."""
        kept = self.kept
        for sibling in self._siblings():
            if sibling.inode != kept.inode and (descriptor := self._goes_on(sibling, kept)) >= 0:
                self._hold(descriptor, kept.generation, kept.length_bytes)
                return True
        self._hold(os.dup(self._descriptor), kept.generation + 1, 0)
        return False

    def leave(self) -> bool:
        """All of it is read: whether it is over, so that `go_on` reads another file next.

        Once another file is found this one is read to its end again: who wrote it may have done so until then.
        """
        if not self.opened:
            return False
        if self._next is not None:
            return True
        stat = os.fstat(self._descriptor)
        read = Sibling(self._name_of(stat.st_ino), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        self._next = after(read, self._siblings(), _sibling(self.path))
        return False

    def go_on(self) -> None:
        """Read the file that follows, from its beginning."""
        following, self._next = self._next, None
        assert following is not None
        try:
            self._begin(self._named(following), self.kept.generation + 1, following.inode)
        except FileNotFoundError:
            return  # it got another name meanwhile: look again

    def _named(self, wanted: Sibling) -> Path:
        """Where it is by now."""
        names = [each.name for each in self._everything() if each.inode == wanted.inode]
        return self.path.with_name(names[0] if names else wanted.name)

    def _name_of(self, inode: int) -> str:
        return next((each.name for each in self._everything() if each.inode == inode), self.path.name)

    def _everything(self) -> Iterator[Sibling]:
        current = _sibling(self.path)
        if current is not None:
            yield current
        yield from self._siblings()

    def _siblings(self) -> list[Sibling]:
        """The files beside it that may have been it."""
        paths = [each for each in self.path.parent.iterdir() if looks_rotated(self.path.name, each.name)]
        found = map(_sibling, paths)
        return [each for each in found if each is not None]

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sibling(path: Path) -> Sibling | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return Sibling(path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns)
