"""What the runner says, as parts to be written one after the other: headers, and payloads as they are."""

from __future__ import annotations

from collections.abc import Iterable

from runner.protocol.frames import MOST_INLINE_STATE_BYTES, Buffer


def messages(
    payloads: Iterable[Buffer], *, delivery: int, number: int, attempt: int, port: str, channel: str
) -> list[Buffer]:
    """Consecutive messages of one channel: their deliveries begin at `delivery`, their numbers at `number`.

    `channel` is NAME@EPOCH. Two parts per message; payloads are not copied.
    """
    tail = f" {attempt} {port} {channel}\n".encode()
    parts: list[Buffer] = []
    for payload in payloads:
        parts += (b"msg %d %d %d%b" % (len(payload), delivery, number, tail), payload)
        delivery += 1
        number += 1
    return parts


def opening(*, max_payload_bytes: int, state: Buffer | None, state_file: str | None = None) -> list[Buffer]:
    """The answer to `ready`: the state that was committed last (None: there is none), or the file that holds it.

    A state over `MOST_INLINE_STATE_BYTES` must come with `state_file`.
    """
    if state_file is not None:
        how, payload = "file", state_file.encode("utf-8", "surrogateescape")
    elif state is not None:
        how, payload = "here", bytes(state)
    else:
        how, payload = "none", b""
    assert len(payload) <= MOST_INLINE_STATE_BYTES, "such a state is passed as a file"
    return [f"ack-state {len(payload)} 0 state={how} max={max_payload_bytes}\n".encode(), payload]


def committed(number: int) -> list[Buffer]:
    """The state with this number, and everything that it covers, will be there after any crash."""
    return [b"ack-state 0 %d\n" % number]


def end(port: str | None) -> list[Buffer]:
    """No new message on `port`; None: the session is over for the processor."""
    return [b"end 0\n" if port is None else f"end 0 {port}\n".encode()]


def ping(token: int) -> list[Buffer]:
    """Answered by a pong with the same token."""
    return [b"ping 0 %d\n" % token]
