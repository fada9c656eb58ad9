"""The codec `raw`: whatever one read returned is one message, and each part of a batch is one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from runner.codec.base import EMPTY, Batch, Buffer, Codec, Decoder
from runner.codec.parts import divide
from runner.errors import CodecError


class RawCodec(Codec):
    """No framing: the parts of a batch are its messages, and none is empty."""

    name = "raw"
    framed = False

    def decoder(self, max_message_bytes: int) -> Decoder:
        """A fresh decoder for one stream."""
        return RawDecoder(max_message_bytes)

    def encode(self, payload: Buffer) -> bytes:
        """`payload` itself. Raises CodecError for an empty one, as nothing would be written."""
        if not payload:
            raise _no_empty_message(0)
        return bytes(payload)

    def batch_of(self, payloads: Sequence[Buffer]) -> Batch:
        """A batch of `payloads`, one part each. Raises CodecError with `index` set to the first that is empty."""
        if not payloads:
            return EMPTY
        if not all(payloads):
            raise _no_empty_message(next(index for index, payload in enumerate(payloads) if not payload))
        return Batch(tuple(payloads), len(payloads), sum(map(len, payloads)))

    def split(self, batch: Batch) -> list[bytes]:
        """The parts of `batch`."""
        return [bytes(part) for part in batch.parts]

    def payload(self, framed: bytes) -> bytes:
        """`framed` itself."""
        return framed

    def cut(self, batch: Batch, *, most_bytes: int, most_messages: int) -> tuple[Batch, Batch]:
        """Split `batch` in a head within both bounds (but at least one part), and the rest."""
        messages, _ = self.locate(batch, most_bytes)
        return self.skip(batch, max(min(messages, most_messages), 1))

    def skip(self, batch: Batch, messages: int) -> tuple[Batch, Batch]:
        """Split after exactly `messages` parts."""
        return divide(batch, messages, sum(map(len, batch.parts[:messages])))

    def locate(self, batch: Batch, offset: int) -> tuple[int, int]:
        """Where byte `offset` lies: (whole parts that end at or before it, their bytes)."""
        ends = list(accumulate(map(len, batch.parts), initial=0))
        messages = bisect_right(ends, offset) - 1
        return messages, ends[messages]


class RawDecoder(Decoder):
    """One stream of chunks; nothing is ever held."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes

    def feed(self, data: bytes) -> Batch:
        """`data` as one message, or as several when it is longer than the bound; `EMPTY` when there is none."""
        most = self._max_message_bytes
        if not data:
            return EMPTY
        if len(data) <= most:
            return Batch((data,), 1, len(data))
        view = memoryview(data)
        parts = tuple(view[start : start + most] for start in range(0, len(data), most))
        return Batch(parts, len(parts), len(data))

    def rescued(self) -> Batch:
        """Always `EMPTY`: no bytes are wrong here."""
        return EMPTY

    def finish(self, *, clean: bool) -> Batch:  # noqa: ARG002  (nothing is left over, however the stream ended)
        """Always `EMPTY`: every chunk was a message when it came."""
        return EMPTY

    @property
    def pending_bytes(self) -> int:
        """Always 0."""
        return 0


def _no_empty_message(index: int) -> CodecError:
    return CodecError(
        'an empty message cannot be sent as "raw", as nothing would be written',
        index=index,
        remedy='use codec = "length-prefixed", which carries any bytes',
    )


RAW = RawCodec()
