"""SIGKILL of a writer at any moment: what was reported as committed is there, whole and gapless."""

from __future__ import annotations

import random
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.stores import all_of, opened, right

SEED = 5
KILLS = 15


@pytest.mark.parametrize("sync", [False, True], ids=["process", "disk"])
def test_killed_at_full_speed(tmp_path: Path, *, sync: bool) -> None:
    chance = random.Random(SEED + sync)
    reported = (0, 0)
    for kill in range(KILLS):
        reported = max(reported, killed_writer(tmp_path, chance, sync=sync))
        store = opened(tmp_path, "in", "out", sync=sync)
        last_in, last_out = store.state("in").last, store.state("out").last
        assert (last_in, last_out) >= reported, f"kill {kill}: less than was reported is there"
        for name in ("in", "out"):
            found = all_of(store, name)
            state = store.state(name)
            assert list(found) == list(range(state.first, state.last + 1))
            right(found, name)
        assert store.state("out").first == 1, "nobody reads it"
        assert store.readers("in")["r"].acknowledged == last_out, f"kill {kill}: outputs and cursor do not agree"
        note = store.get("notes", b"last")
        assert int(note or b"0") == last_out, f"kill {kill}: the note and the outputs do not agree"
        store.close()
    assert reported[1] > KILLS * 10


def killed_writer(folder: Path, chance: random.Random, *, sync: bool) -> tuple[int, int]:
    """Let a writer run for a moment after its first commit, kill it; the last numbers that it told."""
    command = [sys.executable, "-m", "tests.store.writing", str(folder), "sync" if sync else "not"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        assert first, "the writer died by itself"
        select.select([], [], [], chance.uniform(0, 0.08))
        writer.kill()
        told = (first + writer.stdout.read()).split(b"\n")
    last_in, last_out = (told[-2] if len(told) > 1 else told[0]).split()
    return int(last_in), int(last_out)
