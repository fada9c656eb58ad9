"""Where the store has on record what became of those who read and write a durable channel."""

from __future__ import annotations

NOTES, ENDS = "notes", "ends"
"""Tables: of who reads and writes, and of writers that have ended for good."""


def key_of(channel: str, processor: str) -> bytes:
    """What is kept of a processor at a channel is under this key."""
    return f"{channel}\0{processor}".encode()


def written_key(channel: str, processor: str) -> bytes:
    """Under this key stands how many messages a writer has written."""
    return b"written " + key_of(channel, processor)


def left_key(channel: str, processor: str) -> bytes:
    """Under this key stands that a reader has left for good."""
    return b"left " + key_of(channel, processor)
