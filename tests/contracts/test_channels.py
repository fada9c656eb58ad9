"""The channel contract (`runner.channel.base`), run against every kind that the runner itself carries messages in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runner.channel.base import Channel, Reader, Writer
from runner.channel.registry import channel_kind
from runner.codec.base import Batch, Codec
from runner.codec.registry import codec_named
from runner.errors import CodecError, RunnerError
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import OnFull

KINDS = ["memory"]
CODECS = ["lines", "null", "length-prefixed"]
CAPACITY_BYTES = 64

kinds = pytest.mark.parametrize("kind", KINDS)
payloads = st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"n").replace(b"\0", b"0"))
messages = st.lists(payloads, max_size=8)


def make(kind: str, on_full: OnFull = OnFull.BLOCK, capacity_bytes: int = CAPACITY_BYTES) -> Channel:
    return channel_kind(kind)(ChannelSpec("c", kind=kind, capacity_bytes=capacity_bytes, on_full=on_full))


def contents(codec: Codec, batch: Batch | None) -> list[bytes]:
    return [] if batch is None else [codec.payload(framed) for framed in codec.split(batch)]


def take_all(reader: Reader) -> list[bytes]:
    taken: list[bytes] = []
    while (batch := reader.take()) is not None:
        taken += contents(reader.codec, batch)
    return taken


LINES = codec_named("lines")
NULL = codec_named("null")


# -- a model of a whole channel -------------------------------------------------------------------------------------


@dataclass
class ReaderModel:
    reader: Reader
    queue: deque[bytes] = field(default_factory=deque)
    """Framed messages."""
    came: int = 0
    taken: int = 0
    dropped: int = 0
    unread: int = 0
    left: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.queue))

    def offer(self, framed: list[bytes], on_full: OnFull) -> None:
        self.came += len(framed)
        if self.left:
            self.unread += len(framed)
            return
        if on_full is OnFull.DROP_NEWEST:
            was_empty, room = not self.queue, max(0, CAPACITY_BYTES - self.size_bytes)
            fits = 0
            while fits < len(framed) and sum(map(len, framed[: fits + 1])) <= room:
                fits += 1
            if not fits and was_empty and framed:
                fits = 1
            self.dropped += len(framed) - fits
            framed = framed[:fits]
        self.queue.extend(framed)
        if on_full is OnFull.DROP_OLDEST:
            while self.size_bytes > CAPACITY_BYTES and len(self.queue) > 1:
                self.queue.popleft()
                self.dropped += 1


class ChannelMachine(RuleBasedStateMachine):
    """Anything that may happen at the ends of a channel, against a model in which messages are single."""

    kind = "memory"

    @initialize(
        on_full=st.sampled_from(OnFull),
        reading=st.lists(st.sampled_from(CODECS), min_size=1, max_size=3),
        writing=st.lists(st.sampled_from(CODECS), min_size=1, max_size=3),
    )
    def begin(self, on_full: OnFull, reading: list[str], writing: list[str]) -> None:
        self.on_full = on_full
        self.channel = make(self.kind, on_full)
        self.models = [
            ReaderModel(self.channel.open_reader(f"r{number}", codec_named(name)))
            for number, name in enumerate(reading)
        ]
        self.codecs = [codec_named(name) for name in writing]
        self.writers = [self.channel.open_writer(f"w{number}", codec) for number, codec in enumerate(self.codecs)]
        self.ended = [False] * len(writing)
        self.waiting = 0
        self.called = 0
        self.all_left = 0
        self.channel.on_readers_left(self._left)

    def _left(self) -> None:
        self.all_left += 1

    def _room(self) -> None:
        assert not any(writer.full for writer in self.writers)
        self.called += 1

    @precondition(lambda self: not all(self.ended))
    @rule(data=st.data(), sent=messages.filter(bool))
    def publish(self, data: st.DataObject, sent: list[bytes]) -> None:
        number = data.draw(st.sampled_from([index for index, ended in enumerate(self.ended) if not ended]))
        batch = self.codecs[number].batch_of(sent)
        self.writers[number].publish(batch)
        for model in self.models:
            model.offer([model.reader.codec.encode(payload) for payload in sent], self.on_full)

    @rule(data=st.data(), most_bytes=st.none() | st.integers(1, 80), most_messages=st.none() | st.integers(1, 9))
    def take(self, data: st.DataObject, most_bytes: int | None, most_messages: int | None) -> None:
        model = data.draw(st.sampled_from(self.models))
        batch = model.reader.take(most_bytes=most_bytes, most_messages=most_messages)
        assert (batch is None) == (not model.queue)
        if batch is None:
            return
        assert batch.count >= 1
        assert most_messages is None or batch.count <= most_messages
        assert most_bytes is None or batch.size_bytes <= most_bytes or batch.count == 1
        expected = b"".join(model.queue.popleft() for _ in range(batch.count))
        assert batch.joined() == expected
        assert batch.size_bytes == len(expected)
        model.taken += batch.count

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.models))
        model.reader.leave()
        model.left = True
        model.unread += len(model.queue)
        model.queue.clear()

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.writers) - 1))
        self.writers[number].end()
        self.ended[number] = True

    @rule(data=st.data())
    def wait_for_room(self, data: st.DataObject) -> None:
        self.waiting += 1
        data.draw(st.sampled_from(self.writers)).when_room(self._room)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "channel"):
            return
        full = []
        for model in self.models:
            reader = model.reader
            assert (reader.queued_messages, reader.queued_bytes) == (len(model.queue), model.size_bytes)
            assert reader.left == model.left
            assert reader.ended == all(self.ended)
            assert (reader.account.dropped, reader.account.unread) == (model.dropped, model.unread)
            assert self.channel.written == model.came
            assert model.came == model.taken + model.dropped + model.unread + reader.queued_messages
            if self.on_full is OnFull.BLOCK and model.size_bytes >= CAPACITY_BYTES:
                full.append(reader)
        for writer in self.writers:
            assert list(writer.blocked_by) == full
            assert writer.full == bool(full)
            assert writer.wanted == (not all(model.left for model in self.models))
        assert self.called <= self.waiting
        assert full or self.called == self.waiting  # each is called once, as soon as there is room
        assert self.all_left == all(model.left for model in self.models)
        if self.on_full is not OnFull.BLOCK:
            assert all(model.size_bytes <= CAPACITY_BYTES or len(model.queue) == 1 for model in self.models)


TestMemory = ChannelMachine.TestCase
TestMemory.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


# -- order, merge, fan-out ------------------------------------------------------------------------------------------


@kinds
@given(sent=st.lists(st.tuples(st.integers(0, 2), st.lists(st.binary(max_size=5), max_size=4)), max_size=20))
@settings(deadline=None)
def test_merged_messages_stay_whole_and_in_order_of_each_writer(kind: str, sent: list[tuple[int, list[bytes]]]) -> None:
    codec = codec_named("length-prefixed")
    channel = make(kind)
    reader = channel.open_reader("r", codec)
    writers = [channel.open_writer(f"w{number}", codec) for number in range(3)]
    for number, batch in sent:
        writers[number].publish(codec.batch_of([bytes([number]) + payload for payload in batch]))
    taken = take_all(reader)
    for number in range(3):
        expected = [payload for who, batch in sent if who == number for payload in batch]
        assert [payload[1:] for payload in taken if payload[0] == number] == expected


@kinds
def test_readers_share_the_bytes(kind: str) -> None:
    channel = make(kind, capacity_bytes=1 << 20)
    readers = [channel.open_reader(name, LINES) for name in ("one", "two", "three")]
    writer = channel.open_writer("w", LINES)
    data = bytes(100_000) + b"\n"
    writer.publish(Batch((data,), 1, len(data)))
    for reader in readers:
        batch = reader.take()
        assert batch is not None
        assert batch.parts[0] is data


@kinds
@pytest.mark.parametrize("source", CODECS)
@pytest.mark.parametrize("target", CODECS)
@given(sent=messages)
@settings(deadline=None, max_examples=20)
def test_each_reader_gets_its_own_framing(kind: str, source: str, target: str, sent: list[bytes]) -> None:
    channel = make(kind)
    same, other = (channel.open_reader(name, codec_named(name)) for name in (source, target))
    channel.open_writer("w", codec_named(source)).publish(codec_named(source).batch_of(sent))
    assert take_all(same) == take_all(other) == sent


# -- refusal --------------------------------------------------------------------------------------------------------


@kinds
@given(before=st.lists(messages, max_size=3), good=messages, after=messages)
@settings(deadline=None)
def test_a_refused_message_is_named_by_its_number(
    kind: str, before: list[list[bytes]], good: list[bytes], after: list[bytes]
) -> None:
    channel = make(kind)
    framed, lines = channel.open_reader("framed", NULL), channel.open_reader("lines", LINES)
    writer = channel.open_writer("w", NULL)
    for batch in before:
        writer.publish(NULL.batch_of(batch))
    count = sum(map(len, before)) + len(good)
    with pytest.raises(CodecError, match=f"^message {count + 1:,} of channel `c` is refused") as caught:
        writer.publish(NULL.batch_of([*good, b"bad\nbad", *after]))
    assert caught.value.index == len(good)
    assert (channel.written, channel.refused) == (count, 1)
    expected = [payload for batch in before for payload in batch] + good
    assert take_all(framed) == take_all(lines) == expected


@kinds
def test_the_first_of_two_refusals_counts_whichever_reader_it_is(kind: str) -> None:
    prefixed = codec_named("length-prefixed")
    for codecs in ((LINES, NULL), (NULL, LINES)):
        channel = make(kind)
        readers = [channel.open_reader(codec.name, codec) for codec in codecs]
        writer = channel.open_writer("w", prefixed)
        with pytest.raises(CodecError, match=r"^message 2 ") as caught:
            writer.publish(prefixed.batch_of([b"1", b"\0", b"3", b"\n"]))
        assert caught.value.index == 1
        assert (channel.written, channel.refused) == (1, 1)
        assert [take_all(reader) for reader in readers] == [[b"1"], [b"1"]]


# -- ends, leaving, room --------------------------------------------------------------------------------------------


def _ends(kind: str) -> tuple[Channel, Reader, list[Writer]]:
    channel = make(kind)
    reader = channel.open_reader("r", LINES)
    return channel, reader, [channel.open_writer(name, LINES) for name in ("one", "two")]


def _counter() -> tuple[list[int], Callable[[], None]]:
    calls = [0]

    def count() -> None:
        calls[0] += 1

    return calls, count


@kinds
def test_it_has_ended_when_all_writers_have_and_says_so(kind: str) -> None:
    _, reader, (one, two) = _ends(kind)
    calls, reader.on_data = _counter()
    ended = [reader.ended]
    one.end()
    one.end()
    ended.append(reader.ended)
    assert calls == [0]
    two.publish(LINES.batch_of([b"last"]))
    two.end()
    assert [*ended, reader.ended] == [False, False, True]
    assert calls == [2]
    assert take_all(reader) == [b"last"]


@kinds
def test_data_is_told(kind: str) -> None:
    _, reader, (one, _) = _ends(kind)
    calls, reader.on_data = _counter()
    one.publish(LINES.batch_of([b"1"]))
    assert calls == [1]


@kinds
def test_a_reader_that_leaves_lets_its_writers_go_on(kind: str) -> None:
    channel, reader, (one, two) = _ends(kind)
    calls, room = _counter()
    left, gone = _counter()
    channel.on_readers_left(gone)
    one.publish(LINES.batch_of([b"x" * 2 * CAPACITY_BYTES]))
    two.when_room(room)
    assert calls == [0]
    reader.leave()
    reader.leave()
    assert calls == left == [1]
    assert not one.full
    assert not one.wanted
    one.publish(LINES.batch_of([b"1", b"2"]))
    assert reader.account.unread == 3
    assert reader.take() is None


@kinds
def test_one_slow_reader_holds_up_the_writers_and_is_named(kind: str) -> None:
    channel = make(kind)
    slow, quick = channel.open_reader("slow", LINES), channel.open_reader("quick", LINES)
    writer = channel.open_writer("w", LINES)
    writer.publish(LINES.batch_of([b"x" * CAPACITY_BYTES]))
    take_all(quick)
    assert writer.blocked_by == (slow,)


@kinds
@given(sent=st.lists(st.integers(1, 40), max_size=60))
@settings(deadline=None)
def test_it_holds_its_capacity_and_a_batch_at_most(kind: str, sent: list[int]) -> None:
    """A writer that asks `full` after each batch."""
    channel = make(kind)
    reader = channel.open_reader("r", LINES)
    writer = channel.open_writer("w", LINES)
    for size in sent:
        if writer.full:
            reader.take()
        else:
            writer.publish(LINES.batch_of([b"x" * size]))
        assert reader.queued_bytes < CAPACITY_BYTES + 41


@kinds
def test_room_is_told_once_when_the_last_reader_has_some(kind: str) -> None:
    channel = make(kind)
    readers = [channel.open_reader(name, LINES) for name in ("one", "two")]
    writer = channel.open_writer("w", LINES)
    calls, room = _counter()
    writer.publish(LINES.batch_of([b"x" * CAPACITY_BYTES]))
    writer.when_room(room)
    readers[0].take()
    assert calls == [0]
    readers[1].take()
    assert calls == [1]
    writer.publish(LINES.batch_of([b"x" * CAPACITY_BYTES]))
    take_all(readers[0])
    take_all(readers[1])
    assert calls == [1]


# -- kinds by name --------------------------------------------------------------------------------------------------


def test_an_unknown_kind_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(RunnerError, match='there is no channel kind "carrier-pigeon"') as caught:
        channel_kind("carrier-pigeon")
    assert '"memory"' in str(caught.value)
    assert '"pipe"' in str(caught.value)
