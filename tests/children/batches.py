"""A program that is run once per batch: it reads its batch, from stdin or a file, and writes every line of it back.

--file PATH is where the batch is. --notes FILE appends a line with the batch's channel, numbers and attempt at each
start. --mortal P kills itself in that share of its runs, at a moment that depends on the batch and its attempt: before
it reads, in the middle of its output, or behind all of it. --fail-first fails the first attempt of each batch, behind
half of its output. --poison NUMBER fails whenever a line begins with that number. --pause S sleeps before it ends,
--late FILE waits for that file before it ends. --port NAME writes each line to that port as well.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, default=None)
    parser.add_argument("--notes", type=Path, default=None)
    parser.add_argument("--mortal", type=float, default=0.0)
    parser.add_argument("--fail-first", action="store_true")
    parser.add_argument("--poison", type=int, nargs="*", default=())
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--late", type=Path, default=None)
    parser.add_argument("--port", default=None)
    options = parser.parse_args()
    batch, attempt = os.environ["CONNECTOR_BATCH"], os.environ["CONNECTOR_ATTEMPT"]
    if options.notes is not None:
        with options.notes.open("ab", buffering=0) as notes:
            notes.write(f"{os.environ['CONNECTOR_BATCH_CHANNEL']} {batch} {attempt}\n".encode())
    chance = random.Random(f"{batch} {attempt}")
    moment = chance.choice(["before", "between", "behind"]) if chance.random() < options.mortal else None
    if moment == "before":
        die()
    data = sys.stdin.buffer.read() if options.file is None else options.file.read_bytes()
    lines = data.splitlines(keepends=True)
    if moment == "between":
        write_all(1, data[: chance.randint(0, len(data))])
        die()
    if options.fail_first and attempt == "1":
        write_all(1, b"".join(lines[: len(lines) // 2]))
        sys.exit("not the first time")
    for line in lines:
        with contextlib.suppress(ValueError, IndexError):
            if int(line.split()[0]) in options.poison:
                sys.exit(f"cannot stand {line.split()[0].decode()}")
    write_all(1, data)
    if options.port is not None:
        write_all(os.open(os.environ[f"CONNECTOR_WRITER_{options.port.upper()}"], os.O_WRONLY), data)
    if moment == "behind":
        die()
    time.sleep(options.pause)
    while options.late is not None and not options.late.exists():
        time.sleep(0.005)


main()
