"""Forks as fast as it can, for as many times as there are bytes on descriptor 0 (that bounds it), then stays.

Whoever finds a `!` among the bytes says so on descriptor 1.
`tree`: parent and child both go on forking. `chain`: the parent ends, so that there is always one and never the same.
"""

import os
import signal
import sys

chain = sys.argv[1] == "chain"
for number in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33}:
    signal.signal(number, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while token := os.read(0, 1):
    if token == b"!":
        os.write(1, b"forking\n")
    pid = os.fork()
    if pid == 0:
        os.setsid()
    elif chain:
        os._exit(0)
while True:
    signal.pause()
