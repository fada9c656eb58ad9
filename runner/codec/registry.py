"""Codecs by the name that the pipeline file uses."""

from __future__ import annotations

from importlib import import_module

from runner.codec.base import Codec
from runner.errors import RunnerError

ENTRY_POINT_GROUP = "connector.codecs"

_BUILT_IN = {
    "lines": ("runner.codec.lines", "LINES"),
    "length-prefixed": ("runner.codec.length_prefixed", "LENGTH_PREFIXED"),
    "null": ("runner.codec.null", "NULL"),
    "raw": ("runner.codec.raw", "RAW"),
    "zeromq": ("runner.codec.zeromq", "ZEROMQ"),
    "zeromq-no-empty": ("runner.codec.zeromq", "ZEROMQ_NO_EMPTY"),
}
"""The last two are what `bridge = "zeromq"` gives its ports, and nobody else asks for."""


def codec_named(name: str) -> Codec:
    """The codec of that name: a built-in one, or one that an installed package brings as entry point.

    Raises RunnerError when there is none, or when what the package brings is not a codec of that name.
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        codec: Codec = getattr(import_module(module), attribute)
        return codec
    return _from_entry_point(name)


def _from_entry_point(name: str) -> Codec:
    from importlib.metadata import entry_points  # 20 ms that the built-in codecs do not need

    found = entry_points(group=ENTRY_POINT_GROUP)
    if name not in found.names:
        known = ", ".join(f'"{each}"' for each in sorted({*_BUILT_IN, *found.names}))
        raise RunnerError(f'there is no codec "{name}"', remedy=f"known codecs: {known}")
    entry_point = found[name]
    try:
        codec = entry_point.load()
    except Exception as error:
        raise RunnerError(
            f'the codec "{name}" cannot be loaded from {entry_point.value}: {error}',
            remedy="install the package again, or ask those who make it",
        ) from error
    if not isinstance(codec, Codec) or codec.name != name:
        raise RunnerError(f'{entry_point.value} is not a codec of the name "{name}"')
    return codec
