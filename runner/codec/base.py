"""The codec contract: bytes to messages and back.

A codec is a stateless description of one framing; `decoder()` makes the state for one stream of bytes. Messages move
in a `Batch`: whole messages, still framed, as the bytes that were read. Nothing looks for message boundaries unless
somebody asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from runner.errors import CodecError, RunnerError
from runner.units import format_count

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole framed messages: the bytes in `parts` (in order), `count` messages in `size_bytes` bytes.

    Parts are never changed after the batch is made, so that readers can share them. A part may begin or end in the
    middle of a message; the batch does not.
    """

    parts: tuple[Buffer, ...]
    count: int
    size_bytes: int

    def joined(self) -> bytes:
        """All bytes as one object; copies unless there is a single part that is `bytes`."""
        if len(self.parts) == 1 and isinstance(self.parts[0], bytes):
            return self.parts[0]
        return b"".join(self.parts)


EMPTY = Batch((), 0, 0)
MERGED_BYTES = 4096
"""Up to here batches that wait together are made one: tiny ones would take many times their bytes."""


class Decoder(ABC):
    """The state of one stream: what was read and is not yet a whole message.

    It holds at most one unfinished message, which is at most `max_message_bytes` long, plus one read.
    """

    @abstractmethod
    def feed(self, data: bytes) -> Batch:
        """Take `data` as it was read (any cut) and return the messages that are whole now (`EMPTY` when none is).

        Raises CodecError for a message longer than `max_message_bytes` (payload bytes, framing not counted) or bytes
        in which the codec cannot find its place; its `index` is the number of whole good messages before it in this
        call, and `rescued()` returns them. After an error the decoder is not fed again.
        """

    @abstractmethod
    def rescued(self) -> Batch:
        """The whole messages that came before the error that `feed` or `finish` raised; `EMPTY` when there are none."""

    @abstractmethod
    def finish(self, *, clean: bool) -> Batch:
        """The stream has ended. What is left over is a last message where the codec allows it, and torn otherwise.

        With `clean` (exit 0) a last `lines` message without a newline counts and gets one. Without `clean` whatever is
        left is dropped. Raises CodecError when `clean` and the rest is no message (a frame cut short).
        """

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished message are held."""


class Codec(ABC):
    """One framing. Instances are stateless and shared."""

    name: str
    """As in the pipeline file."""
    framed: bool = True
    """False for `raw`: a chunk is a message; such messages are not merged, shared, converted or answered."""

    @abstractmethod
    def decoder(self, max_message_bytes: int) -> Decoder:
        """A fresh decoder for one stream."""

    def whole(self, data: Buffer, max_message_bytes: int) -> Batch:
        """`data`, which is whole framed messages and nothing else, as a batch.

        Raises CodecError where it is not. The bytes may be shared: they are never changed after this.
        """
        decoder = self.decoder(max_message_bytes)
        batch = decoder.feed(bytes(data))
        if decoder.pending_bytes:
            raise CodecError(f"{format_count(decoder.pending_bytes, 'byte')} are no whole message")
        return batch

    @abstractmethod
    def encode(self, payload: Buffer) -> bytes:
        """One framed message. Raises CodecError when this framing cannot carry `payload`."""

    @abstractmethod
    def split(self, batch: Batch) -> list[bytes]:
        """The framed messages of `batch`, one by one; concatenated they are its bytes. `len()` is `batch.count`."""

    @abstractmethod
    def payload(self, framed: bytes) -> bytes:
        """The message inside of one framed message (from `split`)."""

    def payloads(self, batch: Batch) -> list[bytes]:
        """The messages of `batch`, one by one, without their framing."""
        return [self.payload(framed) for framed in self.split(batch)]

    @abstractmethod
    def cut(self, batch: Batch, *, most_bytes: int, most_messages: int) -> tuple[Batch, Batch]:
        """Split `batch` in two: a head of whole messages within both bounds, and the rest.

        The head has at least one message even when that is longer than `most_bytes`; `most_messages` is at least 1.
        Either half may be the whole (the other is `EMPTY`). Bytes are shared, not copied, where possible.
        """

    @abstractmethod
    def skip(self, batch: Batch, messages: int) -> tuple[Batch, Batch]:
        """Split after exactly `messages` messages (0 to `batch.count`): (those, the rest)."""

    @abstractmethod
    def locate(self, batch: Batch, offset: int) -> tuple[int, int]:
        """Where byte `offset` (0 to `size_bytes`) lies: (whole messages that end at or before it, their bytes)."""

    def merge(self, first: Batch, second: Batch) -> Batch:
        """Both as one; for small ones, as it copies."""
        parts: tuple[Buffer, ...] = (*first.parts, *second.parts)
        if self.framed:
            parts = (b"".join(parts),)
        return Batch(parts, first.count + second.count, first.size_bytes + second.size_bytes)

    def batch_of(self, payloads: Sequence[Buffer]) -> Batch:
        """A batch of `payloads`. Raises CodecError with `index` set to the first that cannot be carried."""
        framed = []
        for index, payload in enumerate(payloads):
            try:
                framed.append(self.encode(payload))
            except RunnerError as error:
                error.index = index  # type: ignore[attr-defined]
                raise
        data = b"".join(framed)
        return Batch((data,), len(framed), len(data)) if framed else EMPTY
