"""Every bound on what other programs can hold of this runner; docs/network.md has them as a table.

Where one is hit, `Host.hit` counts it and tells a person why.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one channel's end; tests make narrower ones."""

    peers: int = 64
    """Connections at once, counted from when they are accepted until they are closed, TLS handshakes among them."""
    held_bytes: int = 64 << 20
    """What all peers together sent that is no whole message yet; at least two of the longest messages."""
    batch_bytes: int = 64 << 10
    """What is handed to peers at once."""
    piece_bytes: int = 16 << 10
    """What one peer is given before the kernel has taken it: so much (or one message) may be lost with a connection."""
    key_bytes: int = 200
    """An `Idempotency-Key` that is longer is kept as its hash."""
    keys: int = 10_000
    """Idempotency keys that are remembered, the newest."""
    head_bytes: int = 8190
    """A request's line, and each of its headers."""
    heads: int = 64
    """Headers of a request."""
    request_bytes: int = 8 << 20
    """A request with several messages; at least one of the longest messages."""
    event_id_bytes: int = 1024
    """An event with a longer id has none."""
    handshake_s: float = 10.0
    """For a TLS handshake, and ZeroMQ's."""
    connect_s: float = 10.0
    """For a connection that we make."""
    head_s: float = 10.0
    """From the connection to the end of its first request's headers."""
    kept_open_s: float = 60.0
    """From one answer on a connection to the end of the next request's headers."""
    body_s: float = 60.0
    """For the rest of a request."""
    stalled_s: float = 60.0
    """A peer that takes nothing, or sent half a message and nothing more, for so long is let go."""
    whole_s: float = 600.0
    """From the first byte of a message to its last."""
    silent_s: float = 60.0
    """Who has sent nothing for so long makes room for somebody else, when all places are taken."""
    room_s: float = 10.0
    """A request waits so long for room in the channel."""
    answer_s: float = 60.0
    """A server that we ask answers within that time."""
    close_s: float = 2.0
    """For the end of a connection in order."""
    first_wait_s: float = 0.1
    """Before another try; doubled up to `longest_wait_s`."""
    longest_wait_s: float = 5.0
    """See `first_wait_s`."""
    settled_s: float = 1.0
    """A peer that is written to is one that stays after so long: the next try after it comes soon again."""
    retry_after_s: float = 60.0
    """A server's `Retry-After` counts up to here."""

    def most_held_bytes(self, max_message_bytes: int) -> int:
        """`held_bytes`, where messages are at most so long."""
        return max(self.held_bytes, 2 * max_message_bytes)

    def rest_of_message(self, began_s: float, now_s: float) -> tuple[float, str]:
        """How long the next bytes of a message that began then may take, and why its sender is let go after that."""
        left_s = began_s + self.whole_s - now_s
        within_s, bound_s = min((self.stalled_s, self.stalled_s), (left_s, self.whole_s))
        return within_s, f"half a message came, and the rest did not within {bound_s:g} s"


BOUNDS = Bounds()
