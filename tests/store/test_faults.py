"""A disk that is full or fails: nothing is lost, it is said why, and it goes on when there is room."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import MachineError
from runner.store import check_store
from tests.store.failing import CALLS, trouble
from tests.store.stores import all_of, opened, put_in, right


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "connector-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("sync", [False, True], ids=["process", "disk"])
async def test_a_full_disk(small_disk: Path, *, sync: bool) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3 << 20))
    store = opened(small_disk / "state", "a", sync=sync)
    put_in(store, "a", 1)
    await store.flush()
    waiting = asyncio.ensure_future(trouble(store))
    while not waiting.done():
        put_in(store, "a", 10, 20_000)
        await asyncio.wait([waiting, asyncio.ensure_future(store.flush())], return_when=asyncio.FIRST_COMPLETED)
    assert "no room" in (store.stuck or "")
    assert store.failed is None
    committed = store.state("a").last
    put_in(store, "a", 3, 1000)
    made = store.state("a").made
    assert committed < made
    assert len(all_of(store, "a")) == committed, "what is committed can be read"
    ballast.unlink()
    await store.flush()
    assert (store.stuck, store.failed) == (None, None)
    found = all_of(store, "a")
    right(found, "a")
    assert len(found) == made
    store.close()
    assert not check_store(small_disk / "state").damages


async def test_closed_while_it_is_full(small_disk: Path) -> None:
    store = opened(small_disk / "state", "a")
    put_in(store, "a", 10, 1000)
    await store.flush()
    waiting = asyncio.ensure_future(trouble(store))
    put_in(store, "a", 10, 1_000_000)
    await waiting
    assert store.stuck is not None
    store.close()
    store = opened(small_disk / "state", "a")
    assert len(all_of(store, "a")) == 10
    store.close()


def test_no_room_to_begin_with(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    with pytest.raises(MachineError, match="No space"):
        opened(small_disk / "state", "a")
    ballast.unlink()
    opened(small_disk / "state", "a").close()


def told(what: str, folder: Path) -> list[str]:
    """What the child with the failing disk saw."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.store.failing", what, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return child.stdout.splitlines()


def test_a_limit_that_is_lifted(tmp_path: Path) -> None:
    stuck, there = told("limit", tmp_path)
    assert stuck.startswith("stuck ")
    assert there == "there 210"


@pytest.mark.skipif(platform.machine() not in CALLS, reason="the numbers of the system calls are not known here")
def test_a_failed_sync_ends_it(tmp_path: Path) -> None:
    failed, raised = told("sync", tmp_path)
    assert "cannot be trusted" in failed
    assert raised == "raised"
    store = opened(tmp_path, "a", sync=True)
    assert store.state("a").last in {10, 210}
    right(all_of(store, "a"), "a")
    store.close()


@pytest.mark.skipif(platform.machine() not in CALLS, reason="the numbers of the system calls are not known here")
def test_a_failed_write_is_tried_again(tmp_path: Path) -> None:
    (stuck,) = told("write", tmp_path)
    assert stuck.startswith("stuck ")
    assert os.strerror(5) in stuck
    store = opened(tmp_path, "a")
    assert store.state("a").last == 10
    store.close()
