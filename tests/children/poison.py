"""Echoes lines, and dies of some: of those whose number is in BAD (a comma list), or of all while FILE is there.

    poison.py [--how exit|later|segv|kill|hang] [--buffered] [--down FILE] [--once FILE] [--hold FILE] BAD

`--once FILE`: it dies of each bad one only as long as FILE is not there; then it answers these too, as soon as the file
of `--hold FILE` is not there. `--buffered`: answers are flushed at its end,
or when its buffer is full.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path


def die(how: str) -> None:
    """End in some bad way."""
    match how:
        case "later":
            os._exit(75)
        case "segv":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
    print("cannot handle this", file=sys.stderr, flush=True)
    os._exit(3)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--how", default="exit")
    parser.add_argument("--buffered", action="store_true")
    parser.add_argument("--down", type=Path)
    parser.add_argument("--once", type=Path)
    parser.add_argument("--hold", type=Path)
    parser.add_argument("bad", nargs="?", default="")
    options = parser.parse_args()
    bad = {int(number) for number in options.bad.split(",") if number}
    for line in sys.stdin.buffer:
        number = int(line.split()[0])
        if options.down is not None and options.down.exists():
            die(options.how)
        if number in bad and not (options.once is not None and options.once.exists()):
            die(options.how)
        while number in bad and options.hold is not None and options.hold.exists():
            time.sleep(0.01)
        sys.stdout.buffer.write(line)
        if not options.buffered:
            sys.stdout.buffer.flush()


main()
