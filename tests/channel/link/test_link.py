"""A link loses and doubles nothing whatever becomes of its connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.channel.link.pair import End, open_store
from tests.channel.link.wire import Half, Wire
from tests.waiting import until


def numbers(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


async def through(wire: Wire, *, count: int, writer_listens: bool = False, capacity: int = 1 << 20) -> tuple[End, End]:
    right = End("reader", wire, listens=not writer_listens, capacity=capacity)
    left = End("writer", wire, listens=writer_listens, capacity=capacity)

    async def write() -> None:
        await left.write(1, count)
        assert left.writer is not None
        left.writer.end(for_good=True)

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        group.create_task(write())
        reading = group.create_task(right.read())
        group.create_task(left.over())
        group.create_task(right.over())
    assert reading.result() == numbers(1, count)
    assert not left.told.failed
    assert not right.told.failed
    return left, right


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("writer_listens", [False, True])
def test_all_arrives_in_order_and_both_end(writer_listens: bool, direct: bool) -> None:
    left, right = asyncio.run(through(Wire(direct=direct), count=5000, writer_listens=writer_listens))
    (reader,) = left.channel.readers
    assert (left.channel.written, reader.account.acknowledged, right.channel.written) == (5000, 5000, 5000)
    assert reader.held == 0


def seeded(seed: int, kinds: tuple[str, ...], one_in: int) -> Callable[[int], str]:
    chance = random.Random(seed)
    return lambda _number: chance.choice(kinds) if chance.randrange(one_in) == 0 else ""


@pytest.mark.parametrize("kind", ["cut", "lose", "corrupt", "hang"])
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("writer_listens", [False, True])
def test_faults_lose_and_double_nothing(kind: str, writer_listens: bool, direct: bool) -> None:
    wire = Wire(seeded(7, (kind,), 6 if kind != "hang" else 12), direct=direct)
    left, right = asyncio.run(through(wire, count=6000, writer_listens=writer_listens, capacity=4096))
    assert wire.faults > 3
    assert right.channel.written == 6000 == left.channel.readers[0].account.acknowledged
    if kind == "corrupt":
        assert any("corrupt" in text for text in left.told.warned + right.told.warned)


@pytest.mark.parametrize("comes", [True, False])
def test_a_frame_that_comes_slowly_is_not_silence(comes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act() -> None:
        beats = 0

        def progress(_half: Half) -> int:
            nonlocal beats
            beats += 1
            return beats if comes else 0

        monkeypatch.setattr(Half, "progress", progress)
        wire = Wire(lambda number: "hang" if number > 4 else "")
        right = End("reader", wire, listens=True)
        left = End("writer", wire, listens=False)
        await left.write(1, 100)
        await until(lambda: wire.faults > 0)
        first, until_beat = wire.connections[0], beats + 20  # each side looks every 0.05 s, and 0.2 s are silence
        await until(lambda: beats > until_beat or first.why is not None)
        assert (first.why is None) == comes
        await asyncio.gather(left.kill(), right.kill())

    asyncio.run(act())


@pytest.mark.parametrize("direct", [False, True])
def test_frames_that_come_together_are_answered_together(direct: bool) -> None:
    sent: dict[int, int] = {}

    class Counting(Wire):
        def pass_on(self, half: Half, frame: bytes) -> bytes | None:
            sent[frame[4]] = sent.get(frame[4], 0) + 1
            return super().pass_on(half, frame)

    asyncio.run(through(Counting(direct=direct), count=20_000))
    assert sent[ord("D")] > 100
    assert sent[ord("A")] <= sent[ord("D")] // 2 + 4  # half the window, or 5 ms; the end, and the bye


def data_frames(wire: Wire) -> list[int]:
    """How many bytes each frame with messages has; filled as they are sent."""
    sizes: list[int] = []
    passing = wire.pass_on

    def pass_on(half: Half, frame: bytes) -> bytes | None:
        if frame[4] == ord("D"):
            sizes.append(len(frame))
        return passing(half, frame)

    wire.pass_on = pass_on  # type: ignore[method-assign]
    return sizes


def test_what_is_worth_a_frame_is_sent_while_it_is_written_and_less_soon_after() -> None:
    async def act() -> None:
        wire = Wire(direct=True)
        sizes = data_frames(wire)
        right = End("reader", wire, listens=True, capacity=8 << 20)
        left = End("writer", wire, listens=False, capacity=8 << 20)
        await left.write(1, 1)
        assert await right.read(1) == [b"1"]  # little is sent by itself
        del sizes[:]
        assert left.writer is not None
        piece = left.codec.batch_of([b"x" * 1023] * 256)
        left.writer.publish(piece)
        assert sizes == []
        left.writer.publish(piece)
        assert sizes == [2 * piece.size_bytes + 17]
        left.writer.publish(piece)
        right.got = []
        await right.read(3 * 256)
        assert sizes == [2 * piece.size_bytes + 17, piece.size_bytes + 17]
        for end in (left, right):
            await end.kill()

    asyncio.run(act())


@pytest.mark.parametrize("direct", [False, True])
def test_a_message_that_is_too_long_fails_the_channel_and_not_who_writes(direct: bool) -> None:
    async def act() -> None:
        wire = Wire(direct=direct)
        right = End("reader", wire, listens=True, capacity=8 << 20, max_message=1000)
        left = End("writer", wire, listens=False, capacity=8 << 20, max_message=1000)
        await left.write(1, 1)
        await right.read(1)
        assert left.writer is not None
        left.writer.publish(left.codec.batch_of([bytes(2 << 20)]))
        await until(lambda: bool(left.told.failed))
        assert "message 2 has 2,097,153 bytes, and it carries 1,000" in left.told.failed[0]
        await asyncio.gather(left.kill(), right.kill())

    asyncio.run(act())


async def durable_through(folder: Path, seed: int, kills: int) -> list[bytes]:
    """A writing and a reading runner, both with a store, each killed and started again at random; what arrived."""
    chance = random.Random(seed)
    wire = Wire(seeded(seed, ("cut", "lose"), 40))
    stores = {side: open_store(folder / side) for side in ("writer", "reader")}
    ends = {side: End(side, wire, listens=side == "reader", store=stores[side]) for side in stores}
    got: list[bytes] = []
    count, written = 3000, 0

    async def again(side: str) -> None:
        await ends[side].kill()
        await stores[side].flush()  # what a kill would leave of this is tested with real processes
        ends[side].channel.close()
        stores[side].close()
        stores[side] = open_store(folder / side)
        ends[side] = End(side, wire, listens=side == "reader", store=stores[side])

    while written < count:
        step = chance.randrange(1, 2 * count // kills)
        step = min(step, count - written)
        left = ends["writer"]
        async with asyncio.timeout(20):
            reading = asyncio.create_task(read_some(ends["reader"], got))
            await left.write(written + 1, step)
            written += step
            side = chance.choice(("writer", "reader"))
            if side == "reader":
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            await again(side)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    left, right = ends["writer"], ends["reader"]
    assert left.writer is not None
    left.writer.end(for_good=True)
    right.got = []
    async with asyncio.timeout(20):
        got += await right.read()
        await asyncio.gather(left.over(), right.over())
    assert not left.told.failed + right.told.failed
    for store in stores.values():
        await store.flush()
        store.close()
    return got


async def read_some(end: End, got: list[bytes]) -> None:
    """What comes, until cancelled, each acknowledged as it is kept."""
    reader = end.reader
    assert reader is not None
    while True:
        batch = reader.take()
        if batch is None:
            end._data.clear()
            await end._data.wait()
            continue
        got += end.codec.payloads(batch)
        reader.acknowledge(reader.number, batch.count)


@pytest.mark.parametrize("seed", range(6))
def test_stores_on_both_sides_keep_it_over_restarts(tmp_path: Path, seed: int) -> None:
    got = asyncio.run(durable_through(tmp_path, seed, kills=12))
    assert got == numbers(1, 3000)


def test_who_knows_that_all_has_arrived_waits_for_nobody(tmp_path: Path) -> None:
    """The reading runner has ended and gone; the writing one died before its own run was over."""

    async def scenario() -> None:
        wire = Wire()
        store = open_store(tmp_path)
        right = End("reader", wire, listens=True)
        left = End("writer", wire, listens=False, store=store)
        await left.write(1, 100)
        assert left.writer is not None
        left.writer.end(for_good=True)
        async with asyncio.timeout(20):
            assert await right.read() == numbers(1, 100)
            await right.over()
            await left.over()
        left.channel.close()
        store.close()
        store = open_store(tmp_path)
        again = End("writer", wire, listens=False, store=store)
        assert again.writer is not None
        assert not again.peer.finished.is_set()
        again.writer.end(for_good=True)
        async with asyncio.timeout(5):
            await again.over()
        assert not again.told.warned
        assert again.channel.readers[0].account.unread == 0
        again.channel.close()
        store.close()

    asyncio.run(scenario())


def test_a_reader_that_lost_what_it_had_says_so() -> None:
    async def act() -> None:
        wire = Wire()
        right = End("reader", wire, listens=True)
        left = End("writer", wire, listens=False)
        await left.write(1, 100)
        await right.read(100)
        await until(lambda: left.peer.acknowledged == 100)  # type: ignore[union-attr]
        await right.kill()
        fresh = End("reader", wire, listens=True)
        await left.write(101, 50)
        assert left.writer is not None
        left.writer.end(for_good=True)
        assert await fresh.read() == numbers(101, 50)
        await asyncio.gather(left.over(), fresh.over())
        (reader,) = fresh.channel.readers
        assert (fresh.channel.written, reader.account.indeterminate, reader.account.acknowledged) == (150, 100, 50)
        assert any("100 messages" in text and "indeterminate" in text for text in fresh.told.warned)

    asyncio.run(act())


def test_a_writer_that_is_behind_its_reader_is_refused(tmp_path: Path) -> None:
    async def act() -> None:
        wire = Wire()
        store = open_store(tmp_path / "left")
        left = End("writer", wire, listens=False, store=store)
        right = End("reader", wire, listens=True)
        await left.write(1, 10)
        await right.read(10)
        await until(lambda: left.peer.acknowledged == 10)  # type: ignore[union-attr]
        epoch = left.peer.epoch  # type: ignore[union-attr]
        await left.kill()
        again = End("writer", wire, listens=False)
        again.peer.epoch = epoch  # type: ignore[union-attr]
        await until(lambda: bool(again.told.failed))
        assert "older than what it has sent" in again.told.failed[0]
        await right.kill()
        store.close()

    asyncio.run(act())


def test_readers_that_left_let_the_writer_go() -> None:
    async def act() -> None:
        wire = Wire()
        right = End("reader", wire, listens=True)
        left = End("writer", wire, listens=False)
        await left.write(1, 30)
        await right.read(10)
        assert right.reader is not None
        right.reader.leave()
        await asyncio.gather(left.over(), right.over())
        (far,) = left.channel.readers
        assert far.left
        account = far.account
        assert account.acknowledged + account.unread == 30
        assert left.writer is not None
        assert not left.writer.wanted

    asyncio.run(act())


def test_a_newer_connection_of_the_same_runner_takes_over() -> None:
    async def act() -> None:
        wire = Wire()
        right = End("reader", wire, listens=True)
        first = End("writer", wire, listens=False)
        await first.write(1, 5)
        await right.read(5)
        wire.refuses = True  # the first one does not come back
        second_wire = Wire()
        second_wire._accept = wire._accept
        second = End("writer", second_wire, listens=False)
        await second.write(1, 5)
        right.got = []
        assert await right.read(5) == numbers(1, 5)
        assert first.peer.connection is None
        for end in (first, second, right):
            await end.kill()

    asyncio.run(act())


@pytest.mark.parametrize(("far", "name"), [("right", "stranger"), ("", "whoever")])
def test_who_may_come(far: str, name: str) -> None:
    async def act() -> None:
        wire = Wire()
        right = End("reader", wire, listens=True, far="left" if far else "")
        left = End("writer", wire, listens=False, name=name)
        if far:
            await until(lambda: bool(left.told.failed))
            assert "has no end of channel" in left.told.failed[0]
        else:
            await left.write(1, 3)
            assert await right.read(3) == numbers(1, 3)
        for end in (left, right):
            await end.kill()

    asyncio.run(act())


def test_ends_that_do_not_fit_say_why() -> None:
    async def act() -> None:
        wire = Wire()
        right = End("reader", wire, listens=True)
        left = End("writer", wire, listens=False, codec="length-prefixed")
        await until(lambda: bool(left.told.failed))
        assert 'as "length-prefixed"' in left.told.failed[0] or 'as "lines"' in left.told.failed[0]
        await right.kill()

    asyncio.run(act())


def test_a_slow_reader_bounds_what_is_on_its_way() -> None:
    async def act() -> None:
        wire = Wire()
        right = End("reader", wire, listens=True, capacity=10_000)
        left = End("writer", wire, listens=False, capacity=10_000)
        assert left.writer is not None
        writing = asyncio.create_task(left.write(1, 100_000, width=99))
        await until(lambda: left.writer is not None and left.writer.full and right.channel.written > 0)
        for _ in range(200):
            await asyncio.sleep(0)
        most = 10_000 + 1000  # the capacity, and one batch of the writer
        assert left.channel.written * 100 <= 2 * most + 10_000 + (256 << 10)
        assert left.writer.blocked_by
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        for end in (left, right):
            await end.kill()

    asyncio.run(act())


def test_a_stop_sends_what_is_there_and_waits_for_nobody_else() -> None:
    async def act() -> None:
        wire = Wire()
        right = End("reader", wire, listens=True)
        left = End("writer", wire, listens=False)
        await left.write(1, 500)
        left.channel.stop()
        assert left.writer is not None
        left.writer.end()
        await left.over()
        assert left.channel.readers[0].account.acknowledged == 500
        assert await right.read(500) == numbers(1, 500)
        assert not right.living.done(), "a writer that was stopped may come back"
        right.channel.stop()
        await right.over()
        alone = End("writer", wire, listens=False)
        await alone.write(1, 7)
        alone.channel.stop()
        assert alone.writer is not None
        alone.writer.end()
        await alone.over()
        assert alone.channel.readers[0].account.unread == 7

    asyncio.run(act())


def test_who_is_missing_is_told_once_and_when_it_comes() -> None:
    async def act() -> None:
        wire = Wire()
        left = End("writer", wire, listens=False, capacity=100)
        writing = asyncio.create_task(left.write(1, 200))
        await until(lambda: bool(left.told.warned))
        assert "runner `right` is not there: connection refused" in left.told.warned[0]
        assert left.writer is not None
        await until(lambda: left.writer is not None and left.writer.full)
        assert "is not there" in (left.writer.trouble or "")
        right = End("reader", wire, listens=True)
        await right.read(200)
        await writing
        await until(lambda: any("is there" in text for text in left.told.warned))
        for end in (left, right):
            await end.kill()

    asyncio.run(act())


def test_a_link_that_can_never_go_on_is_told_seldom() -> None:
    """Each connection comes to another end at once."""

    async def act() -> None:
        wire = Wire(lambda frame: ("corrupt", "lose", "corrupt", "cut")[frame % 4])
        left, right = End("writer", wire, listens=False), End("reader", wire, listens=True)
        await until(lambda: wire.faults > 200)
        for end in (left, right):
            assert 0 < len(end.told.warned) < 20, end.told.warned
            await end.kill()

    asyncio.run(act())
