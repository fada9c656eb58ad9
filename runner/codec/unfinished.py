"""The bytes of a message whose end has not been read yet."""

from __future__ import annotations

from runner.errors import CodecError
from runner.units import format_size

_MERGE_BELOW_BYTES = 64 * 1024
SHOWN_BYTES = 40
"""How much of a message an error shows."""


class Unfinished:
    """What was read of one message so far, in `size_bytes` bytes.

    Adding is linear however small the pieces are, and never looks at earlier bytes again. Small pieces are merged, as
    a list of single bytes would take forty times their size; large ones are kept as they are.
    """

    __slots__ = ("_chunks", "_small", "size_bytes")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._small = bytearray()
        self.size_bytes = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self.size_bytes += len(data)
        if len(data) < _MERGE_BELOW_BYTES:
            self._small += data
            if len(self._small) >= _MERGE_BELOW_BYTES:
                self._flush()
        else:
            self._flush()
            self._chunks.append(data)

    def take(self) -> tuple[bytes, ...]:
        """All bytes, in order, as few objects; nothing is held afterwards."""
        self._flush()
        chunks = tuple(self._chunks)
        self._chunks.clear()
        self.size_bytes = 0
        return chunks

    def beginning(self) -> bytes:
        """The first bytes, as many as an error shows; nothing is held afterwards."""
        return b"".join(chunk[:SHOWN_BYTES] for chunk in self.take())[:SHOWN_BYTES]

    def _flush(self) -> None:
        if self._small:
            self._chunks.append(bytes(self._small))
            self._small.clear()


def too_long(max_message_bytes: int, *, index: int, beginning: bytes, size_bytes: int | None = None) -> CodecError:
    """The error for a message over the bound; `size_bytes` is None where only the bound is known to be passed."""
    size = "a message" if size_bytes is None else f"a message of {size_bytes:,} bytes"
    begins = f", beginning {beginning[:SHOWN_BYTES]!r}," if beginning else ""
    return CodecError(
        f"{size}{begins} is longer than max_message ({format_size(max_message_bytes)})",
        index=index,
        remedy="raise max_message, or check that the program writes what its codec says",
    )
