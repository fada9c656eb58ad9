"""How frames lie in a stream of bytes: what goes before each, and where each ends. No bytes are moved here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from runner.channel.link.transport import DownError
from runner.codec.base import Buffer

_LENGTH_BYTES = 4


class EndedError(DownError):
    """No more frames come: the other side has ended, or what it sends is none.

    `words` are to be sent to it yet (empty: nothing). `heard`: it waits for nothing else and says nothing more.
    """

    def __init__(self, why: str, words: bytes = b"", *, heard: bool = False) -> None:
        super().__init__(why)
        self.words = words
        self.heard = heard


class Framing(ABC):
    """One connection's. `head` is called first; when it has given a length, `short` or `long` with so many bytes."""

    most_head_bytes: int
    """The longest head that a frame of the other side may have."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], None] = lambda _words: None
        """Called with what is to be sent between frames; the connection sets it."""

    @abstractmethod
    def begun(self, parts: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """What is sent for a frame of `parts`."""

    @abstractmethod
    def head(self, buffer: bytearray, start: int, end: int) -> tuple[int, int] | None:
        """Of the frame that begins at `start` in `buffer`, filled up to `end`: bytes of its head, and behind that.

        None: not so much has come that one can tell; it may be called for the same frame again. Raises EndedError.
        """

    @abstractmethod
    def short(self, body: memoryview) -> Buffer | None:
        """What came in one frame, copied out of `body`; None: nothing for who receives frames. Raises EndedError."""

    @abstractmethod
    def long(self, body: Sequence[Buffer]) -> Buffer | None:
        """As `short`, of a frame in pieces that nobody else has."""

    def farewell(self) -> bytes:
        """What is said when all is sent; the other side then ends. Empty: nothing, the connection just ends."""
        return b""


class Lengths(Framing):
    """Each frame after its length."""

    most_head_bytes = _LENGTH_BYTES

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most_bytes = most_bytes

    def begun(self, parts: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """See `Framing`."""
        return (sum(map(len, parts)).to_bytes(_LENGTH_BYTES, "big"), *parts)

    def head(self, buffer: bytearray, start: int, end: int) -> tuple[int, int] | None:
        """See `Framing`."""
        if end - start < _LENGTH_BYTES:
            return None
        length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
        if length > self._most_bytes:
            raise EndedError(too_long(length, self._most_bytes))
        return _LENGTH_BYTES, length

    def short(self, body: memoryview) -> Buffer | None:
        """See `Framing`."""
        return bytes(body)

    def long(self, body: Sequence[Buffer]) -> Buffer | None:
        """See `Framing`."""
        return body[0] if len(body) == 1 else b"".join(body)


def too_long(length: int, most_bytes: int) -> str:
    """Why a connection ends, over a frame that is not read."""
    return f"it sends a frame of {length:,} bytes, and {most_bytes:,} are allowed"
