"""Channel kinds by the name that the pipeline file uses."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from runner.channel.base import Channel
from runner.errors import RunnerError
from runner.spec.model import Channel as ChannelSpec

ENTRY_POINT_GROUP = "connector.channels"

_BUILT_IN = {
    "memory": ("runner.channel.memory", "MemoryChannel"),
    "pipe": ("runner.channel.pipe", "PipeChannel"),
}


def channel_kind(name: str) -> Callable[[ChannelSpec], Channel]:
    """What makes a channel of that kind: built in, or brought by an installed package as entry point.

    Raises RunnerError when there is none.
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        kind: Callable[[ChannelSpec], Channel] = getattr(import_module(module), attribute)
        return kind
    from importlib.metadata import entry_points  # 20 ms that the built-in kinds do not need

    found = entry_points(group=ENTRY_POINT_GROUP)
    if name not in found.names:
        known = ", ".join(f'"{each}"' for each in sorted({*_BUILT_IN, *found.names}))
        raise RunnerError(f'there is no channel kind "{name}"', remedy=f"known kinds: {known}")
    loaded: Callable[[ChannelSpec], Channel] = found[name].load()
    return loaded
