"""Messages that came from outside without the channel's framing, put into it."""

from __future__ import annotations

from collections.abc import Sequence

from runner.codec.base import Batch, Codec
from runner.errors import CodecError


def framed(codec: Codec, payload: bytes) -> Batch:
    """One message. Raises CodecError where the channel's framing cannot carry it."""
    try:
        return codec.batch_of([payload])
    except CodecError as error:
        raise CodecError(f"what came is no message here: {error.what}", index=0, remedy=error.remedy) from error


def leading(codec: Codec, payloads: Sequence[bytes]) -> Batch:
    """As many from the first one on as can be carried, in one batch. Raises CodecError when the first cannot be."""
    if not codec.framed or len(payloads) == 1:
        return framed(codec, payloads[0])
    try:
        return codec.batch_of(payloads)
    except CodecError as error:
        return codec.batch_of(payloads[: error.index]) if error.index else framed(codec, payloads[0])
