"""Framing by a byte that ends each message: `lines` and `null` are made of it.

The payload is what comes before the delimiter. A carriage return is data like any other byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from runner.codec.base import EMPTY, Batch, Buffer, Codec, Decoder
from runner.codec.counting import count as count_byte
from runner.codec.parts import divide, slice_of
from runner.codec.unfinished import SHOWN_BYTES, Unfinished, too_long
from runner.errors import CodecError

_FEW_MESSAGES = 16
_STEP_BYTES = 4096


class DelimitedCodec(Codec):
    """Each message ends with the one byte `delimiter`, which people call `delimiter_name` ("a newline")."""

    def __init__(self, name: str, delimiter: bytes, delimiter_name: str) -> None:
        self.name = name
        self.delimiter = delimiter
        self.delimiter_name = delimiter_name
        self._pattern = re.compile(re.escape(delimiter))

    def decoder(self, max_message_bytes: int) -> Decoder:
        """A fresh decoder for one stream."""
        return DelimitedDecoder(self.delimiter, max_message_bytes)

    def whole(self, data: Buffer, max_message_bytes: int) -> Batch:
        """`data` as a batch, not copied. Raises CodecError where it is not whole messages."""
        if len(data) > max_message_bytes or data[-1:] != self.delimiter:
            return super().whole(data, max_message_bytes)
        return Batch((data,), count_byte(data, self.delimiter), len(data))

    def encode(self, payload: Buffer) -> bytes:
        """`payload` and the delimiter. Raises CodecError when the delimiter is inside of `payload`."""
        data = bytes(payload)
        if self.delimiter in data:
            raise self._cannot_carry(0)
        return data + self.delimiter

    def batch_of(self, payloads: Sequence[Buffer]) -> Batch:
        """A batch of `payloads`. Raises CodecError with `index` set to the first that has the delimiter inside."""
        if not payloads:
            return EMPTY
        data = self.delimiter.join([*payloads, b""])
        if data.count(self.delimiter) != len(payloads):
            raise self._cannot_carry(next(i for i, each in enumerate(payloads) if self.delimiter in bytes(each)))
        return Batch((data,), len(payloads), len(data))

    def split(self, batch: Batch) -> list[bytes]:
        """The messages of `batch`, each with its delimiter."""
        delimiter = self.delimiter
        return [payload + delimiter for payload in self.payloads(batch)]

    def payloads(self, batch: Batch) -> list[bytes]:
        """The messages of `batch`, each without its delimiter."""
        payloads = batch.joined().split(self.delimiter)
        payloads.pop()
        return payloads

    def payload(self, framed: bytes) -> bytes:
        """`framed` without its delimiter."""
        return framed[:-1]

    def cut(self, batch: Batch, *, most_bytes: int, most_messages: int) -> tuple[Batch, Batch]:
        """Split `batch` in a head within both bounds (but at least one message), and the rest."""
        if batch.count <= most_messages and batch.size_bytes <= most_bytes:
            return batch, EMPTY
        if batch.count > most_messages:
            end = self._end_of(batch, most_messages)
            if end <= most_bytes:
                return divide(batch, most_messages, end)
        messages, end = self.locate(batch, most_bytes)
        return divide(batch, messages, end) if messages else self.skip(batch, 1)

    def skip(self, batch: Batch, messages: int) -> tuple[Batch, Batch]:
        """Split after exactly `messages` messages."""
        if 0 < messages < batch.count:
            return divide(batch, messages, self._end_of(batch, messages))
        return divide(batch, messages, 0)

    def locate(self, batch: Batch, offset: int) -> tuple[int, int]:
        """Where byte `offset` lies: (whole messages that end at or before it, their bytes)."""
        if offset >= batch.size_bytes:
            return batch.count, batch.size_bytes
        end = self._last_end(batch, offset)
        if end <= batch.size_bytes // 2:
            return self._count(batch, 0, end), end
        return batch.count - self._count(batch, end, batch.size_bytes), end

    def _count(self, batch: Batch, start: int, stop: int) -> int:
        """How many messages end in the bytes from `start` to `stop` (their delimiter lies there)."""
        count = 0
        for part in batch.parts:
            if stop <= 0:
                break
            if start < len(part):
                count += self._count_in(part, max(start, 0), min(stop, len(part)))
            start -= len(part)
            stop -= len(part)
        return count

    def _count_in(self, part: Buffer, start: int, stop: int) -> int:
        return count_byte(memoryview(part)[start:stop], self.delimiter)

    def _last_end(self, batch: Batch, stop: int) -> int:
        """The end of the last message that ends at or before `stop`; 0 when there is none."""
        base = batch.size_bytes
        for part in reversed(batch.parts):
            base -= len(part)
            if base < stop:
                end = self._last_end_in(part, min(stop - base, len(part)))
                if end:
                    return base + end
        return 0

    def _last_end_in(self, part: Buffer, stop: int) -> int:
        if isinstance(part, bytes):
            return part.rfind(self.delimiter, 0, stop) + 1
        step = _STEP_BYTES  # a view has no rfind: copy little by little, from the end
        while stop > 0:
            start = max(stop - step, 0)
            found = bytes(part[start:stop]).rfind(self.delimiter)
            if found >= 0:
                return start + found + 1
            stop = start
            step *= 2
        return 0

    def _end_of(self, batch: Batch, messages: int) -> int:
        """Where the message number `messages` ends, counted from 1; the batch has more than that."""
        base = 0
        left = batch.count
        for part in batch.parts[:-1]:
            inside = self._count_in(part, 0, len(part))
            if messages <= inside:
                return base + self._end_in(part, messages, inside)
            messages -= inside
            left -= inside
            base += len(part)
        return base + self._end_in(batch.parts[-1], messages, left)

    def _end_in(self, part: Buffer, messages: int, inside: int) -> int:
        """Where delimiter number `messages` of the `inside` ones in `part` ends.

        Guesses from the mean length and counts up to there. What was counted in vain halves each time, so that no
        input makes it slower than about two counts of the part; with even messages little more than the head is read.
        """
        start, stop = 0, len(part)
        while messages > _FEW_MESSAGES:
            guess = max((stop - start) * messages // inside, _STEP_BYTES)
            middle = start + min(guess, (stop - start) // 2)
            before = self._count_in(part, start, middle)
            if before >= messages:
                stop, inside = middle, before
            else:
                start, messages, inside = middle, messages - before, inside - before
        return next(islice(self._pattern.finditer(part, start), messages - 1, None)).end()

    def _cannot_carry(self, index: int) -> CodecError:
        return CodecError(
            f'a message with {self.delimiter_name} inside cannot be sent as "{self.name}", '
            f"as {self.delimiter_name} ends each message there",
            index=index,
            remedy='use codec = "length-prefixed", which carries any bytes',
        )


class DelimitedDecoder(Decoder):
    """One stream of messages that end with `delimiter`."""

    def __init__(self, delimiter: bytes, max_message_bytes: int) -> None:
        self._delimiter = delimiter
        self._max_message_bytes = max_message_bytes
        self._unfinished = Unfinished()
        self._rescued = EMPTY

    def feed(self, data: bytes) -> Batch:
        """Take `data` and return the messages that are whole now."""
        if self._unfinished.size_bytes + len(data) > self._max_message_bytes:
            self._check_lengths(data)
        end = data.rfind(self._delimiter) + 1
        if not end:
            self._unfinished.add(data)
            return EMPTY
        count = count_byte(data, self._delimiter)
        batch = self._with_unfinished(slice_of(data, 0, end), count, end)
        if end < len(data):
            self._unfinished.add(data[end:])
        return batch

    def rescued(self) -> Batch:
        """The whole messages that came before the error."""
        return self._rescued

    def finish(self, *, clean: bool) -> Batch:
        """The last message without its delimiter gets one and counts when `clean`, and is dropped otherwise."""
        size_bytes = self._unfinished.size_bytes
        parts = self._unfinished.take()
        if not (clean and size_bytes):
            return EMPTY
        return Batch((*parts, self._delimiter), 1, size_bytes + 1)

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished message are held."""
        return self._unfinished.size_bytes

    def _with_unfinished(self, whole: Buffer, count: int, size_bytes: int) -> Batch:
        """What is held and then `whole`, which has `size_bytes` bytes and ends `count` messages."""
        if not self._unfinished.size_bytes:
            return Batch((whole,), count, size_bytes)
        size_bytes += self._unfinished.size_bytes
        return Batch((*self._unfinished.take(), whole), count, size_bytes)

    def _check_lengths(self, data: bytes) -> None:
        """Raise CodecError when a message that ends or goes on in `data` is too long.

        Jumps from the last delimiter that is near enough to the next such: each byte is looked at twice at most.
        """
        start = 0
        room = self._max_message_bytes - self._unfinished.size_bytes
        while len(data) - start > room:
            end = data.rfind(self._delimiter, start, start + room + 1) + 1
            if not end:
                if start:
                    good = data[:start]
                    self._rescued = self._with_unfinished(good, good.count(self._delimiter), start)
                raise too_long(
                    self._max_message_bytes,
                    index=self._rescued.count,
                    beginning=self._unfinished.beginning() + data[start : start + SHOWN_BYTES],
                )
            start = end
            room = self._max_message_bytes
