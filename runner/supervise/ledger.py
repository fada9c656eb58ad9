"""The ledger: an account of every message, checked at each death and at the end of the run.

    carried + written + replayed = acknowledged + dead + dropped + indeterminate + unread

While messages are on their way, `waiting` of them (queued, or in flight) stand on the right side as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runner.channel.base import Channel, Reader
from runner.supervise.snapshot import ChannelReport, ReaderReport


@dataclass(frozen=True, slots=True)
class Imbalance:
    """A reader whose equation does not hold: `came` messages on the left side, `went` on the right."""

    channel: str
    processor: str
    came: int
    went: int

    def __str__(self) -> str:
        return (
            f"channel `{self.channel}`, reader `{self.processor}`: {self.came:,} came, {self.went:,} are accounted for"
        )


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A one-to-one processor whose acknowledged inputs are not as many as its answers."""

    processor: str
    acknowledged: int
    answers: int

    def __str__(self) -> str:
        return f"`{self.processor}`: {self.acknowledged:,} inputs are acknowledged, by {self.answers:,} answers"


def outcome(reader: Reader) -> int:
    """Messages of `reader` that have an outcome."""
    account = reader.account
    return account.acknowledged + account.dead + account.dropped + account.indeterminate + account.unread


def imbalances(channels: Iterable[Channel], waiting: Callable[[Reader], int]) -> list[Imbalance]:
    """Every reader whose equation does not hold; `waiting` tells its messages that have no outcome yet."""
    found = []
    for channel in channels:
        for reader in channel.readers:
            came = reader.account.carried + channel.written + reader.account.replayed
            went = outcome(reader) + waiting(reader)
            if came != went:
                found.append(Imbalance(channel.name, reader.processor, came, went))
    return found


def channel_report(channel: Channel, readers: Iterable[str]) -> ChannelReport:
    """The account of a channel with these readers; its numbers are None where it is not counted."""
    if not channel.counted:
        nothing = ReaderReport(None, None, None, None, None, None, None)
        return ChannelReport(channel.kind, None, None, dict.fromkeys(readers, nothing))
    reports = {
        reader.processor: ReaderReport(
            carried=reader.account.carried,
            replayed=reader.account.replayed,
            acknowledged=reader.account.acknowledged,
            dead=reader.account.dead,
            dropped=reader.account.dropped,
            indeterminate=reader.account.indeterminate,
            unread=reader.account.unread,
        )
        for reader in channel.readers
    }
    return ChannelReport(channel.kind, channel.written, channel.refused, reports, channel.listens)
