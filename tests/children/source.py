"""A source of numbered messages: so many, or until a file appears; as fast as it can, or at a rate.

--start written goes on after CONNECTOR_WRITTEN (resume = "self"). --die-after K ends its first --deaths runs by
SIGKILL (or --exit CODE) after K messages of that run, --half with half a message more. --linger waits for a signal
at the end. --hold K FILE waits after K messages for a file to appear. --graceful ends with 0 on TERM. --total FILE
keeps how many messages it wrote when it ends by itself.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from messages import frame, message

CHUNK_BYTES = 64 * 1024


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=None)
    parser.add_argument("--until", type=Path, default=None)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--codec", default="lines")
    parser.add_argument("--form", default="number")
    parser.add_argument("--rate", type=float, default=None)
    parser.add_argument("--start", default="1")
    parser.add_argument("--port", default=None)
    parser.add_argument("--total", type=Path, default=None)
    parser.add_argument("--die-after", type=int, default=None)
    parser.add_argument("--deaths", type=int, default=1)
    parser.add_argument("--exit", type=int, default=None)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--linger", action="store_true")
    parser.add_argument("--hold", nargs=2, default=None)
    parser.add_argument("--graceful", action="store_true")
    parser.add_argument("--started", type=Path, default=None)
    return parser.parse_args()


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def main() -> None:
    options = arguments()
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    if options.graceful:
        signal.signal(signal.SIGTERM, stop)
    out = 1
    if options.port:
        out = os.open(os.environ[f"CONNECTOR_WRITER_{options.port.upper()}"], os.O_WRONLY)
    first = int(os.environ["CONNECTOR_WRITTEN"]) + 1 if options.start == "written" else int(options.start)
    dies = options.die_after is not None and int(os.environ.get("CONNECTOR_ATTEMPT", "1")) <= options.deaths
    number = first
    began = time.monotonic()
    per_chunk = max(1, CHUNK_BYTES // (options.size + 4))
    if options.rate:
        per_chunk = max(1, min(per_chunk, int(options.rate / 200)))
    if options.started:
        options.started.touch()
    hold = None if options.hold is None else int(options.hold[0])
    while not stopped:
        if options.until is not None and options.until.exists():
            break
        last = number + per_chunk
        if options.count is not None:
            last = min(last, options.count + 1)
        if dies:
            last = min(last, first + options.die_after)
        if hold is not None and number <= hold:
            last = min(last, hold + 1)
        data = b"".join(
            frame(message(each, options.size, options.codec, options.form), options.codec)
            for each in range(number, last)
        )
        write_all(out, data)
        number = last
        while number - 1 == hold and not os.path.exists(options.hold[1]):  # noqa: PTH110
            time.sleep(0.005)
        if dies and number >= first + options.die_after:
            if options.half:
                torn = frame(message(number, options.size, options.codec, options.form), options.codec)
                write_all(out, torn[: len(torn) // 2])
            if options.exit is not None:
                os._exit(options.exit)
            os.kill(os.getpid(), signal.SIGKILL)
        if options.count is not None and number > options.count:
            break
        if options.rate:
            ahead = began + (number - first) / options.rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
    if options.total:
        temporary = options.total.with_suffix(".part")
        temporary.write_text(str(number - 1))
        temporary.rename(options.total)
    while options.linger and not stopped:
        signal.pause()
    if options.port:
        os.close(out)
    sys.exit(0)


with contextlib.suppress(BrokenPipeError):
    main()
