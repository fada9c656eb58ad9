"""What the contract's suite cannot say about frames with a length in front."""

from __future__ import annotations

import pytest

from runner.codec.length_prefixed import LENGTH_PREFIXED
from runner.errors import CodecError


class FourGibibytes(bytes):
    """A payload that says it is too long for the prefix."""

    def __len__(self) -> int:
        return 2**32


def test_the_prefix_is_four_bytes_big_endian() -> None:
    assert LENGTH_PREFIXED.encode(b"x" * 258) == b"\0\0\1\2" + b"x" * 258
    assert LENGTH_PREFIXED.encode(b"") == b"\0\0\0\0"


def test_a_payload_of_four_gibibytes_is_refused() -> None:
    with pytest.raises(CodecError, match="4,294,967,296 bytes"):
        LENGTH_PREFIXED.encode(FourGibibytes())
    with pytest.raises(CodecError) as caught:
        LENGTH_PREFIXED.batch_of([b"", b"a", FourGibibytes()])
    assert caught.value.index == 2


def test_a_long_frame_in_tiny_reads_is_held_as_few_parts() -> None:
    payload = bytes(range(256)) * 1000
    framed = LENGTH_PREFIXED.encode(payload)
    decoder = LENGTH_PREFIXED.decoder(len(payload))
    for start in range(0, len(framed) - 3, 3):
        assert decoder.feed(framed[start : start + 3]).count == 0
        assert decoder.pending_bytes == start + 3
    batch = decoder.feed(framed[decoder.pending_bytes :])
    assert batch.joined() == framed
    assert len(batch.parts) <= len(framed) // (64 * 1024) + 2


@pytest.mark.parametrize(("held", "said"), [(3, "after 3 bytes"), (10, "after 10 of 24 bytes")])
def test_a_frame_cut_short_says_how_short(held: int, said: str) -> None:
    decoder = LENGTH_PREFIXED.decoder(100)
    decoder.feed(LENGTH_PREFIXED.encode(b"whole") + LENGTH_PREFIXED.encode(b"x" * 20)[:held])
    with pytest.raises(CodecError, match=said):
        decoder.finish(clean=True)
