"""Writes the report of a run to a file, whole or not at all. Its fields are documented in docs/report.md."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from runner.errors import MachineError
from runner.observe.sanitize import json_safe
from runner.supervise.snapshot import RunReport

_OPEN_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")
_REMEDIES = {
    errno.ENOENT: "make its folder first, or write --report to another place",
    errno.ENOTDIR: "a part of the path is a file; write --report to another place",
    errno.EISDIR: "it is a folder; add a file name to it",
    errno.EACCES: "give this user the right to write into its folder",
    errno.EPERM: "give this user the right to write into its folder",
    errno.EROFS: "write --report to a place that is not read-only",
    errno.ENOSPC: "free some space, or write --report to another disk",
    errno.EDQUOT: "free some space, or write --report to another disk",
}


def encode_report(report: RunReport) -> bytes:
    """The report as indented JSON with a newline at its end; harmless to show, as causes quote programs and images."""
    return msgspec.json.format(json_safe(msgspec.json.encode(report).decode()), indent=2).encode() + b"\n"


def check_writable(path: Path | str) -> None:
    """See before a run that its report can be written to `path`, by making a file beside it and removing it.

    Raises MachineError with the reason.
    """
    with _errors_of(path):
        target = _target(path)
        if target is not None:
            temporary, descriptor = _create_beside(target)
            os.close(descriptor)
            temporary.unlink()


def write_report(report: RunReport, path: Path | str) -> None:
    """Write `report` to `path`: beside it first, synced, then renamed over it, so a report there is never damaged.

    A symbolic link is followed. What is no regular file (a pipe, a device, `/dev/stdout`) is written as it is.
    Raises MachineError with path and reason; then nothing has changed and no file is left over.
    """
    data = encode_report(report)
    with _errors_of(path):
        target = _target(path)
        if target is None:
            _write_through(path, data)
        else:
            _replace(target, data)


def _target(path: Path | str) -> Path | None:
    """The regular file to replace; None for a stream or device that is to be written as it is."""
    if str(path).startswith(_OPEN_STREAMS):
        return None
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return Path(os.path.realpath(path)) if stat.S_ISREG(mode) else None


def _write_through(path: Path | str, data: bytes) -> None:
    # Non-blocking for the opening only: a named pipe that nobody reads is then an error (ENXIO), not a hang.
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        os.set_blocking(descriptor, True)
        _write_all(stream.fileno(), data)


def _replace(target: Path, data: bytes) -> None:
    temporary, descriptor = _create_beside(target)
    try:
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _create_beside(target: Path) -> tuple[Path, int]:
    """A new file in the folder of `target`, with the rights that the umask gives."""
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.tmp")
    return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    """Make the rename durable where the file system can; the report itself is in place."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _errors_of(path: Path | str) -> Iterator[None]:
    """Turn what the system says about `path` into a MachineError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        remedy = _REMEDIES.get(getattr(error, "errno", None) or 0)
        raise MachineError(f"the report cannot be written: {reason}", where=str(path), remedy=remedy) from error
