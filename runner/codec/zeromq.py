"""The codec `zeromq`: messages of one part, framed as in ZMTP 3, so that a connection of ZeroMQ is a stream of them.

https://rfc.zeromq.org/spec/37/: a byte of flags, the length in one byte or in eight, the body. It is what `bridge =
"zeromq"` gives its ports; no pipeline asks for it by name. What is between messages (a ping of the library) is taken
out of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from struct import Struct

from runner.codec.base import EMPTY, Batch, Buffer, Decoder
from runner.codec.framed import FramedCodec
from runner.codec.parts import slice_of
from runner.codec.unfinished import Unfinished, too_long
from runner.errors import CodecError

_LONG, _COMMAND = 2, 4
_MOST_COMMAND_BYTES = 4096
_MOST_PINGS = 8
_LONGEST_SHORT_BYTES = 255
_LONG_HEAD = Struct(">BQ")
_LENGTH = Struct(">Q")
_HEADS = tuple(bytes((0, length)) for length in range(256))
_ONE_PART = "send each message as one part (no SNDMORE): a message of the pipeline has no parts"


class ZeromqCodec(FramedCodec):
    """Carries any payload; without `empty_too` none that is empty, as that is what means the end."""

    def __init__(self, name: str, *, empty_too: bool = True) -> None:
        self.name = name
        self._empty_too = empty_too

    def decoder(self, max_message_bytes: int) -> ZeromqDecoder:
        """A fresh decoder for one stream."""
        return ZeromqDecoder(max_message_bytes)

    def encode(self, payload: Buffer) -> bytes:
        """`payload` as one frame. Raises CodecError for an empty one where that means the end."""
        if not payload and not self._empty_too:
            raise _no_empty_message(0)
        return _head(payload) + payload

    def batch_of(self, payloads: Sequence[Buffer]) -> Batch:
        """A batch of `payloads`. Raises CodecError with `index` set to the first that cannot be carried."""
        if not payloads:
            return EMPTY
        if not self._empty_too and not all(payloads):
            raise _no_empty_message(next(index for index, payload in enumerate(payloads) if not payload))
        try:
            heads = [_HEADS[size_bytes] for size_bytes in map(len, payloads)]
        except IndexError:
            heads = [_head(payload) for payload in payloads]
        data = b"".join(chain.from_iterable(zip(heads, payloads, strict=True)))
        return Batch((data,), len(payloads), len(data))

    def payload(self, framed: bytes) -> bytes:
        """`framed` without its head."""
        return framed[_LONG_HEAD.size if framed[0] & _LONG else 2 :]

    def payloads(self, batch: Batch) -> list[bytes]:
        """The messages of `batch`."""
        data = batch.joined()
        found = []
        at, size_bytes = 0, len(data)
        while at < size_bytes:
            if data[at]:
                begin = at + 9
                at = begin + _LENGTH.unpack_from(data, at + 1)[0]
            else:
                begin = at + 2
                at = begin + data[at + 1]
            found.append(data[begin:at])
        return found

    def ends(self, batch: Batch) -> Iterator[int]:
        """See `FramedCodec`."""
        data = _bytes(batch)
        end, size_bytes = 0, len(data)
        while end < size_bytes:
            end += 9 + _LENGTH.unpack_from(data, end + 1)[0] if data[end] else 2 + data[end + 1]
            yield end


class ZeromqDecoder(Decoder):
    """One connection behind its handshake. What is announced as too long is refused before any of it is kept."""

    def __init__(self, max_message_bytes: int) -> None:
        self.pings: list[bytes] = []
        """The bodies of commands that have come, a few of them; taken away by who answers them."""
        self._max_message_bytes = max_message_bytes
        self._unfinished = Unfinished()
        self._frame_bytes: int | None = None
        """How long the unfinished message will be, its head counted; None while only a head or a command is held."""
        self._rescued = EMPTY

    def feed(self, data: bytes) -> Batch:
        """Take `data` and return the messages that are whole now."""
        if self._frame_bytes is None:
            if self._unfinished.size_bytes:
                data = b"".join((*self._unfinished.take(), data))
            return self._walk(data, 0, 0)
        end = self._frame_bytes - self._unfinished.size_bytes
        if end > len(data):
            self._unfinished.add(data)
            return EMPTY
        self._frame_bytes = None
        return self._walk(data, end, 1)

    def _walk(self, data: bytes, end: int, count: int) -> Batch:
        """Find the frames of `data` behind `end`, where `count` (0 or 1) held messages end; keep the rest of it."""
        most = self._max_message_bytes
        size_bytes = len(data)
        whole: list[Buffer] = []  # what was before a command
        start = 0
        short = most >= _LONGEST_SHORT_BYTES
        while True:
            if short:
                end, more = _past_short_ones(data, end)
                count += more
            found = _frame_at(data, end)
            if found is None:
                break
            flags, length, after = found
            if flags not in {0, _LONG} or length > most:
                self._check(flags, length, lambda: self._batch(data, whole, start, end, count))  # noqa: B023 - at once
            if after > size_bytes:
                self._frame_bytes = None if flags & _COMMAND else after - end
                break
            if flags & _COMMAND:
                if start < end:
                    whole.append(data[start:end])
                if len(self.pings) < _MOST_PINGS:
                    self.pings.append(data[after - length : after])
                start = after
            else:
                count += 1
            end = after
        batch = self._batch(data, whole, start, end, count)
        if end < size_bytes:
            self._unfinished.add(data[end:])
        return batch

    def _check(self, flags: int, length: int, before: Callable[[], Batch]) -> None:
        """Raise CodecError for a frame that is not allowed, with the messages `before` it rescued."""
        if flags & ~_LONG == _COMMAND and length <= _MOST_COMMAND_BYTES:
            return
        self._rescued = before()
        index = self._rescued.count
        if flags in {0, _LONG}:
            raise too_long(self._max_message_bytes, index=index, beginning=b"", size_bytes=length)
        if flags & ~_LONG == 1:
            raise CodecError("a message of several parts", index=index, remedy=_ONE_PART)
        raise CodecError(f"no frame of ZMTP: its flags are {flags:#04x}, its length is {length:,}", index=index)

    def _batch(self, data: bytes, whole: list[Buffer], start: int, end: int, count: int) -> Batch:
        """What is held, `whole`, and `data` from `start` to `end`, as `count` messages."""
        if not count:
            return EMPTY
        held = self._unfinished.take()
        parts: tuple[Buffer, ...] = held
        if whole:
            parts = (*held, b"".join((*whole, data[start:end])))
        elif start < end:
            parts = (*held, slice_of(data, start, end))
        return Batch(parts, count, sum(map(len, parts)))

    def rescued(self) -> Batch:
        """The whole messages that came before the error."""
        return self._rescued

    def finish(self, *, clean: bool) -> Batch:
        """Always `EMPTY`. Raises CodecError when `clean` and a message has begun and not ended."""
        held = self._unfinished.size_bytes
        self._unfinished.take()
        self._frame_bytes = None
        if clean and held:
            raise CodecError(
                f"its last message was cut short: its connection ended after {held:,} bytes of it",
                remedy="close the socket and terminate the context before the program ends",
            )
        return EMPTY

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished message are held."""
        return self._unfinished.size_bytes


def _head(payload: Buffer) -> bytes:
    return _HEADS[len(payload)] if len(payload) < 256 else _LONG_HEAD.pack(_LONG, len(payload))


def _frame_at(data: bytes, start: int) -> tuple[int, int, int] | None:
    """(Flags, length, end) of the frame that begins at `start`; None while that cannot be known."""
    there = len(data) - start
    if there < 2:
        return None
    flags = data[start]
    if not flags & _LONG:
        return flags, data[start + 1], start + 2 + data[start + 1]
    if there < _LONG_HEAD.size:
        return None
    (length,) = _LENGTH.unpack_from(data, start + 1)
    return flags, length, start + _LONG_HEAD.size + length


def _past_short_ones(data: bytes, end: int) -> tuple[int, int]:
    """Where the whole messages with a short head end that begin at `end`, and how many there are: the quick way."""
    count, size_bytes = 0, len(data)
    try:
        while not data[end]:
            after = end + 2 + data[end + 1]
            if after > size_bytes:
                break
            count += 1
            end = after
    except IndexError:
        pass
    return end, count


def _bytes(batch: Batch) -> Buffer:
    """The bytes of `batch`, not copied where they are in one piece."""
    return batch.parts[0] if len(batch.parts) == 1 else batch.joined()


def _no_empty_message(index: int) -> CodecError:
    return CodecError(
        'an empty message cannot be sent to a program with end = "empty": it would be its end',
        index=index,
        remedy='write end = "signal", or send no empty messages',
    )


ZEROMQ = ZeromqCodec("zeromq")
ZEROMQ_NO_EMPTY = ZeromqCodec("zeromq-no-empty", empty_too=False)
