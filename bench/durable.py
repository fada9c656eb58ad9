"""What durability costs: `durable` channels against `memory` channels, and against what LMDB itself does."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from bench.measure import HERE, Run, Taken, bare, chain, folder, interleave, program, taken
from bench.ratios import CAT, Row, Size, checked, row
from runner.store import Cursor, Store

PROCESS = {"kind": "durable", "durability": "process"}
DISK = {"kind": "durable", "durability": "disk"}
MEMORY = {"kind": "memory"}
_RECORD_BYTES = 512 << 10
_READ_BYTES = 256 << 10
_HOP = HERE / "programs" / "lmdb_hop.py"
_KEPT = 6
"""Transactions whose records are there; the raw loop deletes older ones, as a channel does."""


def through(lines: int, width: int, channel: dict[str, Any], **of_middles: Any) -> Taken:
    """From the source through one `cat` to the sink, over two channels like this one."""
    with folder() as at:
        out = at / "taken"
        processors = chain(program("source", lines, width), CAT, program("sink", out), **of_middles)
        with Run(at, processors, {"c1": channel, "c2": channel}) as run:
            run.finish()
        return checked(taken(out), lines, width)


def against_memory(size: Size) -> list[Row]:
    """100-byte lines and 10 KiB lines in a chain."""
    small, large = size.small_lines // 2, size.large_lines // 2
    rows = []
    for name, lines, width, channel, contract, least in (
        ("process: 100-byte lines", small, 100, PROCESS, "stream", 0.5),
        ("process: 100-byte lines, one-to-one", small, 100, PROCESS, "one-to-one", 0.5),
        ("process: 10 KiB lines", large, 10_240, PROCESS, "stream", 0.0),
        ("disk: 100-byte lines", small // 4, 100, DISK, "stream", 0.0),
    ):

        def rate(channel: dict[str, Any], lines: int = lines, width: int = width, contract: str = contract) -> float:
            found = through(lines, width, channel, contract=contract)
            return found.bytes / found.seconds

        ratio = interleave(
            lambda rate=rate, channel=channel: rate(channel),  # type: ignore[misc]
            lambda rate=rate: rate(MEMORY),  # type: ignore[misc]
            size.rounds,
        )
        rows.append(row("durable", f"durable {name}, bytes/s", "`memory`", ratio, least, "MB/s", 1e6))
    return rows


@dataclass
class _Stored:
    """What the last run wrote: how many transactions, of how many bytes of messages."""

    commits: int = 0
    size_bytes: int = 0

    def __str__(self) -> str:
        return f"the last run: {self.commits:,} commits of {self.size_bytes / 1e6:,.0f} MB"


def against_lmdb(size: Size) -> list[Row]:
    """What a sync costs with a store around it, and with the whole runner around it."""
    stored, size_bytes = _Stored(), size.small_lines // 4 * 100
    alone = interleave(lambda: _store_alone(size_bytes, stored), lambda: _raw(stored), size.rounds)
    what = "durable disk: the store by itself, bytes/s"
    first = row("durable-lmdb", what, "LMDB alone, the same bytes and syncs", alone, 0.8, "MB/s", 1e6).more(str(stored))
    rows = [first]
    for channel, least, each_time, part in ((DISK, 0.8, "the same bytes and syncs", 1), (PROCESS, 0.0, "no syncs", 2)):
        stored, lines = _Stored(), size.small_lines // 4 * part
        hop = interleave(
            lambda channel=channel, lines=lines, stored=stored: _one_channel(lines, channel, stored),  # type: ignore[misc]
            lambda channel=channel, lines=lines, stored=stored: _hop(lines, channel, stored),  # type: ignore[misc]
            size.rounds,
        )
        what = f"durable {channel['durability']}: source to sink over one channel, 100-byte lines, bytes/s"
        peer = f"a program of LMDB alone between the two, {each_time}"
        rows.append(row("durable-lmdb", what, peer, hop, least, "MB/s", 1e6).more(str(stored)))
    return rows


def _store_alone(size_bytes: int, stored: _Stored) -> float:
    """Bytes a second of a store that is given as much as it takes, with a reader that has passed what is committed."""
    with folder() as at:
        seconds = asyncio.run(_fill(at / "state", size_bytes))
        stored.commits, stored.size_bytes = _commits(at / "state"), size_bytes
    return size_bytes / seconds


async def _fill(state: Path, size_bytes: int) -> float:
    store = Store.open(state, sync=True, capacity_bytes={"c": 8 << 20})
    data = b"x" * (_READ_BYTES - 1) + b"\n"
    committed = asyncio.Event()
    began = time.monotonic()
    for _ in range(size_bytes // (4 * _READ_BYTES)):
        for _ in range(4):
            store.transaction.append("c", [data], 1, "lines")
        while store.held_bytes("c") > 6 * 4 * _READ_BYTES:
            committed.clear()
            store.transaction.on_committed(committed.set)
            _pass(store)
            await committed.wait()
        await asyncio.sleep(0)
    await store.flush()
    seconds = time.monotonic() - began
    store.close()
    return seconds


def _pass(store: Store) -> None:
    """The reader is done with whatever is committed."""
    last = store.state("c").last
    if last > store.readers("c").get("r", Cursor()).base:
        store.transaction.cursor("c", "r", Cursor(base=last, acknowledged=last))


def _one_channel(lines: int, channel: dict[str, Any], stored: _Stored) -> float:
    with folder() as at:
        out = at / "taken"
        with Run(at, chain(program("source", lines, 100), program("sink", out)), {"c1": channel}) as run:
            run.finish()
        found = checked(taken(out), lines, 100)
        stored.commits, stored.size_bytes = _commits(at / ".connector" / "bench"), found.bytes
        return found.bytes / found.seconds


def _commits(state: Path) -> int:
    """How many transactions a store has seen."""
    with lmdb.open(str(state), readonly=True, max_dbs=32, lock=False) as environment:
        return int(environment.info()["last_txnid"])


def _hop(lines: int, channel: dict[str, Any], stored: _Stored) -> float:
    """The same two programs with one between them that does nothing but LMDB, as often."""
    with folder() as at:
        out, each = at / "taken", stored.size_bytes // stored.commits
        hop = [sys.executable, str(_HOP), str(at), str(each), channel["durability"]]
        bare([program("source", lines, 100), hop, program("sink", out)])
        found = checked(taken(out), lines, 100)
        return found.bytes / found.seconds


def _raw(stored: _Stored) -> float:
    """Bytes a second of a loop that puts, deletes what is old, and commits; a small value goes with each commit."""
    each = stored.size_bytes // stored.commits
    records = [_RECORD_BYTES] * (each // _RECORD_BYTES) + [each % _RECORD_BYTES or 1]
    data = os.urandom(_RECORD_BYTES)
    with (
        folder() as at,
        lmdb.open(str(at), map_size=1 << 30, max_dbs=2, sync=True) as environment,
    ):
        database, small = environment.open_db(b"records"), environment.open_db(b"small")
        began = time.monotonic()
        for commit in range(stored.commits):
            with environment.begin(write=True, db=database) as transaction:
                for index, length in enumerate(records):
                    transaction.put(_key(commit, index), data[:length], append=True)
                    if commit >= _KEPT:
                        transaction.delete(_key(commit - _KEPT, index))
                transaction.put(b"cursor", data[:50], db=small)
        return stored.commits * sum(records) / (time.monotonic() - began)


def _key(commit: int, index: int) -> bytes:
    return struct.pack(">IH", commit, index)


DURABLE: dict[str, Callable[[Size], list[Row]]] = {"durable": against_memory, "durable-lmdb": against_lmdb}
