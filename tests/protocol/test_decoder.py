"""Bytes of an untrusted program: frames, or an error that says what was seen and where; never more than the bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.protocol.decoder import Decoder
from runner.protocol.errors import REMEDIES, ProtocolError
from runner.protocol.frames import (
    LEVELS,
    MOST_HEADER_BYTES,
    MOST_NUMBER,
    Ack,
    End,
    Frame,
    Log,
    Nack,
    Out,
    Pong,
    Ready,
    State,
)

MOST = 1000
PORTS = ("stdout", "errors")

numbers = st.integers(0, MOST_NUMBER)
payloads = st.binary(max_size=MOST)
texts = st.text(max_size=100)


def written(frame: Frame, extra: bytes = b"") -> bytes:
    """A frame as a program writes it."""
    match frame:
        case Ready(version, stateful):
            return b"ready 0 %d stateful=%b%b\n" % (version, b"yes" if stateful else b"no", extra)
        case Out(delivery, port, payload):
            return b"out %d %d %b%b\n%b" % (len(payload), delivery, port.encode(), extra, payload)
        case Ack(first, last):
            return b"ack 0 %d %d%b\n" % (first, last, extra)
        case Nack(delivery, reason, delay_ms):
            text = reason.encode()
            return b"nack %d %d%b delay=%d\n%b" % (len(text), delivery, extra, delay_ms, text)
        case State(number, payload):
            return b"state %d %d%b\n%b" % (len(payload), number, extra, payload)
        case Log(level, text_):
            text = text_.encode()
            return b"log %d %b%b\n%b" % (len(text), level.encode(), extra, text)
        case Pong(token):
            return b"pong 0 %d%b\n" % (token, extra)
        case End():
            return b"end 0%b\n" % extra


frames = st.one_of(
    st.builds(Ready, numbers, st.booleans()),
    st.builds(Out, numbers, st.sampled_from(PORTS), payloads),
    st.tuples(numbers, numbers).map(lambda pair: Ack(min(pair), max(pair))),
    st.builds(Nack, numbers, texts, numbers),
    st.builds(State, numbers, payloads),
    st.builds(Log, st.sampled_from(LEVELS), texts),
    st.builds(Pong, numbers),
    st.just(End()),
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@settings(max_examples=200, deadline=None)
@given(st.lists(frames, max_size=20), st.lists(st.integers(0, 3000), max_size=20), st.sampled_from([b"", b" x=1 y"]))
def test_frames_come_back_however_they_are_cut(sent: list[Frame], places: list[int], extra: bytes) -> None:
    decoder = Decoder(PORTS, MOST)
    data = b"".join(written(frame, extra) for frame in sent)
    got = [frame for piece in cut(data, places) for frame in decoder.feed(piece)]
    assert got == sent
    assert decoder.pending_bytes == 0
    assert decoder.frames == len(sent)
    decoder.finish()


@settings(max_examples=50, deadline=None)
@given(st.lists(frames, min_size=1, max_size=5))
def test_byte_by_byte(sent: list[Frame]) -> None:
    decoder = Decoder(PORTS, MOST)
    data = b"".join(map(written, sent))
    assert [frame for at in range(len(data)) for frame in decoder.feed(data[at : at + 1])] == sent


words = st.sampled_from(
    [b"out", b"ack", b"nack", b"state", b"log", b"ready", b"end", b"pong", b"msg", b"0", b"1", b"5", b"99999", b"-1",
     b"stdout", b"info", b"delay=3", b"delay=", b"stateful=yes", b" ", b"  ", b"\n", b"\n\n", b"\0", b"\xff", b"hello"]
)  # fmt: skip
garbage = st.one_of(st.binary(max_size=200), st.lists(words, max_size=30).map(b" ".join), st.lists(words).map(b"".join))


@settings(max_examples=400, deadline=None)
@given(st.lists(garbage, max_size=10))
def test_garbage_is_an_error_with_a_place_and_never_more_than_the_bounds(pieces: list[bytes]) -> None:
    decoder = Decoder(PORTS, MOST)
    fed = b"".join(pieces)
    good = 0
    for piece in pieces:
        try:
            good += len(decoder.feed(piece))
        except ProtocolError as error:
            assert error.code in REMEDIES
            assert error.frame == good + len(decoder.rescued()) + 1
            assert error.offset is not None
            assert error.offset <= len(fed)
            assert all(" " <= each <= "~" for each in str(error))
            return
        assert decoder.pending_bytes <= MOST_HEADER_BYTES + MOST + len(piece)


ERRORS = [
    (b"x" * MOST_HEADER_BYTES, "header-too-long"),
    (b"\n", "unknown-kind"),
    (b"hello world\n", "unknown-kind"),
    (b"msg 0 1 1 1 stdin a@1\n", "unknown-kind"),
    (b"Out 0 1 stdout\n", "unknown-kind"),
    (b"out  0 1 stdout\n", "bad-header"),
    (b"out 0 1 stdout \n", "bad-header"),
    (b"out 0 1 stdout\r\n", "bad-header"),
    (b"log 0 info caf\xc3\xa9\n", "bad-header"),
    (b"out 0 1\n", "missing-field"),
    (b"ack 0\n", "missing-field"),
    (b"out x 1 stdout\n", "bad-number"),
    (b"out 1_0 1 stdout\n", "bad-number"),
    (b"out +1 1 stdout\n", "bad-number"),
    (b"out 0 9007199254740992 stdout\n", "bad-number"),
    (b"ack 0 11111111111111111\n", "bad-number"),
    (b"nack 0 1 delay=soon\n", "bad-number"),
    (b"ack 0 2 1\n", "bad-field"),
    (b"log 0 loud\n", "bad-field"),
    (b"ready 0 1 stateful=maybe\n", "bad-field"),
    (b"out 1001 1 stdout\n", "payload-too-long"),
    (b"out 9007199254740991 1 stdout\n", "payload-too-long"),
    (b"log 65537 info\n", "payload-too-long"),
    (b"ack 1 1\n", "payload-too-long"),
    (b"out 0 1 nowhere\n", "unknown-port"),
]


@pytest.mark.parametrize(("bad", "code"), ERRORS)
def test_each_error_is_named_with_its_place(bad: bytes, code: str) -> None:
    decoder = Decoder(PORTS, 100_000 if b"65537" in bad else MOST)
    with pytest.raises(ProtocolError) as found:
        decoder.feed(b"ack 0 1\nout 3 1 stdout\nabc" + bad)
    assert (found.value.code, found.value.frame, found.value.offset) == (code, 3, 26)
    assert decoder.rescued() == [Ack(1, 1), Out(1, "stdout", b"abc")]
    assert found.value.remedy


def test_what_was_seen_is_shown_safely() -> None:
    with pytest.raises(ProtocolError, match=r'"\\x1b\[31mhello" is no kind of frame'):
        Decoder(PORTS, MOST).feed(b"\x1b[31mhello there\n")


def test_a_length_is_refused_before_its_payload_comes() -> None:
    decoder = Decoder(PORTS, MOST)
    assert decoder.feed(b"state 1001 1") == []
    with pytest.raises(ProtocolError, match="announces 1,001 bytes, at most 1,000"):
        decoder.feed(b"\n")


@pytest.mark.parametrize("rest", [b"o", b"out 3 1 stdout", b"out 3 1 stdout\nab"])
def test_an_end_within_a_frame_is_said(rest: bytes) -> None:
    decoder = Decoder(PORTS, MOST)
    decoder.feed(b"end 0\n" + rest)
    with pytest.raises(ProtocolError) as found:
        decoder.finish()
    assert (found.value.code, found.value.frame, found.value.offset) == ("cut-short", 2, 6)


def test_zeromq_messages() -> None:
    decoder = Decoder(PORTS, MOST)
    assert decoder.message([b"out 3 1 stdout", b"abc"]) == Out(1, "stdout", b"abc")
    assert decoder.message([b"end 0"]) == End()
    assert decoder.message([b"end 0", b""]) == End()
    bad: list[tuple[list[bytes], str]] = [
        ([], "bad-header"), ([b"end 0", b"", b""], "bad-header"), ([b"out 3 1 stdout", b"ab"], "bad-field"),
        ([b"out 3 1 stdout"], "bad-field"), ([b"end 0\n"], "bad-header"), ([b"x" * 9000], "header-too-long"),
    ]  # fmt: skip
    for parts, code in bad:
        with pytest.raises(ProtocolError) as found:
            decoder.message(parts)
        assert (found.value.code, found.value.frame) == (code, 4)
