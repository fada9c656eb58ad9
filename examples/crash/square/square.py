"""Each number in, its square out; the first time, killed half-way with answers still in its buffer."""

import os
import signal
import sys

for line in sys.stdin:
    if line == "500\n" and os.environ["CONNECTOR_ATTEMPT"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    print(int(line) ** 2)
