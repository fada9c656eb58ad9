"""Does what it says, and tries what it should not: to read this machine's files, its processes, its network."""

import contextlib
import socket
import sys
from pathlib import Path


def shadow() -> str:
    """The password file of this machine."""
    return Path("/etc/shadow").read_text()


def token() -> str:
    """The secret of another processor, from its environment."""
    for each in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if b"TOKEN=" in each.read_bytes():
                return str(each)
    raise PermissionError


def network() -> str:
    """A way out: an address of another machine, which is never spoken to (documentation range, RFC 5737)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname())


def stolen() -> list[str]:
    """What could be had."""
    found = []
    for attempt in (shadow, token, network):
        try:
            attempt()
        except OSError:
            continue
        found.append(attempt.__name__)
    return found


for line in sys.stdin:
    print(f"{line.strip().upper()} (stole: {', '.join(stolen()) or 'nothing'})", flush=True)
