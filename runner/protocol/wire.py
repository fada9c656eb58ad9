"""How frames are carried: one after the other (stdio), or as ZeroMQ messages of one or two parts.

Both sides of a session know nothing of it but through a `Wire`; what is written and read are bytes in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from runner.protocol import zmtp
from runner.protocol.decoder import Decoder
from runner.protocol.errors import ProtocolError
from runner.protocol.frames import MOST_HEADER_BYTES, Buffer, Frame


class FrameDecoder(Protocol):
    """See `Decoder`."""

    def feed(self, data: bytes) -> list[Frame]:
        """See `Decoder`."""

    def rescued(self) -> list[Frame]:
        """See `Decoder`."""

    def finish(self) -> None:
        """See `Decoder`."""


class MessageDecoder:
    """Like `Decoder`, for the bytes of a ZeroMQ socket behind its handshake. `pongs` answer what its library asks."""

    def __init__(self, ports: Collection[str], max_payload_bytes: int) -> None:
        self._decoder = Decoder(ports, max_payload_bytes)
        self._max_payload_bytes = max_payload_bytes
        self._splitter = zmtp.Splitter(MOST_HEADER_BYTES - 1, max_payload_bytes)
        self._rescued: list[Frame] = []

    @property
    def pongs(self) -> list[bytes]:
        """See `Splitter`."""
        return self._splitter.pongs

    def feed(self, data: bytes) -> list[Frame]:
        """See `Decoder`. Raises ProtocolError."""
        found: list[Frame] = []
        try:
            for parts in self._splitter.feed(data):
                found.append(self._decoder.message(parts))  # noqa: PERF401 - what is good before an error is kept
        except ProtocolError:
            self._rescued = found
            raise
        except zmtp.PeerError as error:
            self._rescued = found
            raise self._wrong(error) from None
        return found

    def _wrong(self, error: zmtp.PeerError) -> ProtocolError:
        code = "bad-header"
        what = f"{error} is no frame"
        if isinstance(error, zmtp.TooLongError):
            code = "payload-too-long" if error.part else "header-too-long"
            most = self._max_payload_bytes if error.part else MOST_HEADER_BYTES - 1
            what = f"part {error.part + 1} of a message has {error.size_bytes:,} bytes, at most {most:,} are allowed"
        return ProtocolError(code, what, frame=self._decoder.frames + 1)

    def rescued(self) -> list[Frame]:
        """See `Decoder`."""
        return self._rescued

    def finish(self) -> None:
        """See `Decoder`. Raises ProtocolError."""
        if self._splitter.unfinished:
            frame = self._decoder.frames + 1
            raise ProtocolError("cut-short", "its connection ends within a message", frame=frame)


@dataclass(frozen=True, slots=True)
class Wire:
    """One way of carrying frames.

    `decoder` makes what reads those of a program (its ports, the longest payload). `pairs` takes headers with their
    payloads, in turns, `alone` headers without any; both as `encoder` makes them, and return what is to be written.
    """

    decoder: Callable[[Collection[str], int], FrameDecoder]
    pairs: Callable[[list[Buffer]], list[Buffer]]
    alone: Callable[[list[Buffer]], list[Buffer]]


def _as_they_are(parts: list[Buffer]) -> list[Buffer]:
    return parts


def _as_two_parts(parts: list[Buffer]) -> list[Buffer]:
    made: list[Buffer] = []
    head, more = zmtp.head, zmtp.MORE
    for header, payload in zip(parts[::2], parts[1::2], strict=True):
        made += (b"".join((head(len(header) - 1, more), header[:-1], head(len(payload)))), payload)
    return made


def _as_one_part(parts: list[Buffer]) -> list[Buffer]:
    return [b"".join((zmtp.head(len(header) - 1), header[:-1])) for header in parts]


STDIO = Wire(Decoder, _as_they_are, _as_they_are)
ZEROMQ = Wire(MessageDecoder, _as_two_parts, _as_one_part)
