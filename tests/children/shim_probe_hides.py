"""Leaves a descendant behind that shares nothing with it but its descriptors, says so, and ends with code 7."""

import os
import sys

from_here = os.getpid()
if os.fork() == 0:
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    os.execv("/bin/sleep", ["sleep", "3600"])
os.wait()
print(from_here, os.getppid(), flush=True)
sys.exit(7)
