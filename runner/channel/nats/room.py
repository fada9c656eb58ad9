"""How much may still be sent before the server is asked again how full its stream is.

A server before 2.10.6 compares less than it stores with the stream's `max_bytes`, and when the stream is beyond that it
throws away the oldest message, confirmed as it is, whatever the stream says of discarding (nats-server, issues 4771 and
4775). So a stream counts as full here well before that: at its limit without the slack. Of the slack each writer gets
a share for what it has on its way and for what it may still send since it looked; as many writers as there are shares
can cross the mark together and stay below the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_LOOK_LASTS_S = 1.0
"""What an older look allowed is not sent any more: others may have filled the stream."""
_SLACK_BYTES = 32 << 20
_SHARES = 8
_RECORD_BYTES = 64
"""More than a server stores with a message beside its subject, headers and bytes (38 in files, 16 in memory)."""
_HEADERS_END_BYTES = len(b"NATS/1.0\r\n\r\n")
_HEADER_BYTES = len(b": \r\n")


def full_at(max_bytes: int) -> int:
    """With so many bytes a stream counts as full that takes `max_bytes`."""
    return max_bytes - _slack(max_bytes)


def _slack(max_bytes: int) -> int:
    return min(max_bytes // 2, _SLACK_BYTES)


def stored_bytes(subject: str, payload: bytes, headers: dict[str, str] | None) -> int:
    """At least what a server stores for such a message."""
    beside = sum(len(key) + len(value) + _HEADER_BYTES for key, value in (headers or {}).items()) + _HEADERS_END_BYTES
    return len(payload) + len(subject) + beside + _RECORD_BYTES


class Room:
    """What one sender may send. Before each look at the stream: `asked`; after it: `seen`.

    `senders`: how many at this runner send to that stream; they have one share together.
    """

    def __init__(self, senders: int = 1, now_s: Callable[[], float] = time.monotonic) -> None:
        self._senders = senders
        self._now_s = now_s
        self._asked_s = 0.0
        self._on_way_bytes = 0
        self._doubtful_bytes = 0
        """What failed: the server may have it, or may get it before it answers the next look."""
        self._asked_bytes = 0
        self._asked_doubtful_bytes = 0
        self._since_bytes = 0
        self._rest_bytes = 0
        self.most_bytes: int | None = None
        """What is stored with more than that never has room; None: there is no limit."""
        self.window_bytes = 0
        """So much may be on its way, and so much may be sent between two looks."""
        self.full = False
        """Whether the last look found no room for what was to be sent next."""

    def allows(self, size_bytes: int) -> bool:
        """Whether so much may be sent now; what is larger than the window goes alone."""
        if self._age_s > _LOOK_LASTS_S:
            return False
        alone = not self._on_way_bytes
        return size_bytes <= self._rest_bytes and (alone or self._on_way_bytes + size_bytes <= self.window_bytes)

    @property
    def low(self) -> bool:
        """Whether it is time to look again, before nothing more may be sent."""
        used_up = self._rest_bytes < self.window_bytes // 2 or self._age_s > _LOOK_LASTS_S / 2
        return not self.full and used_up

    @property
    def _age_s(self) -> float:
        return self._now_s() - self._asked_s

    def sent(self, size_bytes: int) -> None:
        """It is on its way."""
        self._on_way_bytes += size_bytes
        self._since_bytes += size_bytes
        self._rest_bytes = max(0, self._rest_bytes - size_bytes)

    def confirmed(self, size_bytes: int) -> None:
        """The server has it."""
        self._on_way_bytes -= size_bytes

    def failed(self, size_bytes: int) -> None:
        """It is not known whether the server has it."""
        self._on_way_bytes -= size_bytes
        self._doubtful_bytes += size_bytes

    def asked(self) -> None:
        """The server is asked now; one look at a time."""
        self._asked_s = self._now_s()
        self._asked_bytes = self._on_way_bytes + self._doubtful_bytes
        self._asked_doubtful_bytes = self._doubtful_bytes
        self._since_bytes = 0

    def seen(self, used_bytes: int, max_bytes: int | None, next_bytes: int) -> None:
        """What the server answered: the bytes in its stream, and its limit (None: none); `next_bytes` is to be sent.

        What was doubtful when it was asked is in its stream by now, or lost: requests are answered in their order.
        """
        self._doubtful_bytes -= self._asked_doubtful_bytes
        self._asked_doubtful_bytes = 0
        slack = _SLACK_BYTES if max_bytes is None else _slack(max_bytes)
        self.window_bytes = slack // _SHARES // self._senders // 2
        granted = max(self.window_bytes, next_bytes)
        self.most_bytes = None
        if max_bytes is not None:
            self.most_bytes = full_at(max_bytes)
            granted = min(granted, self.most_bytes - used_bytes - self._asked_bytes)
        self._rest_bytes = max(0, granted - self._since_bytes)
        self.full = granted < next_bytes
