"""What the user may write of channels and runners, key by key; the rest is `runner.spec.document`."""

import re
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from runner.spec.findings import show
from runner.spec.values import CodecName, Count, Duration, Name, Secret, Size, Text, Word, later, meta, text


class RotateDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """When the file of a channel is full; at least one of size and every."""

    size: Annotated[Size, meta("A file holds at most this; one longer message has a file of its own.")] | UnsetType = (
        UNSET
    )
    every: Annotated[Duration, meta("A file that is not empty is full this long after it was begun.")] | UnsetType = (
        UNSET
    )
    keep: Annotated[Count, meta("How many full files stay; older ones are deleted. Default: all.")] | UnsetType = UNSET


_LATER = ("redis", "kafka")
KINDS_NOW = (
    'channels of kind "memory", "pipe", "durable", "file", "tcp", "websocket", "http", "zeromq" and "nats" work now'
)
_KINDS = ("memory", "pipe", "durable", "file", "tcp", "websocket", "http", "zeromq", "nats")


def _no_address(value: str) -> str:
    return f'{show(value)}: an address is HOST:PORT or :PORT, such as "10.0.0.7:7400" or ":7400"'


def _no_url(value: str) -> str:
    return f"{_hidden(value)}: a URL is tcp://, ws://, wss://, http://, https:// or nats:// with host and port"


def _hidden(value: str) -> str:
    """A URL without the password that may be in it."""
    return show(re.sub(r"//[^/@]*@", "//…@", value))


PlaceText = Annotated[str, text(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/\u0000]*):[0-9]{1,5}", _no_address)]
UrlText = Annotated[
    str,
    text(r"(tcp|wss?|https?|nats)://[^\s\u0000]+", _no_url),
    Meta(extra={"quiet": True}),
]


def _no_host(value: str) -> str:
    return f'{show(value)} is no host; a host is a name or an address, such as "10.0.0.7", its port in the address'


HostText = Annotated[str, text(r"[^\s:/@\[\]\u0000]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", _no_host)]


class TlsDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """Certificates of a channel, as PEM files."""

    ca: (
        Annotated[Word, meta("Who signed the other side's certificate. Default: whom this machine trusts.")] | UnsetType
    ) = UNSET
    cert: Annotated[Word, meta("The certificate that is shown; who listens needs one.")] | UnsetType = UNSET
    key: Annotated[Word, meta("Its private key.")] | UnsetType = UNSET
    name: (
        Annotated[Text, meta("Whom the listener's certificate must be for. Default: the host that is connected to.")]
        | UnsetType
    ) = UNSET


class ChannelDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """A channel. One that is only named by a processor is a memory channel."""

    kind: Annotated[
        Name,
        Meta(
            description=f"What carries the messages: {', '.join(_KINDS)}. Not supported yet: {', '.join(_LATER)}.",
            examples=[*_KINDS, *_LATER],
            extra={"later_values": dict.fromkeys(_LATER, KINDS_NOW)},
        ),
    ] = "memory"
    capacity: Annotated[Size, meta("How many bytes it holds before it is full.")] = "8MiB"
    on_full: Annotated[
        Literal["block", "drop-oldest", "drop-newest"],
        meta("What happens when it is full; what is dropped is counted, per reader."),
    ] = "block"
    durability: (
        Annotated[
            Literal["memory", "process", "disk"],
            meta(
                'What messages of a durable, file or network channel outlive: the runner ("process"), a power cut '
                '("disk").'
            ),
        ]
        | UnsetType
    ) = UNSET
    schema: (
        Annotated[Word, meta("A file with a JSON Schema. Messages that do not fit it are refused at their writer.")]
        | UnsetType
    ) = UNSET
    listen: (
        Annotated[
            Literal["reader", "writer"] | bool,
            meta(
                "Which side binds the address: the reader's (the default) or the writer's; with a plain peer, whether "
                "this end does."
            ),
        ]
        | UnsetType
    ) = UNSET
    peer: (
        Annotated[
            Literal["runner", "plain"],
            meta('Who is at the other end: another runner, or ("plain", bare messages) any other program.'),
        ]
        | UnsetType
    ) = UNSET
    address: Annotated[PlaceText, meta("Where the two ends meet: HOST:PORT or :PORT.")] | UnsetType = UNSET
    url: Annotated[UrlText, meta("The same as a URL; of nats, its servers, separated by commas.")] | UnsetType = UNSET
    path: (
        Annotated[Word, meta("The file that a file channel ends or begins in; the path of a websocket or http URL.")]
        | UnsetType
    ) = UNSET
    codec: (
        Annotated[CodecName, meta("How messages are framed in the file or on the way. Default: as its processors do.")]
        | UnsetType
    ) = UNSET
    rotate: Annotated[RotateDocument, meta("When a file that is written is full, and a new one begun.")] | UnsetType = (
        UNSET
    )
    follow: Annotated[bool, meta("Whether a file that is read is read on as it grows and rotates.")] = False
    max_message: Annotated[Size, meta("The longest message in a file that is read, or on the way.")] = "16MiB"
    end: (
        Annotated[
            Literal["never", "close"],
            meta("With a plain peer: what ends the channel; nothing, or that the peer closes its connection in order."),
        ]
        | UnsetType
    ) = UNSET
    subject: Annotated[Word, meta("The subject at the broker. Default: connector.PIPELINE.CHANNEL.")] | UnsetType = (
        UNSET
    )
    topic: Annotated[str, later("The topic at the broker.", "it is for kafka")] | UnsetType = UNSET
    stream: Annotated[Word, meta("The stream at the broker. Default: made of the subject.")] | UnsetType = UNSET
    group: Annotated[Word, meta("The group of readers at the broker. Default: the runner's name.")] | UnsetType = UNSET
    tls: Annotated[TlsDocument, meta("Certificates: what is sent is encrypted.")] | UnsetType = UNSET
    keys: Annotated[Word, meta("A folder with CURVE keys of zeromq, as `connector keys` makes it.")] | UnsetType = UNSET
    token: (
        Annotated[Secret, meta('What http and websocket clients must show: "file:PATH" or "env:NAME".')] | UnsetType
    ) = UNSET
    insecure: Annotated[bool, meta("Allows to listen where others can come without encryption or keys.")] = False


class RunnerDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """A runner of a pipeline that is split over several."""

    host: Annotated[HostText, meta("Where the others reach it: put in where an address has no host.")] | UnsetType = (
        UNSET
    )
