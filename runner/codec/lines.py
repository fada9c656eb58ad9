r"""The codec `lines`: each message ends with "\n"."""

from __future__ import annotations

from runner.codec.delimited import DelimitedCodec

LINES = DelimitedCodec("lines", b"\n", "a newline")
