"""Copies stdin to stdout, and can be asked from outside how much it has read: the oracle of the `stream` kill tests.

/proc/PID/io counts every byte that a process has read. Before it touches stdin this program writes what that counter
stands at into FOLDER/PID, so counter minus this is what was read from stdin, also at a moment between two
instructions of this program. usage: counted.py FOLDER
"""

import os
import re
import sys


def read_so_far() -> int:
    """What the counter stands at after this very look at it (which counts as well)."""
    descriptor = os.open("/proc/self/io", os.O_RDONLY)
    text = os.read(descriptor, 4096)
    os.close(descriptor)
    return int(re.search(rb"rchar: (\d+)", text)[1]) + len(text)


read_so_far()  # whatever Python still has to read for this, it has read now
name = os.path.join(sys.argv[1], str(os.getpid()))  # noqa: PTH118
out = os.open(name + ".part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(out, str(read_so_far()).encode())
os.close(out)
os.rename(name + ".part", name)  # noqa: PTH104
while data := os.read(0, 4096):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
