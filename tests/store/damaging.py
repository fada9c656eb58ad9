"""A child that damages stores and opens them: `python -m tests.store.damaging cut|flip FOLDER SEED`.

It is a process of its own since what is tested is that it survives. Each finding is a line on stdout; the last line is
the account of what was seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

from runner.errors import RunnerError
from runner.store import Cursor, DamageError, Record, Store, check_store
from runner.store.folder import StateFolder
from runner.store.inspection import inspect, open_pages
from runner.store.pages import BRANCH, LEAF, META, OVERFLOW, PAGE_HEAD
from tests.store.stores import all_of, opened, put_in

PAGE_BYTES = 4096
PAGES_WITHOUT_ENTRIES = 0.15
"""How many of the pages that hold nothing but bytes are flipped."""
CHANNELS = ("a", "b", "tiny")
Messages = dict[tuple[str, int], bytes]


async def make(folder: Path, *, gone: bool) -> Messages:
    """A store with every kind of page; with `gone` some messages have been deleted again. What is in it."""
    store = opened(folder, *CHANNELS)
    for round_ in range(130 if gone else 12):
        put_in(store, "a", 3, 700)  # a few pages of its own for each record
        if round_ % 10 == 0:
            put_in(store, "b", 2, 20_000)
        put_in(store, "tiny", 1, 30)
        store.transaction.put("dead-letters", b"%d" % round_, b"x" * (round_ * 40))
        store.transaction.cursor("b", "r", store.readers("b").get("r", Cursor()))
        await store.flush()
        store._held["a"].small = None  # what is small stays by itself, so that there are many records
    if gone:
        for number in (9, 10, 11, 12):
            store.transaction.cursor("a", "r", Cursor(base=number * 10, acknowledged=number * 10))
            await store.flush()
    else:
        put_in(store, "b", 1, 9_000)  # the last pages of the file are those of this one
        await store.flush()
    there = {(name, number): line for name in CHANNELS for number, line in all_of(store, name).items()}
    store.close()
    return there


class Damaged:
    """What became of damaged stores."""

    def __init__(self, folder: Path, there: Messages) -> None:
        self.folder = folder
        self.there = there
        self.pristine = (folder / "data.mdb").read_bytes()
        self.marks = {name: (folder / name).read_bytes() for name in ("version", "lock")}
        self.seen: Counter[str] = Counter()

    def put(self, data: bytes) -> None:
        """Make this the file."""
        for name, content in self.marks.items():
            (self.folder / name).write_bytes(content)
        (self.folder / "data.mdb").write_bytes(data)

    async def look(self, what: str) -> None:
        """Open it and read it all; whatever is not there has to be named."""
        try:
            store = opened(self.folder, *CHANNELS)
        except DamageError as error:
            named = error.damages
            assert named
            self.seen["refused"] += 1
            self.check(what)
            return
        except RunnerError as error:
            self.seen["unusable"] += 1
            print(f"{what}: {error}")
            return
        lost = self.read(store, what)
        self.seen["lost a record" if lost else "whole"] += 1
        try:
            await self.go_on(store, lost=bool(lost))
        finally:
            store.close()

    def read(self, store: Store, what: str) -> set[tuple[str, int]]:
        """Every message by itself: right, or named by an error."""
        lost = set()
        for name, number in self.there:
            try:
                record = store.read(name, number, 0)
            except DamageError as error:
                assert covers(error, name, number), f"{what}: {name} {number} is not in {error}"
                lost.add((name, number))
                continue
            assert record is not None, f"{what}: {name} {number} is not there, and nobody says so"
            line = bytes(record.data).splitlines(keepends=True)[number - record.first]
            assert line == self.there[name, number], f"{what}: {name} {number} is {line[:30]!r}"
        for table in ("dead-letters",):
            try:
                entries = dict(store.items(table))
                assert entries == {b"%d" % n: b"x" * (n * 40) for n in range(len(entries))}, f"{what}: {table}"
            except DamageError:
                self.seen["lost an entry"] += 1
        return lost

    async def go_on(self, store: Store, *, lost: bool) -> None:
        """LMDB writes all over it."""
        for name in CHANNELS:
            last = store.state(name).last
            put_in(store, name, 2, 3000)
            if not lost:
                for reader in store.readers(name):
                    store.transaction.cursor(name, reader, Cursor(base=last, acknowledged=last))
        store.transaction.delete("dead-letters", b"3")
        await store.flush()
        for name in CHANNELS:
            assert store.read(name, store.state(name).last) is not None

    def check(self, what: str) -> None:
        """What `connector state check` finds: every message is whole, or named (or nothing can be said at all)."""
        whole: set[tuple[str, int]] = set()

        def take(channel: str, record: Record) -> None:
            for at, line in enumerate(bytes(record.data).splitlines(keepends=True)):
                key = (channel, record.first + at)
                assert self.there.get(key, line) == line, f"{what}: {key}"
                whole.add(key)

        try:
            damages = check_store(self.folder, each_record=take).damages
        except DamageError as error:
            damages = list(error.damages)
        assert damages, what
        missing = self.there.keys() - whole
        for name, number in missing:
            if any(covers(DamageError("", [damage]), name, number) for damage in damages):
                self.seen["messages named"] += 1
            else:
                unsure = any(damage.channel is None for damage in damages)
                assert unsure, f"{what}: {name} {number} is missing, and {[str(damage) for damage in damages]}"
                self.seen["messages of which nothing can be said"] += 1


def covers(error: DamageError, channel: str, number: int) -> bool:
    """Whether the error names that message."""
    return any(
        damage.channel == channel
        and (damage.first is None or damage.first <= number)
        and (damage.last is None or number <= damage.last)
        for damage in error.damages
    )


async def cut(damaged: Damaged, chance: random.Random) -> None:
    """Cut it at every byte of the last two pages, and at samples before."""
    whole = len(damaged.pristine)
    lengths = [*range(whole - 1, whole - 2 * PAGE_BYTES - 1, -1)]
    lengths += sorted((chance.randrange(whole) for _ in range(60)), reverse=True)
    damaged.put(damaged.pristine)
    for length in lengths:
        os.truncate(damaged.folder / "data.mdb", length)
        folder = StateFolder(damaged.folder, None, -1)  # not held: this is about its pages
        pages = open_pages(folder, PAGE_BYTES)
        damages = inspect(folder, pages).damages
        pages.close()
        assert damages, f"nobody noticed a file of {length} instead of {whole} bytes"
        damaged.seen["noticed"] += 1
        if length % PAGE_BYTES in {0, 1, 16, PAGE_BYTES - 1} or length < whole - 2 * PAGE_BYTES:
            await damaged.look(f"cut to {length}")
            assert (damaged.folder / "data.mdb").stat().st_size == length, "never padded"


async def flip(damaged: Damaged, chance: random.Random) -> None:
    """Flip a bit in the head, in the pointers and in the entries of every page."""
    names = {META: "meta", BRANCH: "branch", LEAF: "leaf", OVERFLOW: "overflow"}
    for page in range(len(damaged.pristine) // PAGE_BYTES):
        own, _, flags, _, upper = PAGE_HEAD.unpack_from(damaged.pristine, page * PAGE_BYTES)
        kind = names.get(flags, "?") if own == page else "inside"
        if kind in {"overflow", "inside"} and chance.random() > PAGES_WITHOUT_ENTRIES:
            continue
        begin = upper if kind in {"branch", "leaf"} and upper < PAGE_BYTES else 16
        places = [chance.randrange(16) for _ in range(2)]
        places += [chance.randrange(begin, PAGE_BYTES) for _ in range(1 if kind == "inside" else 4)]
        if kind == "meta":
            places = [*range(16), *(chance.randrange(16, 152) for _ in range(40))]
        if kind == "branch":
            places += [chance.randrange(begin, PAGE_BYTES) for _ in range(30)]
        for place in places:
            bit = 1 << chance.randrange(8)
            data = bytearray(damaged.pristine)
            data[page * PAGE_BYTES + place] ^= bit
            damaged.put(bytes(data))
            damaged.seen[f"flips: {kind}"] += 1
            what = f"page {page} ({kind}), byte {place}, bit {bit:#x}"
            try:
                await damaged.look(what)
            except Exception as error:
                raise AssertionError(what) from error


async def main(what: str, folder: Path, seed: int) -> None:
    """See the module."""
    there = await make(folder, gone=what == "flip")
    damaged = Damaged(folder, there)
    await (cut if what == "cut" else flip)(damaged, random.Random(seed))
    damaged.put(damaged.pristine)
    await damaged.look("pristine")
    assert damaged.seen["whole"] > 0
    print(json.dumps(damaged.seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
