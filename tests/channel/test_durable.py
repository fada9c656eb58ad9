"""A durable channel in what the contract suite does not see: who has left, what is full, what a crash leaves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from runner.bridge.feeder import StreamFeeder
from runner.bridge.inlet import Inlet
from runner.channel.durable import DurableChannel
from runner.channel.durable_reader import DurableReader
from runner.codec.registry import codec_named
from runner.errors import CodecError
from runner.spec.model import Channel as ChannelSpec
from runner.store import Store

LINES, PREFIXED = codec_named("lines"), codec_named("length-prefixed")
CAPACITY_BYTES = 1000


class Opened:
    """A store with one channel, and a stream reader and another reader of it."""

    def __init__(self, folder: Path, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.store = Store.open(folder, sync=False, capacity_bytes={"c": capacity_bytes})
        self.channel = DurableChannel(ChannelSpec("c", kind="durable", capacity_bytes=capacity_bytes), self.store)
        self.store.on_freed = lambda _channel: self.channel.room()
        self.stream = self.channel.open_reader("stream", LINES)
        self.stream.claims = True
        self.other = self.channel.open_reader("other", LINES)
        self.writer = self.channel.open_writer("w", LINES)

    async def publish(self, *payloads: bytes) -> None:
        self.writer.publish(LINES.batch_of(payloads))
        await self.store.flush()


async def taken(opened: Opened, reader: DurableReader, most: int | None = None) -> list[bytes]:
    batch = reader.take(most_messages=most)
    if batch is None and reader.claims:
        await opened.store.flush()
        batch = reader.take(most_messages=most)
    return [] if batch is None else [LINES.payload(each) for each in LINES.split(batch)]


def test_what_came_back_is_before_what_was_claimed_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        opened = Opened(tmp_path)
        await opened.publish(b"1", b"2")
        assert await taken(opened, opened.stream, 2) == [b"1", b"2"]
        await opened.publish(b"3", b"4")
        assert opened.stream.take() is None, "3 and 4 are being claimed"
        assert opened.stream.came_back(1, LINES.batch_of([b"1", b"2"]))
        assert [await taken(opened, opened.stream) for _ in range(2)] == [[b"1", b"2"], [b"3", b"4"]]
        opened.store.close()

    asyncio.run(run())


def test_more_is_claimed_at_once_while_it_is_waited_for(tmp_path: Path) -> None:
    async def run() -> None:
        opened = Opened(tmp_path, 64 << 20)
        for _ in range(40):
            await opened.publish(b"x" * 299_999)
        messages = []
        assert opened.stream.take() is None, "it is being claimed"
        for waits in (True, True, True, False, False, False):
            if waits:
                assert opened.stream.take() is None, "it is not committed"
            await opened.store.flush()
            batch = opened.stream.take()
            assert batch is not None
            messages.append(batch.count)
        assert messages == [2, 4, 7, 14, 7, 4], "twice as many bytes after each that was waited for, half else"
        opened.store.close()

    asyncio.run(run())


def test_a_reader_that_left_for_good_does_not_come_back_and_holds_up_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        opened = Opened(tmp_path)
        await opened.publish(b"1", b"2", b"3")
        assert await taken(opened, opened.stream, 3) == [b"1", b"2", b"3"]
        opened.stream.leave(for_good=True)
        opened.stream.passed(1, 3)  # of a replica that ends later
        opened.stream.was_read(3, handled=True)
        assert opened.stream.account.acknowledged == 3
        await opened.publish(b"4")
        assert [await taken(opened, opened.other) for _ in range(2)] == [[b"1", b"2", b"3"], [b"4"]]
        opened.other.acknowledge(1, 4)
        await opened.store.flush()
        assert opened.store.state("c").first == 5
        opened.store.close()
        again = Opened(tmp_path)
        assert (again.stream.left_before, again.other.left_before) == (True, False)
        assert again.stream.account.carried == 0
        again.store.close()

    asyncio.run(run())


def test_nothing_is_stored_for_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        opened = Opened(tmp_path)
        left: list[bool] = []
        opened.channel.on_readers_left(lambda: left.append(opened.writer.wanted))
        for reader in (opened.stream, opened.other):
            reader.leave(for_good=True)
        await opened.publish(b"x" * 2 * CAPACITY_BYTES)
        assert left == [False]
        assert (opened.store.state("c").last, opened.channel.written, opened.writer.full) == (0, 1, False)
        assert [reader.account.unread for reader in (opened.stream, opened.other)] == [1, 1]
        opened.store.close()

    asyncio.run(run())


def test_for_a_reader_that_comes_back_it_is_kept_while_there_is_room(tmp_path: Path) -> None:
    async def run() -> None:
        opened = Opened(tmp_path)
        wanted: list[bool] = []
        opened.channel.on_readers_left(lambda: wanted.append(opened.writer.wanted))
        for reader in (opened.stream, opened.other):
            reader.leave()
        await opened.publish(b"kept")
        assert wanted == [True]
        await opened.publish(b"x" * CAPACITY_BYTES)
        assert wanted == [True, False], "its writers are told that nobody takes any more"
        assert not opened.writer.full, "nobody is held up for ever"
        opened.store.close()
        again = Opened(tmp_path)
        assert again.other.account.carried == 2
        assert (await taken(again, again.other))[0] == b"kept"
        again.store.close()

    asyncio.run(run())


def test_a_refused_message_is_not_stored(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store.open(tmp_path, sync=False, capacity_bytes={"c": 1000})
        channel = DurableChannel(ChannelSpec("c", kind="durable", capacity_bytes=1000), store)
        reader = channel.open_reader("r", LINES)
        writer = channel.open_writer("w", PREFIXED)
        with pytest.raises(CodecError, match=r"^message 2 of channel `c` is refused") as caught:
            writer.publish(PREFIXED.batch_of([b"good", b"b\nad", b"after"]))
        await store.flush()
        assert (caught.value.index, channel.written, channel.refused, store.state("c").last) == (1, 1, 1, 1)
        batch = reader.take()
        assert batch is not None
        assert batch.joined() == b"good\n"
        store.close()

    asyncio.run(run())


def test_a_stream_program_that_read_everything_gives_room_back(tmp_path: Path) -> None:
    """Without an end of its input, and without a message after: a full channel would wait for ever."""

    async def run() -> None:
        opened = Opened(tmp_path)
        opened.other.leave(for_good=True)
        room = asyncio.Event()
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        feeder = StreamFeeder(write_end, Inlet("stdin", [opened.stream], replicas=1), on_progress=_nothing)
        feeder.begin()
        await opened.publish(*[b"x" * 99] * 10)
        assert opened.writer.full
        opened.writer.when_room(room.set)
        got = 0
        while got < 1000:
            got += len(await asyncio.to_thread(os.read, read_end, 1 << 16))
        async with asyncio.timeout(10):
            await room.wait()
        feeder.stop()
        os.close(read_end)
        os.close(write_end)
        opened.store.close()

    asyncio.run(run())


def _nothing() -> None:
    """Stand in for a callback."""
