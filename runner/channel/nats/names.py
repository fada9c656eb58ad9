"""What things are called at the server, and what a message of ours carries beside its bytes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from runner.channel.network import Here
from runner.spec.model import Channel, Network

WRITER, EPOCH, NUMBER, COUNT, CRC, SINCE, KEPT, END = (
    f"Connector-{name}" for name in ("Writer", "Epoch", "Number", "Count", "Crc", "Since", "Kept", "End")
)
ANYBODY = "any"


class StrangeError(Exception):
    """A message that no runner has sent."""


@dataclass(frozen=True, slots=True)
class Names:
    """`subject` is that of one reading runner (of all, for a plain peer), `pattern` what the stream takes."""

    stream: str
    subject: str
    pattern: str
    group: str


def names_of(spec: Channel, network: Network, here: Here, reader: str) -> Names:
    """What the part of the stream is called that the runner `reader` reads."""
    base = network.subject or f"connector.{here.pipeline}.{spec.name}"
    stream = network.stream or base.replace(".", "_").replace("*", "_").replace(">", "_")
    if network.plain:
        return Names(stream, base, base, network.group or here.pipeline)
    subject = f"{base}.{reader or ANYBODY}"
    return Names(stream, subject, f"{base}.*", network.group or reader or ANYBODY)


@dataclass(frozen=True, slots=True)
class Sent:
    """What stands beside a message: who sent it, the numbers of what is in it, and which its sender began with.

    `kept` is the first that its sender still had: all before that the server had confirmed. `end`: it is the end.
    """

    writer: str
    epoch: str
    number: int
    count: int
    crc: int
    since: int
    kept: int = 0
    end: bool = False

    def headers(self) -> dict[str, str]:
        """As the server carries it."""
        found = {
            WRITER: self.writer,
            EPOCH: self.epoch,
            NUMBER: str(self.number),
            COUNT: str(self.count),
            CRC: str(self.crc),
            SINCE: str(self.since),
            KEPT: str(self.kept),
        }
        return {**found, END: "1"} if self.end else found

    @classmethod
    def of(cls, headers: Mapping[str, str] | None, payload: bytes) -> Sent:
        """What stands beside `payload`. Raises StrangeError where that is nothing of ours, or does not fit it."""
        headers = headers or {}
        try:
            sent = cls(
                headers.get(WRITER, ""),
                headers[EPOCH],
                int(headers[NUMBER]),
                int(headers[COUNT]),
                int(headers[CRC]),
                int(headers[SINCE]),
                int(headers.get(KEPT, "0")),
                end=END in headers,
            )
        except (KeyError, ValueError) as error:
            raise StrangeError("it has none of the headers of a runner") from error
        if sent.number < 1 or sent.count < (not sent.end) or zlib.crc32(payload) != sent.crc:
            raise StrangeError("its numbers or its checksum are wrong")
        return sent
