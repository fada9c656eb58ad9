"""What may be data on stdout: keeps a library's stray `print` out of the messages."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runner.codec.base import EMPTY, Batch, Codec
from runner.spec.model import Guard

_JSON = msgspec.json.Decoder(msgspec.Raw)


def _is_json(payload: bytes) -> bool:
    try:
        _JSON.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: brackets without end
        return False
    return True


def predicate(guard: Guard) -> Callable[[bytes], bool] | None:
    """Whether a message is data, as `guard` says; None when everything is."""
    if guard.kind == "json":
        return _is_json
    if guard.kind == "match" and guard.pattern is not None:
        search = guard.pattern.search
        return lambda payload: search(payload) is not None
    return None


def sift(batch: Batch, codec: Codec, is_data: Callable[[bytes], bool]) -> tuple[Batch, list[bytes]]:
    """(The messages of `batch` that are data, the payloads of those that are not)."""
    framed = codec.split(batch)
    payloads = [codec.payload(message) for message in framed]
    verdicts = [is_data(payload) for payload in payloads]
    if all(verdicts):
        return batch, []
    good = b"".join(message for message, verdict in zip(framed, verdicts, strict=True) if verdict)
    stray = [payload for payload, verdict in zip(payloads, verdicts, strict=True) if not verdict]
    return (Batch((good,), batch.count - len(stray), len(good)) if good else EMPTY), stray
