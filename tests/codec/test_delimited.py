"""What makes the delimited codecs quick and bounded; what they mean is in the contract's suite."""

from __future__ import annotations

from typing import SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.codec.base import Batch
from runner.codec.delimited import DelimitedCodec, DelimitedDecoder
from runner.codec.lines import LINES
from runner.codec.null import NULL
from runner.codec.unfinished import Unfinished
from runner.errors import CodecError

MIB = 1 << 20


class Counted(bytes):
    """A read that notes how many of its bytes are searched."""

    searched = 0

    def rfind(self, *args: object) -> int:
        _, start, stop = (*args, 0, len(self))[:3] if len(args) == 1 else args
        found = super().rfind(b"\n", start, stop)  # type: ignore[arg-type]
        Counted.searched += min(stop, len(self)) - max(found, start)  # type: ignore[call-overload]
        return found

    def __getitem__(self, key: SupportsIndex | slice) -> bytes:  # type: ignore[override]
        return bytes(self)[key]  # type: ignore[return-value]


def test_a_read_is_shared_and_not_copied() -> None:
    data = b"a line\n" * 100_000
    (whole,) = LINES.decoder(MIB).feed(data).parts
    assert whole is data
    (view,) = LINES.decoder(MIB).feed(data + b"tail").parts
    assert isinstance(view, memoryview)


def test_a_small_batch_does_not_keep_a_large_read_alive() -> None:
    (line,) = LINES.decoder(MIB).feed(b"a line\n" + b"x" * 100_000).parts
    assert isinstance(line, bytes)


@pytest.mark.parametrize("codec", [LINES, NULL])
@pytest.mark.parametrize("lengths", [[0], [5], [31, 32, 33], [0, 3000], [100], [5000]])
def test_counts_agree_whatever_the_messages_before_were(codec: DelimitedCodec, lengths: list[int]) -> None:
    decoder = codec.decoder(MIB)
    for length in (*lengths, *reversed(lengths), 0, 200, 0):
        assert decoder.feed((b"x" * length + codec.delimiter) * 300 + b"rest").count == 300


def test_a_long_message_in_tiny_reads_is_searched_and_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    take = Unfinished.take

    def counted_take(self: Unfinished) -> tuple[bytes, ...]:
        taken.append(self.size_bytes)
        return take(self)

    monkeypatch.setattr(Unfinished, "take", counted_take)
    monkeypatch.setattr(Counted, "searched", 0)
    decoder = LINES.decoder(MIB)
    for _ in range(100_000):
        assert decoder.feed(Counted(b"xyz")).count == 0
    batch = decoder.feed(b"\n")
    assert (batch.count, batch.size_bytes) == (1, 300_001)
    assert taken == [300_000]
    assert Counted.searched <= 2 * 300_000 + 100_000
    assert len(batch.parts) <= 300_000 // (64 * 1024) + 2


@given(bound=st.integers(1, 50), lengths=st.lists(st.integers(0, 50), max_size=200))
def test_the_check_of_lengths_looks_at_each_byte_twice_at_most(bound: int, lengths: list[int]) -> None:
    data = Counted(b"".join(b"x" * min(length, bound) + b"\n" for length in lengths))
    Counted.searched = 0
    decoder = DelimitedDecoder(b"\n", bound)
    decoder._check_lengths(data)
    assert Counted.searched <= 2 * len(data)


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("lengths", [(0, 50_000, 900_000, 1), (900_000, 1, 0, 50_000), (30, 9_000, 300, 900)])
def test_cutting_stays_exact_where_messages_are_uneven(lengths: tuple[int, int, int, int], view: bool) -> None:
    """`lengths` are a length, how many of that, and both again."""
    length, times, other, more = lengths
    framed = [b"x" * length + b"\n"] * times + [b"y" * other + b"\n"] * more
    data = b"".join(framed)
    batch = Batch((memoryview(data) if view else data,), len(framed), len(data))
    for count in (1, 16, 17, 18, 500, len(framed) // 2, len(framed) - 17, len(framed) - 1):
        head, rest = LINES.skip(batch, count)
        assert head.joined() == b"".join(framed[:count])
        assert rest.count == len(framed) - count
        assert LINES.locate(batch, head.size_bytes) == (count, head.size_bytes)
        assert LINES.locate(batch, head.size_bytes - 1)[0] == count - 1


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("spread", [1, 40, 300])
def test_every_message_of_a_batch_is_found(spread: int, view: bool) -> None:
    framed = [b"x" * (index * index % spread) + b"\n" for index in range(1500)]
    data = b"".join(framed)
    batch = Batch((memoryview(data) if view else data,), len(framed), len(data))
    end = 0
    for index, each in enumerate(framed):
        assert LINES.locate(batch, end) == (index, end)
        head, _ = LINES.skip(batch, index)
        assert (head.count, head.size_bytes) == (index, end)
        end += len(each)


@pytest.mark.parametrize("behind", [*range(4090, 4100), *range(12280, 12292), 60_000])
def test_the_last_delimiter_is_found_however_far_back(behind: int) -> None:
    data = b"first\n" + b"x" * behind + b"\n"
    batch = Batch((memoryview(data),), 2, len(data))
    assert LINES.locate(batch, len(data) - 1) == (1, 6)


def test_the_error_shows_where_a_long_message_begins() -> None:
    decoder = LINES.decoder(50)
    decoder.feed(b"good\nthe \x1b[31mred ")
    with pytest.raises(CodecError) as caught:
        decoder.feed(b"and long one" * 10)
    assert repr(b"the \x1b[31mred and long oneand long oneand long one"[:40]) in str(caught.value)
    assert "\x1b" not in str(caught.value)
