"""The stream of a channel at the server: made where it is not there, and refused where it would lose messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.channel.nats.names import Names
from runner.errors import RunnerError

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.api import StreamConfig

HEADERS_BYTES = 2048
"""More than what stands beside the bytes of a message."""
_IN_USE = 10058
"""Code of JetStream: the other side has made the stream in the meantime."""
_ITS_OWN = 'give the channel a stream of its own: stream = "NAME"'


async def ensure_stream(stream: JetStreamContext, names: Names, *, most_bytes: int, plain: bool) -> None:
    """Make the stream where it is not there; one that is there is taken where it can hold these messages.

    Raises RunnerError for one that cannot.
    """
    from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
    from nats.js.errors import BadRequestError, NotFoundError

    try:
        found = await stream.stream_info(names.stream)
    except NotFoundError:
        config = StreamConfig(
            name=names.stream,
            subjects=[names.pattern],
            retention=RetentionPolicy.WORK_QUEUE if not plain else RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=most_bytes,
        )
        try:
            await stream.add_stream(config)
        except BadRequestError as error:
            if error.err_code != _IN_USE and not await _is_there(stream, names.stream):
                raise RunnerError(f"the stream {names.stream} cannot be made: {error.description}") from error
        return
    refuse_unfit(found.config, names, plain=plain)


async def _is_there(stream: JetStreamContext, name: str) -> bool:
    """Whether the other side has made it in the meantime."""
    from nats.js.errors import NotFoundError

    try:
        await stream.stream_info(name)
    except NotFoundError:
        return False
    return True


def refuse_unfit(config: StreamConfig, names: Names, *, plain: bool) -> None:
    """Raises RunnerError for a stream that cannot hold what is between two runners until it is taken.

    What a stream of a plain peer keeps is its maker's choice.
    """
    from nats.js.api import RetentionPolicy

    if plain:
        return
    if config.retention != RetentionPolicy.WORK_QUEUE or names.pattern not in (config.subjects or []):
        raise RunnerError(
            f"the stream {names.stream} is another's: it does not take {names.pattern} for one reader each",
            remedy=_ITS_OWN,
        )
    if (loss := _what_it_loses(config)) is not None:
        why, mended = loss
        raise RunnerError(
            f"the stream {names.stream} throws away messages that it has confirmed: {why}",
            remedy=f"set {mended}, or {_ITS_OWN}",
        )
    if config.no_ack:
        raise RunnerError(f"the stream {names.stream} confirms nothing: no_ack", remedy=f"unset no_ack, or {_ITS_OWN}")
    if (most := limit(config.max_msg_size)) is not None and most <= HEADERS_BYTES:
        raise RunnerError(
            f"the stream {names.stream} takes {most:,} bytes for a message (max_msg_size), and a runner's headers "
            f"alone may have {HEADERS_BYTES:,}",
            remedy=f"raise it, or {_ITS_OWN}",
        )


def _what_it_loses(config: StreamConfig) -> tuple[str, str] | None:
    """By which of its settings it throws away what it has confirmed, and what mends that; None: it does not."""
    from nats.js.api import DiscardPolicy

    if config.max_age:
        return f"those older than {config.max_age:g} s (max_age)", "max_age = 0"
    discards_new = config.discard == DiscardPolicy.NEW
    if limit(config.max_msgs_per_subject) is not None and not (discards_new and config.discard_new_per_subject):
        return "the oldest of a subject (max_msgs_per_subject)", "max_msgs_per_subject = -1"
    for key, value in (("max_bytes", config.max_bytes), ("max_msgs", config.max_msgs)):
        if limit(value) is not None and not discards_new:
            return f"the oldest when it is full ({key}, with discard = old)", "discard = new"
    return None


def most_stored_bytes(config: StreamConfig) -> int | None:
    """What may be in it before it throws something away or takes no more; None: no limit, or it is to throw away."""
    from nats.js.api import DiscardPolicy

    return limit(config.max_bytes) if config.discard == DiscardPolicy.NEW else None


def limit(value: int | None) -> int | None:
    """A limit of a stream, as the server says it: none, 0 and less than that are no limit."""
    return value if value is not None and value > 0 else None
