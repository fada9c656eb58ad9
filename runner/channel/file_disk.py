"""A file that messages are put to the end of: looked at, gone on with, written, and exchanged when it is full."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import msgspec

from runner.channel.file_plan import (
    TAIL_BYTES,
    Disk,
    Found,
    Kept,
    Refusal,
    Step,
    checksum_of,
    full_name,
    full_number,
    plan_writing,
)
from runner.errors import RunnerError
from runner.spec.files import what_it_is

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
PUT_RIGHT = (
    "put the file right, or give up its record and the messages that wait for it: connector state reset --channel {}"
)


def file_error(path: Path, why: str, channel: str) -> RunnerError:
    """What a person is told when the file of `channel` is not as it was left."""
    return RunnerError(why, where=f"file {path}", remedy=PUT_RIGHT.format(channel))


def cannot(path: Path, error: OSError, *, what: str = "cannot be used") -> RunnerError:
    """What a person is told when the system refuses."""
    return RunnerError(f"{what}: {(error.strerror or str(error)).lower()}", where=f"file {path}")


def tail_of(descriptor: int, length_bytes: int) -> bytes:
    """The last bytes before `length_bytes`, as far as they are there."""
    start = max(0, length_bytes - TAIL_BYTES)
    return os.pread(descriptor, length_bytes - start, start)


def open_file(path: Path, flags: int) -> int:
    """Open what is at `path`, which has to be a file. Raises RunnerError, and FileNotFoundError."""
    try:
        wrong = what_it_is(path.stat().st_mode)
        if wrong is not None:
            raise RunnerError(f"is {wrong}", where=f"file {path}", remedy="a file channel needs a file")
        return os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cannot(path, error) from error


class OutFile:
    """See the module. `sync`: what is appended survives a loss of power. Each call may block.

    The `Kept` that it is given, or gives, is committed by the caller before the next call but `append`.
    """

    def __init__(self, path: Path, channel: str, *, sync: bool) -> None:
        self.path = Path(os.path.realpath(path))
        self._channel = channel
        self._sync = sync
        self._descriptor = -1
        self._inode = 0
        self._torn = False
        self._tail = b""

    @property
    def _fresh(self) -> Path:
        return self.path.with_name(f".{self.path.name}.next")

    def _full(self, generation: int) -> Path:
        return self.path.with_name(full_name(self.path.name, generation))

    def open(self, kept: Kept | None, now_s: float, ends_with: bytes | None) -> Kept:
        """Go on where `kept` says, or begin at the end of what is there; what is to be on record from now on.

        A file that nothing is on record of has to end with `ends_with`, if that is known. Raises RunnerError: the file
        is not as it was left, somebody else writes it, it cannot be used.
        """
        try:
            return self._go_on(kept, now_s, ends_with)
        except OSError as error:
            raise cannot(self.path, error) from error

    def wrong_with(self, kept: Kept) -> str | None:
        """Why it cannot be gone on with; None: it can. Changes nothing. Raises OSError, and RunnerError as `open`."""
        try:
            plan = plan_writing(str(self.path), kept, self._look(kept), 0.0)
        finally:
            self.close()
        return plan.why if isinstance(plan, Refusal) else None

    def _go_on(self, kept: Kept | None, now_s: float, ends_with: bytes | None) -> Kept:
        plan = plan_writing(str(self.path), kept, self._look(kept), now_s)
        if isinstance(plan, Refusal):
            raise file_error(self.path, plan.why, self._channel)
        if kept is None and self._descriptor >= 0 and ends_with is not None:
            self._check_end(plan.kept.length_bytes, ends_with)
        for step in plan.steps:
            self._do(step, plan.kept if kept is None else kept)
        self._tail = tail_of(self._descriptor, plan.kept.length_bytes)
        return msgspec.structs.replace(plan.kept, inode=self._inode, checksum=checksum_of(self._tail))

    def _look(self, kept: Kept | None) -> Disk:
        """What is there; the current file is open and locked then, if there is one.

        What is held already stays so: a child that is just being started has a copy of its descriptor for a moment, and
        with that the lock, so that nobody could take it again.
        """
        current = full = fresh = None
        try:
            if self._descriptor < 0 or self.path.stat().st_ino != self._inode:
                self.close()
                self._take(open_file(self.path, os.O_RDWR))
            current = self._found(self._descriptor, kept)
        except FileNotFoundError:
            self.close()
        if kept is not None and kept.next_inode is not None:
            full, fresh = _seen(self._full(kept.generation)), _seen(self._fresh)
        return Disk(current, full, fresh, max(self._numbers(), default=0))

    def _take(self, descriptor: int) -> None:
        """Hold it, alone. Raises RunnerError."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RunnerError(
                "is written by another runner, or by another channel",
                where=f"file {self.path}",
                remedy="stop that one, or give each a file of its own",
            ) from error
        except OSError:
            pass  # a file system without locks
        self.close()
        self._descriptor = descriptor
        self._inode = os.fstat(descriptor).st_ino

    @staticmethod
    def _found(descriptor: int, kept: Kept | None) -> Found:
        found = os.fstat(descriptor)
        same = kept is None or checksum_of(tail_of(descriptor, kept.length_bytes)) == kept.checksum
        return Found(found.st_ino, found.st_size, same)

    def _check_end(self, length_bytes: int, ends_with: bytes) -> None:
        there = os.pread(self._descriptor, len(ends_with), max(0, length_bytes - len(ends_with)))
        if length_bytes and there != ends_with:
            raise RunnerError(
                "ends in the middle of a message, and what is put behind it would become a part of that",
                where=f"file {self.path}",
                remedy=f"end it with {ends_with!r}, or put it away",
            )

    def _numbers(self) -> list[int]:
        """Those of the full files that are there."""
        numbers = (full_number(self.path.name, each.name) for each in self.path.parent.iterdir())
        return [number for number in numbers if number is not None]

    def _do(self, step: Step, kept: Kept) -> None:
        """Carry out one step; `kept` is what was on record before."""
        match step:
            case Step.CUT:
                length_bytes = 0 if self._inode == kept.next_inode else kept.length_bytes
                os.ftruncate(self._descriptor, length_bytes)
            case Step.UNNAME:
                self._full(kept.generation).unlink()
            case Step.NAME_FULL:
                self._name_full(self._full(kept.generation))
            case Step.SWAP:
                self._take(open_file(self._fresh, os.O_RDWR))
                self._fresh.rename(self.path)
            case Step.CREATE:
                self._take(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        if self._sync:
            os.fsync(self._descriptor)
            _sync_folder(self.path.parent)

    def _name_full(self, full: Path) -> None:
        """Never over another file, where the file system has links."""
        try:
            os.link(self.path, full)
        except OSError as error:
            if error.errno not in _NO_LINKS or full.exists():
                raise
            self.path.rename(full)

    # -- writing

    def append(self, kept: Kept, data: bytes, now_s: float) -> Kept:
        """Put `data` behind the committed length; what is to be on record then.

        Raises OSError: nothing of it counts, and it may be tried again. Raises RunnerError: the file is not as it was.
        """
        self._check(kept)
        self._torn = True
        at = kept.length_bytes
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            at += written
            rest = rest[written:]
        if self._sync:
            os.fdatasync(self._descriptor)
        self._torn = False
        self._tail = (self._tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        return msgspec.structs.replace(
            kept,
            length_bytes=at,
            checksum=checksum_of(self._tail),
            begun_at_s=kept.begun_at_s or now_s,
        )

    def _check(self, kept: Kept) -> None:
        """Whether it is as we left it; what a failed try left behind is cut off."""
        size_bytes = os.fstat(self._descriptor).st_size
        try:
            here = self.path.stat().st_ino
        except FileNotFoundError:
            raise file_error(self.path, "was taken away while it was written", self._channel) from None
        if here != self._inode:
            raise file_error(self.path, "was exchanged for another file while it was written", self._channel)
        if self._torn and size_bytes > kept.length_bytes:
            os.ftruncate(self._descriptor, kept.length_bytes)
        elif size_bytes != kept.length_bytes:
            why = f"has {size_bytes:,} bytes, and {kept.length_bytes:,} were written: somebody else writes it"
            raise file_error(self.path, why, self._channel)

    # -- exchanging it

    def prepare(self, kept: Kept) -> Kept:
        """It is full: make the empty file that is to take its place. Raises OSError."""
        self._fresh.unlink(missing_ok=True)  # of a try that was never put on record
        descriptor = os.open(self._fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
            if self._sync:
                os.fsync(descriptor)
                _sync_folder(self.path.parent)
            inode = os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)
        generation = max(kept.generation, 1 + max(self._numbers(), default=0))
        return msgspec.structs.replace(kept, generation=generation, next_inode=inode)

    def exchange(self, kept: Kept) -> Kept:
        """Do what `prepare` has prepared; it is on record. Raises OSError, RunnerError."""
        return self._go_on(kept, 0.0, None)

    def remove_old(self, generation: int, keep: int) -> None:
        """Delete the full files but the last `keep`. Raises OSError."""
        for number in self._numbers():
            if number < generation - keep:
                self._full(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _seen(path: Path) -> Found | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return Found(found.st_ino, found.st_size)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
