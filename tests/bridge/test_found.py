"""What a review of the bridges found: each test states a rule, and fails while the bridges break it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runner.bridge.answers import OneToOneFeeder
from runner.bridge.feeder import Feeder, InputLeft, StreamFeeder
from runner.bridge.inlet import Inlet, Piece
from runner.bridge.logs import InstanceLog, LogReader
from runner.bridge.outlet import Outlet
from runner.bridge.sequence import Sequencer
from runner.channel.memory import MemoryChannel
from runner.codec.base import Batch
from runner.codec.registry import codec_named
from runner.errors import CodecError, ContractError
from runner.events import Bus, Event, LogLeftOut, LogLine
from runner.spec.model import Channel

LINES = codec_named("lines")
NULL = codec_named("null")


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def settle(feeder: Feeder) -> InputLeft:
    await feeder.count_unread()
    return feeder.settle()


def channel(*readers: str, name: str = "a", capacity_bytes: int = 1 << 20) -> MemoryChannel:
    made = MemoryChannel(Channel(name, capacity_bytes=capacity_bytes))
    for reader in readers:
        made.open_reader(reader, LINES)
    return made


def lines(*payloads: str) -> Batch:
    return LINES.batch_of([payload.encode() for payload in payloads])


def one_to_one(inlet: Inlet, write_end: int, **more: Any) -> OneToOneFeeder:
    os.set_blocking(write_end, False)
    given: dict[str, Any] = {
        "on_progress": lambda: None,
        "window_bytes": 4096,
        "most_window_bytes": 4096,
        "window_messages": None,
        "sequencer": None,
    }
    return OneToOneFeeder(write_end, inlet, **{**given, **more})


def test_good_answers_reach_every_channel_of_a_port_when_one_refuses() -> None:
    """Those before the refused one are in all its channels, or they would be acknowledged and lost in one."""
    first, second = channel("x", name="first"), MemoryChannel(Channel("second"))
    second.open_reader("y", NULL)
    outlet = Outlet("stdout", [first.open_writer("w", NULL), second.open_writer("w", NULL)])
    with pytest.raises(CodecError):
        outlet.deliver(NULL.batch_of([b"good", b"bad\nbad", b"after"]))
    assert first.written == outlet.written == 1
    assert second.written == 1


def test_a_reader_that_has_left_refuses_nothing() -> None:
    made = MemoryChannel(Channel("a"))
    gone = made.open_reader("gone", LINES)
    made.open_reader("stays", NULL)
    writer = made.open_writer("w", NULL)
    gone.leave()
    writer.publish(NULL.batch_of([b"a\nb"]))
    assert made.written == 1
    assert gone.account.unread == 1


def test_a_window_of_one_message_holds_when_much_was_given_back() -> None:
    async def test() -> None:
        made = channel("one")
        inlet = Inlet("stdin", made.readers, replicas=1)
        inlet.give_back([Piece(made.readers[0], lines("1", "2", "3"), 1)])
        read_end, write_end = os.pipe()
        feeder = one_to_one(inlet, write_end, window_messages=1)
        made.open_writer("w", LINES)
        feeder.begin()
        assert feeder.pending_messages == 1
        feeder.abandon()
        os.close(read_end)

    run(test)


def test_a_message_larger_than_the_rest_of_the_window_waits() -> None:
    async def test() -> None:
        made = channel("one")
        writer = made.open_writer("w", LINES)
        inlet = Inlet("stdin", made.readers, replicas=1)
        read_end, write_end = os.pipe()
        feeder = one_to_one(inlet, write_end)
        writer.publish(lines("x" * 1000, "y" * 4000))
        feeder.begin()
        assert feeder.pending_bytes <= 4096
        feeder.abandon()
        os.close(read_end)

    run(test)


def test_a_window_of_messages_grows_while_its_bytes_are_few() -> None:
    """The window grows up to the channel's capacity, which is in bytes."""

    async def test() -> None:
        made = channel("one")
        writer = made.open_writer("w", LINES)
        inlet = Inlet("stdin", made.readers, replicas=1)
        read_end, write_end = os.pipe()
        feeder = one_to_one(inlet, write_end, window_messages=1)
        writer.publish(lines("1", "2", "3"))
        feeder.begin()
        assert feeder.window_full
        assert feeder.grow()
        assert feeder.pending_messages == 2
        feeder.abandon()
        os.close(read_end)

    run(test)


def test_a_pipe_that_the_program_made_larger_is_settled_exactly() -> None:
    """fcntl F_SETPIPE_SZ works on the program's end too; what it has not read then goes to the next all the same."""

    async def test() -> None:
        made = channel("one")
        writer = made.open_writer("w", LINES)
        inlet = Inlet("stdin", made.readers, replicas=1)
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        feeder = StreamFeeder(write_end, inlet, on_progress=lambda: None)
        feeder.begin()
        fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, 1 << 16)
        for number in range(40):
            writer.publish(lines(str(number) * 500))
        feeder.stop()
        os.close(read_end)
        left = await settle(feeder)
        assert (left.consumed, inlet.queued_messages) == (0, 40)

    run(test)


def test_what_was_given_back_keeps_the_order_of_the_sequencer() -> None:
    """Two died, the one with the older messages first: they still go out first, or the answers wait for ever."""

    async def test() -> None:
        made = channel("one")
        writer = made.open_writer("w", LINES)
        inlet = Inlet("stdin", made.readers, replicas=2)
        sequencer = Sequencer(lambda batch: None, most_bytes=100)
        ends, feeders = [], []
        for _ in range(2):
            read_end, write_end = os.pipe()
            ends.append(read_end)
            feeders.append(one_to_one(inlet, write_end, window_messages=1, sequencer=sequencer))
        writer.publish(lines("1", "2"))
        for feeder in feeders:
            feeder.begin()
        for feeder, read_end in zip(feeders, ends, strict=True):
            feeder.stop()
            os.close(read_end)
            await settle(feeder)
        first = inlet.take()
        assert first is not None
        assert first.batch.joined() == b"1\n"

    run(test)


def test_answers_are_crowded_only_while_somebody_has_the_head() -> None:
    """The head of the line has been given back and nobody can take it: not to read answers would end all progress."""

    async def test() -> None:
        made = channel("one")
        made.open_writer("w", LINES)
        sequencer = Sequencer(lambda batch: None, most_bytes=1)
        first, second = object(), object()
        head = sequencer.open(made.readers[0], 1, 1, first)
        slot = sequencer.open(made.readers[0], 2, 2, second)
        sequencer.put(slot, lines("answer"))
        sequencer.own(head, None)
        made.readers[0].leave()
        assert not sequencer.crowded(second)

    run(test)


def test_log_lines_shown_and_left_out_are_all_lines() -> None:
    """A flood whose reads cut lines; then a quiet line."""

    async def test() -> None:
        now = [0.0]
        events: list[Event] = []
        bus = Bus()
        bus.subscribe(events.append)
        log = InstanceLog(bus, "p", 1, clock=lambda: now[0])
        read_end, write_end = os.pipe()
        reader = LogReader(read_end, log, "stderr")
        reader._take(b"x\n" * 5000 + b"cut he")
        now[0] += 1000.0
        reader._take(b"re\nquiet\n")
        os.close(write_end)
        await reader.ended.wait()
        shown = sum(isinstance(event, LogLine) for event in events)
        left_out = sum(event.count for event in events if isinstance(event, LogLeftOut))
        assert log.left_out == left_out
        assert shown + left_out == 5002

    run(test)


def test_log_lines_are_not_counted_twice() -> None:
    """The end of a line that was shown cut comes with a flood."""

    async def test() -> None:
        events: list[Event] = []
        bus = Bus()
        bus.subscribe(events.append)
        log = InstanceLog(bus, "p", 1, clock=lambda: 0.0)
        read_end, write_end = os.pipe()
        reader = LogReader(read_end, log, "stderr")
        reader._take(b"x" * 10000)
        reader._take(b"x\n" + b"y\n" * 5000)
        os.close(write_end)
        await reader.ended.wait()
        shown = sum(isinstance(event, LogLine) for event in events)
        left_out = sum(event.count for event in events if isinstance(event, LogLeftOut))
        assert shown + left_out == 5001

    run(test)


def test_a_queue_of_tiny_messages_takes_about_its_capacity() -> None:
    """Each was read by itself; what the runner needs to hold them is bounded with them."""
    made = channel("one", capacity_bytes=100_000)
    writer = made.open_writer("w", LINES)
    tracemalloc.start()
    try:
        while not writer.full:
            writer.publish(Batch((bytes(bytearray(b"x\n")),), 1, 2))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 10 * 100_000


def test_large_messages_do_not_fill_a_window_that_has_room() -> None:
    """With replicas: a full window that nobody answers is what tells that a program buffers its output."""

    async def test() -> None:
        made = channel("one", capacity_bytes=8 << 20)
        writer = made.open_writer("w", LINES)
        inlet = Inlet("stdin", made.readers, replicas=2)
        read_end, write_end = os.pipe()
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 20)
        feeder = one_to_one(inlet, write_end, window_bytes=1 << 20, most_window_bytes=8 << 20)
        writer.publish(lines(*(["x" * 100_000] * 4)))
        feeder.begin()
        assert feeder.pending_messages >= 2 or not feeder.window_full
        feeder.abandon()
        os.close(read_end)

    run(test)


def test_tiny_messages_that_are_unread_take_about_their_bytes() -> None:
    """Each was read by itself, and the reader has stopped: what is kept of them is bounded with them."""

    async def test() -> None:
        made = channel("one")
        writer = made.open_writer("w", LINES)
        inlet = Inlet("stdin", made.readers, replicas=1)
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 20)
        feeder = StreamFeeder(write_end, inlet, on_progress=lambda: None)
        feeder.begin()
        tracemalloc.start()
        try:
            for _ in range(50_000):
                writer.publish(Batch((bytes(bytearray(b"x\n")),), 1, 2))
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert feeder.unread_bytes == 100_000
        feeder.abandon()
        os.close(read_end)
        assert held_bytes < 10 * 100_000

    run(test)


def test_what_a_program_may_have_read_is_not_given_to_another_when_numbers_cannot_be() -> None:
    """It wrote into its own stdin: which messages it had read nobody knows, so under `stream` none is sent again."""

    async def test() -> None:
        made = channel("one")
        writer = made.open_writer("w", LINES)
        inlet = Inlet("stdin", made.readers, replicas=1)
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        feeder = StreamFeeder(write_end, inlet, on_progress=lambda: None)
        feeder.begin()
        writer.publish(lines("1", "2"))
        assert os.read(read_end, 100) == b"1\n2\n"
        os.write(write_end, b"its own words\n")
        feeder.stop()
        os.close(read_end)
        with pytest.raises(ContractError, match="wrote into its own input"):
            await settle(feeder)
        assert inlet.queued_messages == 0
        assert feeder.hand_in(made.readers[0]) == 2

    run(test)
