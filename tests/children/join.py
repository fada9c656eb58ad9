"""Reads two named ports in turn, so many lines of the first and then as many of the second, and copies to stdout.

A diamond around it deadlocks when one branch is full before the other has a line.
usage: join.py FIRST SECOND LINES
"""

import os
import sys

first, second = (
    open(os.environ[f"CONNECTOR_READER_{name.upper()}"], "rb")  # noqa: PTH123, SIM115
    for name in sys.argv[1:3]
)
many = int(sys.argv[3])
while True:
    lines = [port.readline() for port in [first] * many + [second] * many]
    sys.stdout.buffer.writelines(lines)
    sys.stdout.buffer.flush()
    if not all(lines):
        break
