"""A child that writes through a store at full speed until it is killed.

`python -m tests.store.writing FOLDER sync|not`

Messages of `in` are answered one by one in `out`; the answers, the cursor and a note of the last number are put in by
one callback. What is committed is told on stdout, as "IN OUT\n".
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from runner.store import Cursor, Store
from tests.store.stores import batch, opened, put_in

AT_A_TIME = (1, 50, 3, 200, 900)


def step(store: Store, turn: int) -> None:
    """What one callback does."""
    count = AT_A_TIME[turn % len(AT_A_TIME)]
    put_in(store, "in", count, 40 + 400 * (turn % 7))
    cursor = store.readers("in").get("r", Cursor())
    due = min(store.state("in").last - cursor.base, 1000)
    if due:
        assert cursor.base == store.state("out").made, "outputs and cursor do not agree"
        store.transaction.append("out", [batch("out", cursor.base + 1, due)], due, "lines")
        cursor = cursor.acknowledge(cursor.base + 1, due)
        store.transaction.put("notes", b"last", str(cursor.base).encode())
    store.transaction.cursor("in", "r", cursor)
    store.transaction.on_committed(lambda: tell(store))


def tell(store: Store) -> None:
    """Say what is committed."""
    os.write(1, b"%d %d\n" % (store.state("in").last, store.state("out").last))


async def main(folder: Path, *, sync: bool) -> None:
    """See the module."""
    store = opened(folder, "in", "out", sync=sync)
    turn = 0
    while True:
        for _ in range(4):
            step(store, turn)
            turn += 1
            await asyncio.sleep(0)
        await store.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sync=sys.argv[2] == "sync"))
