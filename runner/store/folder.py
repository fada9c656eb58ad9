"""The folder of a store: one owner at a time, a version mark, and who had it before.

`lock` is held by flock(2) and says who holds it; it is emptied when the owner lets go of it in order. `version` is
written when everything else is there. `data.mdb` and `lock.mdb` are LMDB's.
`control` is the runner's (`runner.supervise.control`).
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runner.errors import MachineError
from runner.store.damage import Damage, DamageError

FORMAT = 1
_LOCK_TABLE_BYTES = 64 << 10
_MOST_MARK_BYTES = 4096


class Holder(msgspec.Struct, frozen=True):
    """Who holds, or held, a store. `started` is in ticks since the boot whose id `boot` is."""

    pid: int
    started: int
    boot: str
    sync: bool


class _Version(msgspec.Struct, frozen=True):
    format: int
    page_bytes: int


@dataclass(slots=True)
class StateFolder:
    """A folder that this process holds. `before` is who held it last and did not let go of it; None: nobody."""

    path: Path
    before: Holder | None
    lock: int

    @classmethod
    def take(cls, path: Path, *, sync: bool) -> StateFolder:
        """Make the folder where there is none, and hold it. Raises MachineError (another holds it, no permission)."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise unusable(path, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            before = _holder(lock)
            _write(lock, msgspec.json.encode(_this_process(sync=sync)))
        except BlockingIOError as error:
            other = _holder(lock)
            os.close(lock)
            raise MachineError(
                f"another runner uses this state{f': process {other.pid}' if other else ''}",
                where=str(path),
                remedy="stop it, or give this one a state of its own with --state-dir",
            ) from error
        except OSError as error:
            os.close(lock)
            raise unusable(path, error) from error
        return cls(path, before, lock)

    def release(self, *, clean: bool) -> None:
        """Let go of it; not `clean`: as a process that died."""
        if clean:
            os.ftruncate(self.lock, 0)
        os.close(self.lock)

    def give_back(self) -> None:
        """Let go of it as it was found: nothing was written to it."""
        if self.before is not None:
            _write(self.lock, msgspec.json.encode(self.before))
        self.release(clean=self.before is None)

    @property
    def data(self) -> Path:
        """LMDB's file."""
        return self.path / "data.mdb"

    @property
    def lost_power(self) -> bool:
        """Whether the machine went down under a holder that did not sync, so that what it wrote last may be missing."""
        return self.before is not None and not self.before.sync and self.before.boot != _boot()

    def page_bytes(self) -> int | None:
        """The size of its pages, as the version mark says; None: there is no mark. Raises MachineError, DamageError."""
        try:
            with (self.path / "version").open("rb") as file:
                version = msgspec.json.decode(file.read(_MOST_MARK_BYTES), type=_Version)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(self.path, error) from error
        except msgspec.MsgspecError as error:
            raise DamageError(str(self.path), [Damage("its version mark cannot be read")]) from error
        if version.format != FORMAT:
            raise MachineError(
                f"this state was written in format {version.format}, and this version of the runner knows {FORMAT}",
                where=str(self.path),
                remedy="finish or reset it with the version that wrote it",
            )
        if version.page_bytes.bit_count() != 1 or not 512 <= version.page_bytes <= 1 << 16:
            raise DamageError(str(self.path), [Damage("its version mark is impossible")])
        return version.page_bytes

    def mark(self, page_bytes: int) -> None:
        """Write the version mark, for good: what it stands for is there."""
        fresh = self.path / "version.new"
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(_Version(FORMAT, page_bytes)))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self.path / "version")
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def prepare_lock_table(self) -> None:
        """Give LMDB's table of readers its room on the disk: it writes there through a mapping.

        A full disk would end the process by SIGBUS.
        """
        table = os.open(self.path / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(table, 0, _LOCK_TABLE_BYTES)
        finally:
            os.close(table)


def unusable(path: Path, error: OSError) -> MachineError:
    """What a person is told when the folder cannot be used."""
    return MachineError(
        f"the state folder cannot be used: {error.strerror or error}",
        where=str(path),
        remedy="make room or set its permissions, or name another with --state-dir",
    )


def _this_process(*, sync: bool) -> Holder:
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return Holder(os.getpid(), int(started), _boot(), sync)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _holder(lock: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(lock, _MOST_MARK_BYTES, 0), type=Holder)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _write(lock: int, data: bytes) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, data, 0)


def remove_store(path: Path) -> None:
    """Give up a store, damaged or not; the folder stays. Raises MachineError (another process has it)."""
    folder = StateFolder.take(path, sync=True)
    try:
        for name in ("version", "data.mdb", "lock.mdb"):  # without the mark, the rest is of no store
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise unusable(path, error) from error
    finally:
        folder.release(clean=True)
