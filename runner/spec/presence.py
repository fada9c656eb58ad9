"""What is there on this machine. Where one may not look, or a name is none, there is nothing."""

from __future__ import annotations

from pathlib import Path


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Whether there is anything at `path`."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
