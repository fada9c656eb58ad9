"""Programs that take a lot, then echo. usage: takes.py memory|files|processes COUNT."""

import os
import signal

from misbehave import called, echo, for_ever, write_all


def memory(size: str) -> None:
    """Takes SIZE bytes; exits 9 where it may not."""
    try:
        kept = bytearray(int(size))
    except MemoryError:
        write_all(2, b"no memory\n")
        os._exit(9)
    kept[::4096] = b"x" * len(kept[::4096])
    echo()


def files(count: str) -> None:
    """Opens COUNT files; exits 9 where it may not."""
    try:
        _opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(count))]
    except OSError:
        write_all(2, b"too many files\n")
        os._exit(9)
    echo()


def processes(count: str) -> None:
    """Starts COUNT children at a time; exits 9 where it may not."""
    children = []
    try:
        for _ in range(int(count)):
            if (child := os.fork()) == 0:
                for_ever()
            children.append(child)
    except OSError:
        write_all(2, b"no more processes\n")
        os._exit(9)
    for child in children:
        os.kill(child, signal.SIGKILL)
    echo()


if __name__ == "__main__":
    called(globals())
