"""Codecs of frames that say how long they are: a batch is gone through from its beginning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from runner.codec.base import EMPTY, Batch, Codec
from runner.codec.parts import divide


class FramedCodec(Codec):
    """See the module."""

    @abstractmethod
    def ends(self, batch: Batch) -> Iterator[int]:
        """Where each frame of `batch` ends, counted from its first byte."""

    def split(self, batch: Batch) -> list[bytes]:
        """The frames of `batch`."""
        data = batch.joined()
        framed = []
        start = 0
        for end in self.ends(Batch((data,), batch.count, len(data))):
            framed.append(data[start:end])
            start = end
        return framed

    def cut(self, batch: Batch, *, most_bytes: int, most_messages: int) -> tuple[Batch, Batch]:
        """Split `batch` in a head within both bounds (but at least one message), and the rest."""
        if batch.count <= most_messages and batch.size_bytes <= most_bytes:
            return batch, EMPTY
        messages = size_bytes = 0
        for end in self.ends(batch):
            if messages and (end > most_bytes or messages == most_messages):
                break
            messages += 1
            size_bytes = end
        return divide(batch, messages, size_bytes)

    def skip(self, batch: Batch, messages: int) -> tuple[Batch, Batch]:
        """Split after exactly `messages` messages."""
        size_bytes = 0
        if 0 < messages < batch.count:
            for _, size_bytes in zip(range(messages), self.ends(batch), strict=False):  # noqa: B007  (the last one counts)
                pass
        return divide(batch, messages, size_bytes)

    def locate(self, batch: Batch, offset: int) -> tuple[int, int]:
        """Where byte `offset` lies: (whole messages that end at or before it, their bytes)."""
        if offset >= batch.size_bytes:
            return batch.count, batch.size_bytes
        messages = size_bytes = 0
        for end in self.ends(batch):
            if end > offset:
                break
            messages += 1
            size_bytes = end
        return messages, size_bytes
