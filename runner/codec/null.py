r"""The codec `null`: each message ends with "\0", as `find -print0` and `xargs -0` have it."""

from __future__ import annotations

from runner.codec.delimited import DelimitedCodec

NULL = DelimitedCodec("null", b"\0", "a NUL byte")
