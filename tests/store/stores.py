"""What tests of the store share: numbered messages, and reading all that is there."""

from __future__ import annotations

from pathlib import Path

from runner.store import Store


def message(channel: str, number: int, size: int = 0) -> bytes:
    """Message `number` of `channel`, a line of at least `size` bytes that says so."""
    text = f"{channel} {number} "
    return text.encode() + b"." * (size - len(text) - 1) + b"\n"


def batch(channel: str, first: int, count: int, size: int = 0) -> bytes:
    """`count` of them."""
    return b"".join(message(channel, number, size) for number in range(first, first + count))


def put_in(store: Store, channel: str, count: int, size: int = 0) -> int:
    """Append the next `count` messages in one piece; the first's number."""
    first = store.state(channel).made + 1
    assert store.transaction.append(channel, [batch(channel, first, count, size)], count, "lines") == first
    return first


def all_of(store: Store, channel: str) -> dict[int, bytes]:
    """Every committed message. Raises what `Store.read` does."""
    state = store.state(channel)
    found: dict[int, bytes] = {}
    number = state.first
    while (record := store.read(channel, number)) is not None:
        assert record.first <= number <= record.last
        lines = bytes(record.data).splitlines(keepends=True)
        assert len(lines) == record.count
        found.update((record.first + at, line) for at, line in enumerate(lines) if record.first + at >= state.first)
        number = record.last + 1
    assert number == state.last + 1
    return found


def right(found: dict[int, bytes], channel: str) -> None:
    """Each message says the number that it has."""
    for number, line in found.items():
        assert line.split()[:2] == [channel.encode(), str(number).encode()], (channel, number, line[:40])


def opened(folder: Path, *channels: str, sync: bool = False, tail_bytes: int = 4 << 20) -> Store:
    """The store with these channels."""
    return Store.open(folder, sync=sync, capacity_bytes=dict.fromkeys(channels, 1 << 20), tail_bytes=tail_bytes)
