"""Messages of one framing in another."""

from __future__ import annotations

from collections.abc import Callable

from runner.codec.base import EMPTY, Batch, Codec
from runner.codec.delimited import DelimitedCodec
from runner.errors import CodecError


def converter(source: Codec, target: Codec) -> Callable[[Batch], Batch] | None:
    """What turns batches of `source` into batches of `target`; None when the bytes can be passed on untouched.

    The function that is returned raises CodecError when `target` cannot carry a message; its `index` is the number
    of good messages before it, so that `source.skip(batch, index)` gives those. Raises CodecError at once when one of
    the two has no framing (`raw`) and the other has.
    """
    if source.name == target.name:
        return None
    if not (source.framed and target.framed):
        raise CodecError(
            f'messages cannot be converted from "{source.name}" to "{target.name}"',
            remedy='give both ends of the channel the same codec, or one with framing, such as "lines"',
        )
    if isinstance(source, DelimitedCodec) and isinstance(target, DelimitedCodec):
        return _exchange_delimiter(source, target)
    return lambda batch: target.batch_of(source.payloads(batch))


def _exchange_delimiter(source: DelimitedCodec, target: DelimitedCodec) -> Callable[[Batch], Batch]:
    def convert(batch: Batch) -> Batch:
        if not batch.count:
            return EMPTY
        data = batch.joined()
        if target.delimiter in data:
            return target.batch_of(source.payloads(batch))  # which raises, with the index of the message
        return Batch((data.replace(source.delimiter, target.delimiter),), batch.count, batch.size_bytes)

    return convert
