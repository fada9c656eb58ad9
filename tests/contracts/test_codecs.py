"""The codec contract (`runner.codec.base`), run against every codec."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import accumulate, cycle, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.codec.base import EMPTY, Batch, Buffer, Codec
from runner.codec.convert import converter
from runner.codec.registry import codec_named
from runner.errors import CodecError

NAMES = ["lines", "null", "length-prefixed", "raw", "zeromq"]
FRAMED = [name for name in NAMES if name != "raw"]
ROOMY = 1 << 20
PREFIX_BYTES = 4

unhurried = settings(deadline=None)

# -- a naive model -----------------------------------------------------------------------------------------------


def frame(name: str, payload: bytes) -> bytes:
    match name:
        case "lines":
            return payload + b"\n"
        case "null":
            return payload + b"\0"
        case "length-prefixed":
            return struct.pack(">I", len(payload)) + payload
        case "zeromq":
            head = bytes((0, len(payload))) if len(payload) < 256 else struct.pack(">BQ", 2, len(payload))
            return head + payload
        case _:
            return payload


def carries(name: str, payload: bytes) -> bool:
    match name:
        case "lines":
            return b"\n" not in payload
        case "null":
            return b"\0" not in payload
        case "raw":
            return payload != b""
        case _:
            return True


def chunks(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """`data` cut into pieces of `sizes`, again and again; of multiples of them when `data` is long."""
    start = 0
    for size in cycle(size * (1 + len(data) // 2000) for size in sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


def assert_batch(codec: Codec, batch: Batch, framed: list[bytes]) -> None:
    """`batch` is whole, well counted, and holds exactly `framed`."""
    assert batch.count == len(framed)
    assert batch.size_bytes == sum(map(len, batch.parts)) == sum(map(len, framed))
    assert batch.joined() == b"".join(batch.parts) == b"".join(framed)
    assert codec.split(batch) == framed
    if not framed:
        assert batch == EMPTY


# -- strategies --------------------------------------------------------------------------------------------------

AWKWARD = b"\n\0\r\xffab"


def payloads_for(name: str, max_size: int = 30) -> st.SearchStrategy[bytes]:
    """Messages that the codec carries, rich in what could confuse it."""
    small = st.lists(st.sampled_from(AWKWARD), max_size=max_size).map(bytes)
    return st.one_of(small, st.binary(max_size=max_size)).map(lambda payload: clean(name, payload))


def clean(name: str, payload: bytes) -> bytes:
    match name:
        case "lines":
            return payload.replace(b"\n", b"\r")
        case "null":
            return payload.replace(b"\0", b"\r")
        case "raw":
            return payload or b"\0"
        case _:
            return payload


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=8)


@st.composite
def messages(draw: st.DrawFn, name: str) -> list[bytes]:
    """Few messages or thousands, short or long, evenly spread or not."""
    groups = draw(
        st.lists(
            st.tuples(
                payloads_for(name),
                st.sampled_from([0, 0, 0, 0, 100, 5000]),
                st.sampled_from([1, 1, 2, 17, 40, 1500]),
            ),
            max_size=6,
        )
    )
    return [
        payload + b"x" * padding for payload, padding, times in groups for _ in range(1 if padding > 999 else times)
    ]


@st.composite
def batches(draw: st.DrawFn, name: str) -> tuple[Batch, list[bytes]]:
    """A batch in several parts, cut anywhere (for `raw`: at the messages), and its messages as they are framed."""
    framed = [frame(name, payload) for payload in draw(messages(name))]
    data = b"".join(framed)
    if not framed:
        return EMPTY, framed
    if name == "raw":
        pieces = framed
    else:
        cuts = draw(st.lists(st.integers(0, len(data)), max_size=5))
        pieces = [data[start:end] for start, end in pairwise(sorted([0, *cuts, len(data)]))]
    as_views = draw(st.lists(st.booleans(), min_size=1, max_size=3))
    parts: list[Buffer] = [
        memoryview(b"[" + piece + b"]")[1:-1] if as_view else piece
        for piece, as_view in zip(pieces, cycle(as_views), strict=False)
    ]
    return Batch(tuple(parts), len(framed), len(data)), framed


every_codec = pytest.mark.parametrize("name", NAMES)
every_framed_codec = pytest.mark.parametrize("framed_name", FRAMED)


# -- one message -------------------------------------------------------------------------------------------------


@every_codec
@given(data=st.data())
def test_encode_frames_what_the_codec_carries_and_refuses_the_rest(data: st.DataObject, name: str) -> None:
    codec = codec_named(name)
    payload = data.draw(st.one_of(st.binary(max_size=20), st.lists(st.sampled_from(AWKWARD)).map(bytes)))
    for buffer in (payload, memoryview(payload)):
        if carries(name, payload):
            assert codec.encode(buffer) == frame(name, payload)
            assert codec.payload(codec.encode(buffer)) == payload
        else:
            with pytest.raises(CodecError, match=name) as caught:
                codec.encode(buffer)
            assert "length-prefixed" in str(caught.value.remedy)


@every_codec
@given(data=st.data())
def test_batch_of_takes_all_or_names_the_first_that_cannot_be_carried(data: st.DataObject, name: str) -> None:
    codec = codec_named(name)
    payloads = data.draw(st.lists(st.lists(st.sampled_from(AWKWARD), max_size=4).map(bytes), max_size=12))
    buffers = [memoryview(payload) if index % 2 else payload for index, payload in enumerate(payloads)]
    bad = [index for index, payload in enumerate(payloads) if not carries(name, payload)]
    if bad:
        with pytest.raises(CodecError) as caught:
            codec.batch_of(buffers)
        assert caught.value.index == bad[0]
    else:
        assert_batch(codec, codec.batch_of(buffers), [frame(name, payload) for payload in payloads])


# -- decoding ----------------------------------------------------------------------------------------------------


@every_framed_codec
@unhurried
@given(data=st.data())
def test_any_chunking_gives_the_messages_back_exact_and_in_order(data: st.DataObject, framed_name: str) -> None:
    codec = codec_named(framed_name)
    payloads = data.draw(messages(framed_name))
    stream = b"".join(frame(framed_name, payload) for payload in payloads)
    sizes = data.draw(st.one_of(SIZES, st.lists(st.integers(1, 20_000), min_size=1, max_size=8)))
    decoder = codec.decoder(ROOMY)
    seen: list[bytes] = []
    fed = 0
    for chunk in chunks(stream, sizes):
        batch = decoder.feed(chunk)
        framed = codec.split(batch)
        assert_batch(codec, batch, framed)
        seen += framed
        fed += len(chunk)
        assert decoder.pending_bytes == fed - sum(map(len, seen))
    assert decoder.finish(clean=True) == EMPTY
    assert [codec.payload(each) for each in seen] == payloads


@every_framed_codec
@unhurried
@given(data=st.data())
def test_whole_takes_whole_messages_and_nothing_else(data: st.DataObject, framed_name: str) -> None:
    codec = codec_named(framed_name)
    payloads = data.draw(messages(framed_name))
    stream = b"".join(frame(framed_name, payload) for payload in payloads)
    cut = data.draw(st.integers(0, len(stream)))
    ends = list(accumulate((len(frame(framed_name, payload)) for payload in payloads), initial=0))
    around = memoryview(b"?" + stream + b"?")
    if cut and cut in ends:
        batch = codec.whole(around[1 : 1 + cut], ROOMY)
        assert (batch.count, batch.size_bytes) == (ends.index(cut), cut)
        assert codec.payloads(batch) == payloads[: batch.count]
    elif cut:
        with pytest.raises(CodecError):
            codec.whole(around[1 : 1 + cut], ROOMY)
    if payloads and max(map(len, payloads)) > 1:
        with pytest.raises(CodecError):
            codec.whole(stream, max(map(len, payloads)) - 1)


@every_codec
@given(data=st.data())
def test_an_empty_read_changes_nothing(data: st.DataObject, name: str) -> None:
    codec = codec_named(name)
    decoder = codec.decoder(ROOMY)
    payload = data.draw(payloads_for(name))
    stream = frame(name, payload)
    cut = data.draw(st.integers(0, len(stream)))
    counts = [decoder.feed(chunk).count for chunk in (b"", stream[:cut], b"", stream[cut:], b"")]
    assert sum(counts) == (1 if codec.framed else (cut > 0) + (cut < len(stream)))
    assert [counts[0], counts[2], counts[4]] == [0, 0, 0]


@given(chunk_list=st.lists(st.binary(max_size=20), max_size=10), bound=st.integers(1, 25))
def test_raw_takes_each_read_as_a_message_and_cuts_it_at_the_bound(chunk_list: list[bytes], bound: int) -> None:
    codec = codec_named("raw")
    assert not codec.framed
    decoder = codec.decoder(bound)
    for chunk in chunk_list:
        batch = decoder.feed(chunk)
        assert_batch(codec, batch, [chunk[start : start + bound] for start in range(0, len(chunk), bound)])
        assert decoder.pending_bytes == 0
    assert decoder.finish(clean=True) == decoder.finish(clean=False) == decoder.rescued() == EMPTY


@every_framed_codec
@given(data=st.data())
def test_a_torn_message_is_dropped_after_a_death(data: st.DataObject, framed_name: str) -> None:
    codec = codec_named(framed_name)
    whole, torn = data.draw(payloads_for(framed_name)), data.draw(payloads_for(framed_name))
    beginning = frame(framed_name, torn)[: data.draw(st.integers(0, len(frame(framed_name, torn)) - 1))]
    decoder = codec.decoder(ROOMY)
    got = [
        each
        for chunk in chunks(frame(framed_name, whole) + beginning, data.draw(SIZES))
        for each in codec.split(decoder.feed(chunk))
    ]
    assert got == [frame(framed_name, whole)]
    assert decoder.pending_bytes == len(beginning)
    assert decoder.finish(clean=False) == EMPTY
    assert decoder.pending_bytes == 0
    assert decoder.finish(clean=True) == EMPTY


@pytest.mark.parametrize("delimited", ["lines", "null"])
@given(data=st.data())
def test_a_last_message_without_delimiter_counts_after_a_clean_end(data: st.DataObject, delimited: str) -> None:
    codec = codec_named(delimited)
    payload = data.draw(payloads_for(delimited).filter(bool))
    decoder = codec.decoder(len(payload))
    for chunk in chunks(payload, data.draw(SIZES)):
        assert decoder.feed(chunk) == EMPTY
    assert_batch(codec, decoder.finish(clean=True), [frame(delimited, payload)])
    assert decoder.pending_bytes == 0
    assert decoder.finish(clean=True) == EMPTY


@given(data=st.data())
def test_a_frame_cut_short_is_an_error_after_a_clean_end(data: st.DataObject) -> None:
    framed = frame("length-prefixed", data.draw(st.binary(max_size=20)))
    beginning = framed[: data.draw(st.integers(1, len(framed) - 1))]
    decoder = codec_named("length-prefixed").decoder(ROOMY)
    for chunk in chunks(beginning, data.draw(SIZES)):
        assert decoder.feed(chunk) == EMPTY
    with pytest.raises(CodecError, match="cut short") as caught:
        decoder.finish(clean=True)
    assert caught.value.index == 0
    assert decoder.rescued() == EMPTY
    assert decoder.pending_bytes == 0


# -- bounds ------------------------------------------------------------------------------------------------------


@every_framed_codec
@unhurried
@given(data=st.data(), bound=st.integers(1, 40))
def test_a_message_over_the_bound_is_an_error_that_rescues_the_good_ones(
    data: st.DataObject, bound: int, framed_name: str
) -> None:
    codec = codec_named(framed_name)
    good = data.draw(st.lists(payloads_for(framed_name, max_size=bound), max_size=30))
    bad = clean(framed_name, b"b" * (bound + 1) + data.draw(st.binary(max_size=60)))
    after = data.draw(st.lists(payloads_for(framed_name), max_size=5))
    stream = b"".join(frame(framed_name, payload) for payload in (*good, bad, *after))
    decoder = codec.decoder(bound)
    seen: list[bytes] = []

    def feed_all() -> None:
        for chunk in chunks(stream, data.draw(SIZES)):
            seen.extend(codec.split(decoder.feed(chunk)))
            assert decoder.pending_bytes <= bound + PREFIX_BYTES

    with pytest.raises(CodecError, match="max_message") as caught:
        feed_all()
    rescued = decoder.rescued()
    assert caught.value.index == rescued.count
    assert_batch(codec, rescued, codec.split(rescued))
    assert seen + codec.split(rescued) == [frame(framed_name, payload) for payload in good]
    assert decoder.pending_bytes <= bound + PREFIX_BYTES


@every_framed_codec
@given(data=st.data(), bound=st.integers(1, 40))
def test_messages_of_exactly_the_bound_pass(data: st.DataObject, bound: int, framed_name: str) -> None:
    codec = codec_named(framed_name)
    stream = frame(framed_name, b"b" * bound) * 7
    decoder = codec.decoder(bound)
    assert sum(decoder.feed(chunk).count for chunk in chunks(stream, data.draw(SIZES))) == 7
    assert decoder.rescued() == EMPTY


@pytest.mark.parametrize("delimited", ["lines", "null"])
def test_an_endless_message_is_refused_when_the_bound_is_passed(delimited: str) -> None:
    decoder = codec_named(delimited).decoder(10_000)
    for _ in range(10):
        assert decoder.feed(b"x" * 1000) == EMPTY
    assert decoder.pending_bytes == 10_000
    with pytest.raises(CodecError, match=r"xxxx.* is longer than max_message") as caught:
        decoder.feed(b"x")
    assert caught.value.index == 0
    assert decoder.pending_bytes == 0


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_a_prefix_of_four_gibibytes_is_refused_at_once(size: int) -> None:
    decoder = codec_named("length-prefixed").decoder(ROOMY)
    fed = 0
    with pytest.raises(CodecError, match=r"4,294,967,295 bytes is longer than max_message \(1\.0 MiB\)"):
        for chunk in chunks(b"\xff" * 100, [size]):
            decoder.feed(chunk)
            fed += len(chunk)
    assert fed < PREFIX_BYTES
    assert decoder.pending_bytes <= PREFIX_BYTES


# -- cutting -----------------------------------------------------------------------------------------------------


@every_codec
@unhurried
@given(data=st.data())
def test_skip_splits_after_exactly_that_many_messages(data: st.DataObject, name: str) -> None:
    codec = codec_named(name)
    batch, framed = data.draw(batches(name))
    assert_batch(codec, batch, framed)
    count = data.draw(st.integers(0, len(framed)))
    head, rest = codec.skip(batch, count)
    assert_batch(codec, head, framed[:count])
    assert_batch(codec, rest, framed[count:])


@every_codec
@unhurried
@given(data=st.data())
def test_locate_finds_the_last_whole_message_before_an_offset(data: st.DataObject, name: str) -> None:
    codec = codec_named(name)
    batch, framed = data.draw(batches(name))
    ends = list(accumulate(map(len, framed), initial=0))
    near_an_end = st.builds(
        lambda end, off: min(max(end + off, 0), batch.size_bytes), st.sampled_from(ends), st.integers(-2, 2)
    )
    offset = data.draw(st.one_of(st.integers(0, batch.size_bytes), near_an_end))
    count = max(index for index, end in enumerate(ends) if end <= offset)
    assert codec.locate(batch, offset) == (count, ends[count])


@every_codec
@unhurried
@given(data=st.data())
def test_cut_takes_as_much_as_both_bounds_allow(data: st.DataObject, name: str) -> None:
    codec = codec_named(name)
    batch, framed = data.draw(batches(name))
    most_bytes = data.draw(st.integers(0, batch.size_bytes + 10))
    most_messages = data.draw(st.integers(1, len(framed) + 10))
    ends = list(accumulate(map(len, framed), initial=0))
    fitting = max(index for index, end in enumerate(ends) if end <= most_bytes)
    count = min(len(framed), max(min(fitting, most_messages), 1))
    head, rest = codec.cut(batch, most_bytes=most_bytes, most_messages=most_messages)
    assert_batch(codec, head, framed[:count])
    assert_batch(codec, rest, framed[count:])


@every_codec
@unhurried
@given(data=st.data())
def test_halves_are_as_good_as_any_batch(data: st.DataObject, name: str) -> None:
    codec = codec_named(name)
    rest, framed = data.draw(batches(name))
    assume(len(framed) < 200)
    most_bytes, most_messages = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 20))
    seen: list[bytes] = []
    while rest.count:
        head, rest = codec.cut(rest, most_bytes=most_bytes, most_messages=most_messages)
        assert 1 <= head.count <= most_messages
        assert head.size_bytes <= most_bytes or head.count == 1
        seen += codec.split(head)
    assert seen == framed


# -- conversion --------------------------------------------------------------------------------------------------


def convert(source: str, target: str) -> Callable[[Batch], Batch]:
    function = converter(codec_named(source), codec_named(target))
    assert function is not None
    return function


@every_framed_codec
@pytest.mark.parametrize("target_name", FRAMED)
@unhurried
@given(data=st.data())
def test_conversion_keeps_each_message_or_names_the_first_it_cannot(
    data: st.DataObject, framed_name: str, target_name: str
) -> None:
    if framed_name == target_name:
        assert converter(codec_named(framed_name), codec_named(target_name)) is None
        return
    source, target = codec_named(framed_name), codec_named(target_name)
    batch, framed = data.draw(batches(framed_name))
    payloads = [source.payload(each) for each in framed]
    bad = [index for index, payload in enumerate(payloads) if not carries(target_name, payload)]
    there = convert(framed_name, target_name)
    if bad:
        with pytest.raises(CodecError, match=target_name) as caught:
            there(batch)
        assert caught.value.index == bad[0]
        batch, _ = source.skip(batch, bad[0])
        framed = framed[: bad[0]]
    converted = there(batch)
    assert_batch(target, converted, [frame(target_name, payload) for payload in payloads[: len(framed)]])
    assert_batch(source, convert(target_name, framed_name)(converted), framed)


@every_framed_codec
def test_raw_is_never_converted(framed_name: str) -> None:
    raw, framed = codec_named("raw"), codec_named(framed_name)
    assert converter(raw, raw) is None
    for source, target in ((raw, framed), (framed, raw)):
        with pytest.raises(CodecError, match=f'from "{source.name}" to "{target.name}"'):
            converter(source, target)
