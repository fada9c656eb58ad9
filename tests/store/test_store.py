"""The store by itself: what is committed together, numbers, cursors, deletion, and who may have it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.errors import BugError, MachineError
from runner.store import Cursor, DamageError, Store, check_store
from runner.store.transaction import LARGE_BYTES
from runner.store.writer import MOST_FREED
from tests.store.stores import all_of, message, opened, put_in, right


async def test_numbers_are_gapless_and_last_over_runs(tmp_path: Path) -> None:
    with_first = opened(tmp_path, "a", "b", sync=True)
    assert put_in(with_first, "a", 3) == 1
    assert put_in(with_first, "a", 2) == 4
    assert put_in(with_first, "b", 1) == 1
    assert with_first.read("a", 1) is None, "readers see committed messages only"
    await with_first.flush()
    epoch = with_first.state("a").epoch
    with_first.close()
    store = opened(tmp_path, "a", "b", sync=True)
    assert store.state("a").epoch == epoch
    assert put_in(store, "a", 1) == 6
    await store.flush()
    found = all_of(store, "a")
    right(found, "a")
    assert list(found) == [1, 2, 3, 4, 5, 6]
    assert list(all_of(store, "b")) == [1]
    store.close()


async def test_one_callback_is_one_transaction(tmp_path: Path) -> None:
    store = opened(tmp_path, "in", "out")
    put_in(store, "in", 10)
    await store.flush()
    seen: list[tuple[int, bytes | None, int]] = []

    def look() -> None:
        seen.append((store.state("out").last, store.get("states", b"k"), store.state("in").first))

    put_in(store, "out", 4)
    store.transaction.cursor("in", "r", Cursor().acknowledge(1, 4))
    store.transaction.put("states", b"k", b"v")
    store.transaction.on_committed(look)
    look()
    await store.flush()
    assert seen == [(0, None, 1), (4, b"v", 1)]
    store.close()


async def test_while_one_is_committed_the_next_one_fills(tmp_path: Path) -> None:
    store = opened(tmp_path, "a", sync=True)
    commits: list[int] = []
    for _ in range(200):
        put_in(store, "a", 1)
        store.transaction.on_committed(lambda: commits.append(store.state("a").last))
        await asyncio.sleep(0)
    await store.flush()
    assert len(commits) == 200
    assert commits == sorted(commits)
    assert len(set(commits)) < 200, "each was committed by itself"
    assert commits[-1] == 200
    store.close()


async def test_a_large_one_waits_where_the_writer_finds_it(tmp_path: Path) -> None:
    store = opened(tmp_path, "a", sync=True)
    commits: list[int] = []
    with store._environment.begin(write=True):  # the writer waits for this
        for _ in range(4):
            put_in(store, "a", 20, LARGE_BYTES // 19)
            store.transaction.on_committed(lambda: commits.append(store.state("a").last))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert len(store._committing) == 2, "one is being committed, one waits"
        assert not store.transaction.empty, "the rest is together"
        put_in(store, "a", 1)
    await store.flush()
    assert commits == [20, 40, 81, 81]
    right(found := all_of(store, "a"), "a")
    assert list(found) == list(range(1, 82))
    store.close()


async def test_small_records_are_put_together(tmp_path: Path) -> None:
    store = opened(tmp_path, "a", tail_bytes=0)
    for _ in range(300):
        put_in(store, "a", 1, 100)
        await store.flush()
    store.close()
    records: list[int] = []
    seen = check_store(tmp_path, each_record=lambda _, record: records.append(record.count))
    assert not seen.damages
    assert sum(records) == 300
    assert len(records) < 5
    store = opened(tmp_path, "a")
    right(all_of(store, "a"), "a")
    store.close()


async def test_the_tail_and_the_disk_say_the_same(tmp_path: Path) -> None:
    from_memory, from_disk = opened(tmp_path / "1", "a"), opened(tmp_path / "2", "a", tail_bytes=0)
    for store in (from_memory, from_disk):
        for round_ in range(20):
            put_in(store, "a", 1 + round_ * 7 % 5, 1 + round_ * 6000)
            await store.flush()
    assert all_of(from_memory, "a") == all_of(from_disk, "a")
    one = from_disk.read("a", 1, 0)
    more = from_disk.read("a", 1, 1 << 20)
    assert one is not None
    assert more is not None
    assert len(one.data) < len(more.data) <= 1 << 20
    from_memory.close()
    from_disk.close()


async def test_what_does_not_join_stays_by_itself(tmp_path: Path) -> None:
    store = opened(tmp_path, "a", tail_bytes=0)
    for part in (b"one", b"two"):
        store.transaction.append("a", [part], 1, "raw", joins=False)
    await store.flush()
    store.transaction.append("a", [b"three"], 1, "raw", joins=False)
    await store.flush()
    store.close()
    store = opened(tmp_path, "a")
    read = [store.read("a", number) for number in (1, 2, 3)]
    assert [(record.first, bytes(record.data), record.codec) for record in read if record] == [
        (1, b"one", "raw"),
        (2, b"two", "raw"),
        (3, b"three", "raw"),
    ]
    store.close()


async def test_messages_go_when_all_readers_have_passed(tmp_path: Path) -> None:
    store = opened(tmp_path, "a")
    freed: list[str] = []
    store.on_freed = freed.append
    for reader in ("one", "two"):
        store.transaction.cursor("a", reader, Cursor())
    for _ in range(4):
        put_in(store, "a", 10, 1000)
        await store.flush()
    held = store.state("a").held_bytes
    store.transaction.cursor("a", "one", Cursor().acknowledge(1, 40))
    await store.flush()
    assert store.state("a").first == 1
    assert not freed
    store.transaction.cursor("a", "two", Cursor().acknowledge(1, 39))
    await store.flush()
    assert freed == ["a"]
    assert 1 < store.state("a").first <= 40
    store.transaction.forget_reader("a", "two")
    await store.flush()
    state = store.state("a")
    assert (state.first, state.last, state.held_bytes) == (41, 40, 0)
    assert held == 40 * 1000
    with pytest.raises(BugError):
        store.read("a", 40)
    store.close()
    store = opened(tmp_path, "a")
    assert put_in(store, "a", 1) == 41, "numbers go on when all are gone"
    assert dict(store.readers("a")) == {"one": Cursor(base=40, acknowledged=40)}
    await store.flush()
    store.close()


async def test_many_records_go_in_steps_and_their_pages_are_used_again(tmp_path: Path) -> None:
    store = opened(tmp_path, "a")
    count = 3 * MOST_FREED
    for round_ in range(3):
        for _ in range(count):
            put_in(store, "a", 1, 20_000)
            await store.flush()
        gone = asyncio.Event()

        def freed(_channel: str, gone: asyncio.Event = gone) -> None:
            if store.state("a").held_bytes == 0:
                gone.set()

        store.on_freed = freed
        passed = count * (round_ + 1)
        store.transaction.cursor("a", "r", Cursor(base=passed, acknowledged=passed))
        await gone.wait()
    assert (tmp_path / "data.mdb").stat().st_size < 2.2 * count * 20_000
    store.close()


async def test_tables(tmp_path: Path) -> None:
    store = opened(tmp_path)
    values = {b"a/1": b"x", b"a/2": b"y" * 100_000, b"b/1": b""}
    for key, value in values.items():
        store.transaction.put("dead-letters", key, value)
    await store.flush()
    store.close()
    store = opened(tmp_path)
    assert dict(store.items("dead-letters")) == values
    assert [key for key, _ in store.items("dead-letters", b"a/")] == [b"a/1", b"a/2"]
    store.transaction.delete("dead-letters", b"a/1")
    store.transaction.put("dead-letters", b"a/2", b"z")
    await store.flush()
    assert store.get("dead-letters", b"a/1") is None
    assert store.get("dead-letters", b"a/2") == b"z"
    with pytest.raises(BugError):
        store.transaction.put("no-such-table", b"k", b"v")
    store.close()


async def test_reset(tmp_path: Path) -> None:
    store = opened(tmp_path, "a", "b")
    put_in(store, "a", 5, 10_000)
    put_in(store, "b", 5)
    store.transaction.put("runs", b"k", b"v")
    await store.flush()
    epoch = store.state("a").epoch
    store.reset("a")
    assert store.state("a").epoch != epoch
    assert (store.state("a").last, store.state("b").last, store.get("runs", b"k")) == (0, 5, b"v")
    assert put_in(store, "a", 1) == 1
    await store.flush()
    store.reset(None)
    assert (store.state("a").last, store.state("b").last, store.get("runs", b"k")) == (0, 0, None)
    store.close()
    store = opened(tmp_path, "c")
    assert store.channels() == ("a", "b", "c")
    assert not store.readers("a")
    store.close()


async def test_the_map_grows(tmp_path: Path) -> None:
    store = Store.open(tmp_path, sync=False, capacity_bytes={"a": 1})
    before = store._environment.info()["map_size"]
    store._environment.set_mapsize(1 << 20)
    for _ in range(20):
        put_in(store, "a", 1, 200_000)
    await store.flush()
    assert store.stuck is None
    assert before > store._environment.info()["map_size"] > 4_000_000
    store.close()
    store = opened(tmp_path)
    assert len(all_of(store, "a")) == 20
    store.close()


HOLD = """
import sys
from pathlib import Path
from runner.store import Store
store = Store.open(Path(sys.argv[1]), sync=False, capacity_bytes={})
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_one_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(MachineError, match=f"process {first.pid}"):
            opened(tmp_path)
        with pytest.raises(MachineError, match=f"process {first.pid}"):
            check_store(tmp_path)
        first.kill()
    opened(tmp_path).close()
    assert (tmp_path / "lock").read_bytes() == b""


def test_only_its_owner_gets_in(tmp_path: Path) -> None:
    opened(tmp_path / "state" / "x").close()
    assert (tmp_path / "state" / "x").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "state" / "x").glob("*.mdb")} == {0}


async def test_another_format_or_none(tmp_path: Path) -> None:
    store = opened(tmp_path, "a")
    put_in(store, "a", 1)
    await store.flush()
    store.close()
    mark = (tmp_path / "version").read_bytes()
    (tmp_path / "version").write_text(json.dumps({"format": 2, "page_bytes": 4096}))
    with pytest.raises(MachineError, match="format 2"):
        opened(tmp_path)
    (tmp_path / "version").write_text("?")
    with pytest.raises(DamageError, match="version mark"):
        opened(tmp_path)
    (tmp_path / "version").unlink()
    with pytest.raises(MachineError, match="no version mark"):
        opened(tmp_path)
    (tmp_path / "version").write_bytes(mark)
    opened(tmp_path).close()
    (tmp_path / "data.mdb").unlink()
    with pytest.raises(DamageError, match="all messages"):
        opened(tmp_path)


def test_a_making_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    opened(tmp_path, "a").close()
    (tmp_path / "version").unlink()
    opened(tmp_path, "a").close()
    assert (tmp_path / "version").exists()


def test_after_a_loss_of_power_without_syncs_it_says_so(tmp_path: Path) -> None:
    store = opened(tmp_path, "a")
    held = json.loads((tmp_path / "lock").read_text())
    assert held["pid"] == os.getpid()
    store.close()
    (tmp_path / "lock").write_text(json.dumps(held | {"boot": "another"}))
    assert check_store(tmp_path).damages == []
    store = opened(tmp_path, "a")
    assert store.doubt is not None
    assert "went down" in store.doubt
    store.close()
    store = opened(tmp_path, "a")
    assert store.doubt is None
    store.close()


async def test_a_record_that_is_not_what_was_stored_is_named(tmp_path: Path) -> None:
    store = opened(tmp_path, "a")
    for _ in range(3):
        put_in(store, "a", 10, 5000)
        await store.flush()
    store.close()
    data = (tmp_path / "data.mdb").read_bytes()
    at = data.index(message("a", 15, 5000))
    (tmp_path / "data.mdb").write_bytes(data[: at + 100] + b"!" + data[at + 101 :])
    store = opened(tmp_path, "a")
    assert store.read("a", 1) is not None
    assert store.read("a", 21) is not None
    with pytest.raises(DamageError, match="messages 11 to 20 of channel `a`"):
        store.read("a", 15)
    store.close()
    assert [str(damage) for damage in check_store(tmp_path).damages] == [
        "messages 11 to 20 of channel `a`: the record is damaged"
    ]
