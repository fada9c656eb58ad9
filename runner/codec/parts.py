"""Cutting bytes and batches without copying, where that pays."""

from __future__ import annotations

from runner.codec.base import EMPTY, Batch, Buffer

_COPY_BELOW_BYTES = 4096


def slice_of(data: bytes, start: int, end: int) -> Buffer:
    """The bytes of `data` from `start` to `end`, shared when they are most of it.

    A small slice is copied: that is quicker than a view, and a view would keep all of `data` alive, which bounds in
    bytes do not see.
    """
    size_bytes = end - start
    if size_bytes == len(data) or size_bytes < max(_COPY_BELOW_BYTES, len(data) // 2):
        return data[start:end]
    return memoryview(data)[start:end]


def divide(batch: Batch, messages: int, size_bytes: int) -> tuple[Batch, Batch]:
    """`batch` as (its first `messages` messages, the rest), where those messages are its first `size_bytes` bytes.

    The bytes are shared. A half without messages is `EMPTY`; then the other half is `batch` itself.
    """
    if messages <= 0:
        return EMPTY, batch
    if messages >= batch.count:
        return batch, EMPTY
    head: list[Buffer] = []
    left = size_bytes
    for index, part in enumerate(batch.parts):
        if left >= len(part):
            head.append(part)
            left -= len(part)
            continue
        view = memoryview(part)
        if left:
            head.append(view[:left])
        tail = (view[left:] if left else part, *batch.parts[index + 1 :])
        break
    return (
        Batch(tuple(head), messages, size_bytes),
        Batch(tail, batch.count - messages, batch.size_bytes - size_bytes),
    )
