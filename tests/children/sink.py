"""A sink: appends its input to FILE as it comes. --port NAME reads that port. --delay S waits after each read.

--until FILE reads nothing before that file is there. --ack prints a line for each line it has stored. --lines appends
whole lines only, so that several may share a file, and a killed one leaves no half of one.
"""

import argparse
import os
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--port", default=None)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--until", type=Path, default=None)
    parser.add_argument("--read", type=int, default=1 << 20)
    parser.add_argument("--ack", action="store_true")
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args()
    source = 0
    if options.port:
        source = os.open(os.environ[f"CONNECTOR_READER_{options.port.upper()}"], os.O_RDONLY)
    while options.until is not None and not options.until.exists():
        time.sleep(0.005)
    rest = b""
    with options.file.open("ab", buffering=0) as out:
        while data := os.read(source, options.read):
            if options.lines:
                whole, newline, rest = (rest + data).rpartition(b"\n")
                data = whole + newline
            out.write(data)
            if options.ack:
                os.write(1, b"stored\n" * data.count(b"\n"))
            if options.delay:
                time.sleep(options.delay)


main()
