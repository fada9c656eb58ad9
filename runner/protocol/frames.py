"""The frames that a processor sends, and the bounds of both sides. The table is in docs/protocol.md."""

from __future__ import annotations

from typing import NamedTuple

VERSION = 1
MOST_HEADER_BYTES = 8 << 10
"""A header with its newline."""
MOST_TEXT_BYTES = 64 << 10
"""The payload of `log` and `nack`."""
MOST_INLINE_STATE_BYTES = 64 << 10
"""A state longer than that is given back as a file."""
MOST_NUMBER = (1 << 53) - 1
"""What every language's numbers can hold."""
MOST_DIGITS = 16
LEVELS = ("debug", "info", "warning", "error")
RUNNER_KINDS = ("msg", "ack-state", "end", "ping")

Buffer = bytes | memoryview


class Ready(NamedTuple):
    """The processor speaks `version`. `stateful`: nothing is committed but by its states and its end."""

    version: int
    stateful: bool


class Out(NamedTuple):
    """An output, in answer to `delivery` (0: to nothing)."""

    delivery: int
    port: str
    payload: bytes


class Ack(NamedTuple):
    """`first` to `last` are done: they and all their outputs are committed together."""

    first: int
    last: int


class Nack(NamedTuple):
    """It could not be done: its outputs are dropped, and it comes again, not before `delay_ms` have passed."""

    delivery: int
    reason: str
    delay_ms: int


class State(NamedTuple):
    """Covers everything acknowledged, and everything written in answer to nothing, so far."""

    number: int
    payload: bytes


class Log(NamedTuple):
    """A line for the log. Bytes that are no UTF-8 are replaced."""

    level: str
    text: str


class Pong(NamedTuple):
    """The answer to the ping with this token."""

    token: int


class End(NamedTuple):
    """Nothing more comes from the processor."""


Frame = Ready | Out | Ack | Nack | State | Log | Pong | End
