"""Channel kinds by the name that the pipeline file uses."""

from __future__ import annotations

from collections.abc import Callable

from runner.channel.base import Channel
from runner.plugged import plugged
from runner.spec.model import Channel as ChannelSpec

ENTRY_POINT_GROUP = "connector.channels"

_BUILT_IN = {
    "memory": ("runner.channel.memory", "MemoryChannel"),
    "pipe": ("runner.channel.pipe", "PipeChannel"),
}


def channel_kind(name: str) -> Callable[[ChannelSpec], Channel]:
    """What makes a channel of that kind: built in, or brought by an installed package as entry point.

    Raises RunnerError when there is none that can be loaded.
    """
    kind: Callable[[ChannelSpec], Channel] = plugged(
        name, _BUILT_IN, ENTRY_POINT_GROUP, what="channel kind", those="kinds"
    )
    return kind
