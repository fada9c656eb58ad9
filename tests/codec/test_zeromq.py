"""What only the codec `zeromq` does: long heads, commands between messages, what is no message, empty messages."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.codec.base import EMPTY
from runner.codec.zeromq import ZEROMQ, ZEROMQ_NO_EMPTY
from runner.errors import CodecError
from runner.protocol.zmtp import command

PING = command(b"PING", b"\0\0context")
MOST = 100_000
PIECES = st.lists(st.one_of(st.none(), st.binary(max_size=400)), max_size=12)


@settings(deadline=None)
@given(PIECES, st.lists(st.integers(1, 500), min_size=1, max_size=4))
def test_commands_are_taken_out_however_they_are_cut(pieces: list[bytes | None], sizes: list[int]) -> None:
    data = b"".join(PING if piece is None else ZEROMQ.encode(piece) for piece in pieces)
    decoder = ZEROMQ.decoder(MOST)
    found: list[bytes] = []
    count = 0
    while data:
        size = sizes[count % len(sizes)]
        count += 1
        batch = decoder.feed(data[:size])
        assert batch.size_bytes == sum(map(len, batch.parts))
        assert batch.count == len(ZEROMQ.payloads(batch))
        found += ZEROMQ.payloads(batch)
        data = data[size:]
    assert found == [piece for piece in pieces if piece is not None]
    assert decoder.pings == [PING[2:]] * min(8, pieces.count(None))
    assert decoder.finish(clean=True) == EMPTY


def test_a_flood_of_commands_costs_next_to_nothing() -> None:
    decoder = ZEROMQ.decoder(MOST)
    for _ in range(20):
        batch = decoder.feed((PING + b"\0\1x") * 5000)
        assert batch.count == 5000
        assert len(batch.parts) == 1
    assert len(decoder.pings) == 8
    assert decoder.pending_bytes == 0


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"\1\3one\0\3two", "several parts"),
        (b"\3" + struct.pack(">Q", 3) + b"one", "several parts"),
        (b"\x10\0", "no frame of ZMTP: its flags are 0x10"),
        (b"\5\0", "no frame of ZMTP: its flags are 0x05"),
        (b"\6" + struct.pack(">Q", 5000), "no frame of ZMTP: its flags are 0x06"),
        (b"\2" + struct.pack(">Q", 1 << 63), r"9,223,372,036,854,775,808 bytes is longer than max_message"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_no_message_is_refused_and_what_came_before_is_good(bad: bytes, why: str, size: int) -> None:
    decoder = ZEROMQ.decoder(MOST)
    data = b"\0\4good" + PING + b"\0\4next" + bad
    seen = 0
    with pytest.raises(CodecError, match=why) as found:
        for start in range(0, len(data), size):
            seen += decoder.feed(data[start : start + size]).count
    assert found.value.index == decoder.rescued().count
    assert seen + decoder.rescued().count == 2
    assert decoder.pending_bytes <= 9


def test_an_end_within_a_message() -> None:
    for cut in (b"\0", b"\0\4goo", b"\2\0\0"):
        decoder = ZEROMQ.decoder(MOST)
        decoder.feed(b"\0\4good" + cut)
        with pytest.raises(CodecError, match="cut short"):
            decoder.finish(clean=True)
        decoder.feed(cut)
        assert decoder.finish(clean=False) == EMPTY


def test_what_would_be_the_end_is_no_message() -> None:
    assert ZEROMQ.batch_of([b"a", b"", b"b"]).joined() == b"\0\1a\0\0\0\1b"
    twice: list[list[bytes | memoryview]] = [[b"a", b"", b"b"], [b"a", memoryview(b"")]]
    for payloads in twice:
        with pytest.raises(CodecError, match='end = "empty"') as found:
            ZEROMQ_NO_EMPTY.batch_of(payloads)
        assert found.value.index == 1
    with pytest.raises(CodecError):
        ZEROMQ_NO_EMPTY.encode(b"")
    assert ZEROMQ_NO_EMPTY.batch_of([b"a"]).joined() == b"\0\1a"
