"""Files in memory that a program is given open: every home can read them, nobody can change them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable

from runner.codec.base import Buffer


def sealed_file(name: str, parts: Iterable[Buffer]) -> int:
    """A descriptor of a file that holds `parts`; it goes with who has it. See memfd_create(2)."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.writelines(parts)
        os.lseek(descriptor, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
