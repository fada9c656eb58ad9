"""A damaged store: all messages are there, or an error names those that are not; the process survives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SEED = 20


def account(what: str, folder: Path) -> dict[str, int]:
    """What the child saw; it has to come to its end."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.store.damaging", what, str(folder), str(SEED)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=110,
    )
    assert child.returncode == 0, f"{child.returncode}\n{child.stdout[-2000:]}\n{child.stderr[-4000:]}"
    seen: dict[str, int] = json.loads(child.stdout.splitlines()[-1])
    print(seen)
    return seen


def test_cut_at_every_byte_of_the_last_two_pages(quick_folder: Path) -> None:
    seen = account("cut", quick_folder)
    assert seen["noticed"] > 2 * 4096
    assert seen["messages named"] > 0


@pytest.mark.slow
def test_flipped_bits_in_every_kind_of_page(quick_folder: Path) -> None:
    seen = account("flip", quick_folder)
    assert all(seen[f"flips: {kind}"] for kind in ("meta", "branch", "leaf", "overflow", "inside"))
    assert seen["lost a record"] > 0
    assert seen["refused"] > 0
