"""The codec `length-prefixed`: four bytes with the length of the payload (big-endian, unsigned), then the payload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

from runner.codec.base import EMPTY, Batch, Buffer, Decoder
from runner.codec.framed import FramedCodec
from runner.codec.parts import slice_of
from runner.codec.unfinished import Unfinished, too_long
from runner.errors import CodecError

_PREFIX = Struct(">I")
_PREFIX_BYTES = _PREFIX.size
_MOST_PAYLOAD_BYTES = 2**32 - 1


class LengthPrefixedCodec(FramedCodec):
    """Carries any payload below 4 GiB."""

    name = "length-prefixed"

    def decoder(self, max_message_bytes: int) -> Decoder:
        """A fresh decoder for one stream."""
        return LengthPrefixedDecoder(max_message_bytes)

    def encode(self, payload: Buffer) -> bytes:
        """The length and `payload`. Raises CodecError for 4 GiB and more."""
        return _prefix(payload, 0) + payload

    def batch_of(self, payloads: Sequence[Buffer]) -> Batch:
        """A batch of `payloads`. Raises CodecError with `index` set to the first of 4 GiB and more."""
        if not payloads:
            return EMPTY
        pieces: list[Buffer] = []
        for index, payload in enumerate(payloads):
            pieces += (_prefix(payload, index), payload)
        data = b"".join(pieces)
        return Batch((data,), len(payloads), len(data))

    def payload(self, framed: bytes) -> bytes:
        """`framed` without its prefix."""
        return framed[_PREFIX_BYTES:]

    def ends(self, batch: Batch) -> Iterator[int]:
        """See `FramedCodec`."""
        unpack = _PREFIX.unpack_from
        base = 0  # where the part begins
        start = 0  # where the next frame begins
        torn = b""  # the beginning of a prefix that goes on in the next part
        for part in batch.parts:
            if torn:
                missing = _PREFIX_BYTES - len(torn)
                torn += part[:missing]
                if len(torn) == _PREFIX_BYTES:
                    start += _PREFIX_BYTES + _PREFIX.unpack(torn)[0]
                    torn = b""
                    yield start
            stop = base + len(part)
            while not torn and start + _PREFIX_BYTES <= stop:
                start += _PREFIX_BYTES + unpack(part, start - base)[0]
                yield start
            if not torn and start < stop:
                torn = bytes(part[start - base :])
            base = stop


class LengthPrefixedDecoder(Decoder):
    """One stream of frames. A frame that is announced as too long is refused before any of it is kept."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._unfinished = Unfinished()
        self._frame_bytes: int | None = None
        """How long the unfinished frame will be, its prefix counted; None until its prefix has been read."""
        self._rescued = EMPTY

    def feed(self, data: bytes) -> Batch:
        """Take `data` and return the messages that are whole now."""
        start = 0
        if self._unfinished.size_bytes and self._frame_bytes is None:
            start = self._complete_prefix(data)
            if self._frame_bytes is None:
                return EMPTY
        end = start
        count = 0
        if self._frame_bytes is not None:
            end = start + self._frame_bytes - self._unfinished.size_bytes
            if end > len(data):
                self._unfinished.add(data[start:])
                return EMPTY
            count = 1
        return self._walk(data, start, end, count)

    def _complete_prefix(self, data: bytes) -> int:
        """Take from `data` what is missing of the held prefix; returns where the rest of `data` begins."""
        start = _PREFIX_BYTES - self._unfinished.size_bytes
        self._unfinished.add(data[:start])
        if self._unfinished.size_bytes == _PREFIX_BYTES:
            (prefix,) = self._unfinished.take()
            (length,) = _PREFIX.unpack(prefix)
            self._check_length(length, EMPTY)
            self._frame_bytes = _PREFIX_BYTES + length
            self._unfinished.add(prefix)
        return start

    def _walk(self, data: bytes, start: int, end: int, count: int) -> Batch:
        """Find the frames of `data` behind `end`, where `count` (0 or 1) held frames end; keep the rest of it."""
        unpack = _PREFIX.unpack_from
        most = self._max_message_bytes
        last_prefix = len(data) - _PREFIX_BYTES
        self._frame_bytes = None
        while end <= last_prefix:
            (length,) = unpack(data, end)
            if length > most:
                self._check_length(length, self._batch(data, start, end, count))
            after = end + _PREFIX_BYTES + length
            if after > len(data):
                self._frame_bytes = _PREFIX_BYTES + length
                break
            end = after
            count += 1
        batch = self._batch(data, start, end, count)
        if end < len(data):
            self._unfinished.add(data[end:])
        return batch

    def _batch(self, data: bytes, start: int, end: int, count: int) -> Batch:
        """What is held and `data` from `start` to `end`, as `count` frames."""
        if not count:
            return EMPTY
        size_bytes = self._unfinished.size_bytes + end - start
        held = self._unfinished.take()
        if start == end:
            return Batch(held, count, size_bytes)
        return Batch((*held, slice_of(data, start, end)), count, size_bytes)

    def _check_length(self, length: int, before: Batch) -> None:
        """Raise CodecError when `length` is over the bound, with `before` as the messages that are rescued."""
        if length > self._max_message_bytes:
            self._rescued = before
            raise too_long(self._max_message_bytes, index=before.count, beginning=b"", size_bytes=length)

    def rescued(self) -> Batch:
        """The whole messages that came before the error."""
        return self._rescued

    def finish(self, *, clean: bool) -> Batch:
        """Always `EMPTY`. Raises CodecError when `clean` and a frame has begun and not ended."""
        held = self._unfinished.size_bytes
        announced = self._frame_bytes
        self._unfinished.take()
        self._frame_bytes = None
        if clean and held:
            whole = "" if announced is None else f" of {announced:,}"
            raise CodecError(
                f"the last frame was cut short: the stream ended after {held:,}{whole} bytes of it",
                remedy="let the program write each frame as a whole and flush before it ends",
            )
        return EMPTY

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished message are held."""
        return self._unfinished.size_bytes


def _prefix(payload: Buffer, index: int) -> bytes:
    """The prefix of `payload`. Raises CodecError with `index` for 4 GiB and more."""
    if len(payload) > _MOST_PAYLOAD_BYTES:
        raise CodecError(f'a message of {len(payload):,} bytes cannot be sent as "length-prefixed"', index=index)
    return _PREFIX.pack(len(payload))


LENGTH_PREFIXED = LengthPrefixedCodec()
