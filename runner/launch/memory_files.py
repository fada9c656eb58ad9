"""Files in memory that are handed over open: every home can read them (memfd_create(2))."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from runner.codec.base import Buffer

_EXECUTABLE = 0x10  # MFD_EXEC, Linux 6.3
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def memory_file(name: str, parts: Iterable[Buffer], *, flags: int = 0) -> int:
    """A descriptor, at its beginning, of a file that holds `parts`; the file goes with who has it. Raises OSError."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | flags)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.writelines(parts)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sealed_file(name: str, parts: Iterable[Buffer], *, flags: int = 0) -> int:
    """The same; nobody can change it."""
    descriptor = memory_file(name, parts, flags=os.MFD_ALLOW_SEALING | flags)
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sealed_program(path: str) -> int:
    """A descriptor to execute the program at `path` by: of a copy that nobody can change.

    Of the file itself where the kernel lets nobody execute memory (the sysctl vm.memfd_noexec).
    """
    program = Path(path).read_bytes()
    for flags in (_EXECUTABLE, 0):
        with contextlib.suppress(OSError):
            return sealed_file(Path(path).name, [program], flags=flags)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
