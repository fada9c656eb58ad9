"""A disk that fails for real: what was reported as committed is there, or an error names what is not."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

from runner.errors import RunnerError
from tests.store.disks import Disk, disk
from tests.store.failing import trouble
from tests.store.stores import all_of, opened, put_in, right

__all__ = ["disk"]

RECORDS, STEPS = 40, 6


async def test_a_disk_that_has_room_and_cannot_write(disk: Disk) -> None:
    """It is the sync that fails then, not the write."""
    store = opened(disk.folder / "state", "a", sync=True)
    put_in(store, "a", 10, 1000)
    await store.flush()
    disk.fill()
    waiting = asyncio.ensure_future(trouble(store))
    while not waiting.done():
        put_in(store, "a", 10, 20_000)
        await asyncio.wait([waiting, asyncio.ensure_future(store.flush())], return_when=asyncio.FIRST_COMPLETED)
    assert (store.failed, "no room" in (store.stuck or "")) == (None, True)
    made, reported = store.state("a").made, store.state("a").last
    assert 10 <= reported < made
    disk.empty()
    with contextlib.suppress(RunnerError):  # it goes on, or, where not even the head could be written, has given up
        await store.flush()
    assert store.failed is not None or store.state("a").last == made
    reported = store.state("a").last
    store.close()
    disk.unmount()
    disk.mount()
    store = opened(disk.folder / "state", "a", sync=True)
    found = all_of(store, "a")
    right(found, "a")
    assert len(found) >= reported
    put_in(store, "a", 10, 20_000)
    await store.flush()
    store.close()


async def test_a_disk_that_cannot_read(disk: Disk) -> None:
    folder = disk.folder / "state"
    store = opened(folder, "a", sync=True)
    for _ in range(RECORDS):
        put_in(store, "a", 4, 25_000)
        await store.flush()
    last = store.state("a").last
    store.close()
    places = disk.places(folder / "data.mdb")
    disk.unmount()
    seen: Counter[str] = Counter()
    for step in range(STEPS):
        disk.mount()
        with disk.cut(places[step * len(places) // STEPS]):
            seen.update(told(folder, last))
        disk.unmount()
    disk.mount()
    assert told(folder, last) == ["whole"]
    print(seen)
    assert seen["whole"]
    assert seen["named"]


def told(folder: Path, last: int) -> list[str]:
    """What the child saw; it has to come to its end."""
    command = [sys.executable, "-m", "tests.store.reading", str(folder), str(last)]
    child = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=60
    )
    assert child.returncode == 0, f"{child.returncode}\n{child.stdout[-2000:]}\n{child.stderr[-4000:]}"
    return child.stdout.split()
