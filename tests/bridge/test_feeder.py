"""What a dead program leaves in its pipe, to the byte and to the message, under both contracts."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.bridge.answers import OneToOneFeeder
from runner.bridge.feeder import Feeder, InputLeft, StreamFeeder
from runner.bridge.inlet import Inlet
from runner.channel.base import Writer
from runner.channel.memory import MemoryChannel
from runner.codec.base import Batch
from runner.codec.registry import codec_named
from runner.errors import ContractError
from runner.spec.model import Channel

PIPE_BYTES = 4096
unhurried = settings(deadline=None, max_examples=60)
sizes = st.lists(st.integers(0, 900), min_size=1, max_size=12)


class Bench:
    """A channel, its inlet, and a pipe whose reading end the test plays the program at."""

    def __init__(self, codec: str = "lines") -> None:
        self.codec = codec_named(codec)
        self.channel = MemoryChannel(Channel("c"))
        self.reader = self.channel.open_reader("p", self.codec)
        self.writer: Writer = self.channel.open_writer("w", self.codec)
        self.inlet = Inlet("stdin", self.channel.readers, replicas=1)
        self.published: list[Batch] = []
        self.progress = 0
        self.read_end = -1

    def _pipe(self) -> int:
        self.read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        os.set_blocking(self.read_end, False)
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return write_end

    def _moved(self) -> None:
        self.progress += 1

    def stream(self) -> StreamFeeder:
        return StreamFeeder(self._pipe(), self.inlet, on_progress=self._moved)

    def one_to_one(self, window_bytes: int = 1 << 20) -> OneToOneFeeder:
        return OneToOneFeeder(
            self._pipe(),
            self.inlet,
            on_progress=self._moved,
            window_bytes=window_bytes,
            most_window_bytes=window_bytes,
            window_messages=None,
            sequencer=None,
        )

    def publish(self, *payloads: bytes) -> None:
        self.writer.publish(self.codec.batch_of(payloads))

    def answer(self, feeder: OneToOneFeeder, *payloads: bytes) -> None:
        feeder.answer(self.codec.batch_of(payloads), self.codec, self.published.append)

    async def read(self, most_bytes: int) -> bytes:
        """Read exactly so much, or all that comes."""
        data = b""
        rounds_left = 5  # of the loop, in which the feeder may find that there is room again
        while len(data) < most_bytes and rounds_left:
            try:
                more = os.read(self.read_end, most_bytes - len(data))
            except BlockingIOError:
                rounds_left -= 1
                await asyncio.sleep(0)
                continue
            if not more:
                break
            data += more
            rounds_left = 5
        return data

    async def die(self, feeder: Feeder) -> InputLeft:
        feeder.stop()
        os.close(self.read_end)
        await feeder.count_unread()
        return feeder.settle()

    def left(self) -> list[bytes]:
        found: list[bytes] = []
        while (piece := self.inlet.take()) is not None:
            found += [self.codec.payload(framed) for framed in self.codec.split(piece.batch)]
        return found


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


def payloads_of(numbers: list[int]) -> list[bytes]:
    return [bytes([65 + index % 26]) * size for index, size in enumerate(numbers)]


@pytest.mark.parametrize("codec", ["lines", "length-prefixed"])
@given(numbers=sizes, data=st.data(), single=st.booleans())
@unhurried
def test_stream_counts_what_was_read_and_gives_back_the_rest_whole(
    codec: str, numbers: list[int], data: st.DataObject, single: bool
) -> None:
    payloads = payloads_of(numbers)
    framed = [codec_named(codec).encode(payload) for payload in payloads]
    offset = data.draw(st.integers(0, sum(map(len, framed))))

    async def test() -> None:
        bench = Bench(codec)
        feeder = bench.stream()
        feeder.begin()
        for batch in [[payload] for payload in payloads] if single else [payloads]:
            bench.publish(*batch)
        assert await bench.read(offset) == b"".join(framed)[:offset]
        left = await bench.die(feeder)
        whole = next((n for n in range(len(framed), -1, -1) if sum(map(len, framed[:n])) <= offset), 0)
        assert feeder.hand_in(bench.reader) == left.consumed == whole
        assert bench.left() == payloads[whole:]
        assert not left.ended

    run(test)


@given(numbers=sizes, data=st.data())
@unhurried
def test_one_to_one_sends_again_what_is_unanswered_and_nothing_else(numbers: list[int], data: st.DataObject) -> None:
    payloads = payloads_of(numbers)
    total = sum(size + 1 for size in numbers)
    offset = data.draw(st.integers(0, total))
    whole = next(n for n in range(len(numbers), -1, -1) if sum(size + 1 for size in numbers[:n]) <= offset)
    answered = data.draw(st.integers(0, whole))

    async def test() -> None:
        bench = Bench()
        feeder = bench.one_to_one()
        feeder.begin()
        bench.publish(*payloads)
        await bench.read(offset)
        for number in range(answered):
            bench.answer(feeder, str(number).encode())
        left = await bench.die(feeder)
        assert bench.reader.account.acknowledged == answered
        assert left.unanswered == whole - answered
        if left.unanswered:
            assert f"message {answered + 1:,} of channel `c`" in left.first_unanswered
        assert b"".join(batch.joined() for batch in bench.published) == b"".join(b"%d\n" % n for n in range(answered))
        assert bench.left() == payloads[answered:]

    run(test)


@given(sizes)
@unhurried
def test_the_end_of_input_comes_after_the_last_byte(numbers: list[int]) -> None:
    async def test() -> None:
        bench = Bench()
        feeder = bench.stream()
        bench.publish(*payloads_of(numbers))
        bench.writer.end()
        feeder.begin()
        data = b""
        while not (data.count(b"\n") == len(numbers) and feeder.input_closed):
            data += await bench.read(1 << 16)
        assert os.read(bench.read_end, 1) == b""
        left = await bench.die(feeder)
        assert left.ended
        assert (left.unread, left.consumed) == (0, len(numbers))

    run(test)


def test_an_end_that_was_not_read_up_to_is_none() -> None:
    async def test() -> None:
        bench = Bench()
        feeder = bench.stream()
        bench.publish(b"1", b"2")
        bench.writer.end()
        feeder.begin()
        assert feeder.input_closed
        await bench.read(3)
        left = await bench.die(feeder)
        assert not left.ended
        assert bench.left() == [b"2"]

    run(test)


def test_an_answer_too_many_is_named_and_shown() -> None:
    async def test() -> None:
        bench = Bench()
        feeder = bench.one_to_one()
        feeder.begin()
        bench.publish(b"question")
        with pytest.raises(ContractError, match=r"answers too much: answer 2 of this run, 'more…?'"):
            bench.answer(feeder, b"answer", b"more")
        assert bench.reader.account.acknowledged == 1
        feeder.abandon()
        os.close(bench.read_end)

    run(test)


def test_answers_to_what_was_not_read_break_the_contract() -> None:
    async def test() -> None:
        bench = Bench()
        feeder = bench.one_to_one()
        feeder.begin()
        bench.publish(b"one", b"two")
        bench.answer(feeder, b"guess")
        with pytest.raises(ContractError, match=r"answered 1 messages? that it had not read"):
            await bench.die(feeder)
        assert bench.left() == [b"two"]

    run(test)


@given(numbers=sizes, window_bytes=st.integers(4, 2000), data=st.data())
@unhurried
def test_no_more_than_the_window_is_unanswered(numbers: list[int], window_bytes: int, data: st.DataObject) -> None:
    async def test() -> None:
        bench = Bench()
        feeder = bench.one_to_one(window_bytes)
        feeder.begin()
        bench.publish(*payloads_of(numbers))
        unanswered = len(numbers)
        while unanswered:
            assert feeder.pending_bytes <= window_bytes or feeder.pending_messages == 1
            assert feeder.pending_messages >= 1
            await bench.read(1 << 16)
            answers = data.draw(st.integers(1, feeder.pending_messages))
            bench.answer(feeder, *([b"a"] * answers))
            unanswered -= answers
        assert bench.reader.account.acknowledged == len(numbers)
        feeder.abandon()
        os.close(bench.read_end)

    run(test)
