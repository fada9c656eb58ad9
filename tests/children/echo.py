"""Answers each message with itself. usage: echo.py [CODEC]."""

import os
import sys

from messages import frame, unframe

codec = sys.argv[1] if len(sys.argv) > 1 else "lines"
rest = b""
while data := os.read(0, 1 << 16):
    whole, rest = unframe(rest + data, codec)
    view = memoryview(b"".join(frame(each, codec) for each in whole))
    while view:
        view = view[os.write(1, view) :]
