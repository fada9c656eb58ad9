"""Codecs by the name that the pipeline file uses."""

from __future__ import annotations

from runner.codec.base import Codec
from runner.plugged import plugged

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
    codec: Codec = plugged(
        name,
        _BUILT_IN,
        ENTRY_POINT_GROUP,
        what="codec",
        those="codecs",
        check=lambda loaded: isinstance(loaded, Codec) and loaded.name == name,
    )
    return codec
