"""A disk of a few megabytes below a command, in mounts of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def on_small_disk(folder: Path, beside: Path, *, at_the_end: str = ":") -> tuple[str, ...]:
    """The words before a command that put a nearly full disk at `folder`; the file `room` in `beside` gives it room.

    `at_the_end` is run by a shell when the command has ended, before the disk is gone. Or a skip.
    """
    own_mounts = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
    if shutil.which("unshare") is None or not _can(*own_mounts, "mount", "-t", "tmpfs", "tmpfs", str(folder)):
        pytest.skip("mounts of its own cannot be made here")
    script = (
        f'mount -t tmpfs -o size=8m tmpfs "{folder}" && head -c 7M /dev/zero >"{folder}/fill"; '
        f'(while [ ! -e "{beside}/room" ] && [ ! -e "{beside}/over" ]; do sleep 0.05; done; rm "{folder}/fill") & '
        f'"$@"; code=$?; touch "{beside}/over"; wait; {at_the_end}; exit $code'
    )
    return (*own_mounts, "sh", "-c", script, "sh")


def _can(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
