"""A program that nobody should trust: it tries to get out, says how that went, and then does its work."""

import ctypes
import os
import socket
import sys
from pathlib import Path


def connect():
    """Reach somebody, anybody."""
    socket.create_connection(("192.0.2.1", 80), timeout=2)


def resolve():
    """Ask for a name."""
    socket.getaddrinfo("example.org", 80)


def write_root():
    """Leave something in the image."""
    Path("/processor/left-behind").write_text("x")


def write_bridge():
    """Put another shim in the place of the one that started it."""
    for folder in ("/.connector", "/.shim"):
        Path(folder, "connector-shim").write_bytes(b"x")


def run_from_tmp():
    """Bring a program along."""
    program = Path("/tmp/program")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    os.posix_spawn(str(program), [str(program)], {})


def become_root():
    """Become somebody else."""
    os.setuid(0)


def new_namespace():
    """Build a world of its own (unshare(2), CLONE_NEWUSER)."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def many_processes():
    """Be too many for the machine."""
    for _ in range(200):
        if os.fork() == 0:
            signal_never()


def signal_never():
    """Stay."""
    import time

    time.sleep(3600)


def all_memory():
    """Take more than 512 MiB: whoever does that is killed, and started again."""
    kept = Path("/tmp/tried")  # of this container: a new one has none, and the first attempt only tries it
    if os.environ.get("CONNECTOR_ATTEMPT") == "1" and not kept.exists():
        sys.stderr.write("takes all memory\n")
        sys.stderr.flush()
        taken = bytearray(2 << 30)
        raise OSError(12, f"got {len(taken)} bytes")
    raise OSError(12, "not tried again")


def secrets():
    """Look for what others were told in secret."""
    if not any("PASSWORD" in name or "TOKEN" in name for name in os.environ) and not Path("/run/secrets").exists():
        raise OSError(2, "there are none")


tries = [connect, resolve, write_root, write_bridge, run_from_tmp, become_root, new_namespace, secrets, all_memory]
for attempt in tries:
    try:
        attempt()
        print(f"{attempt.__name__}: SUCCEEDED", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"{attempt.__name__}: refused ({error})", file=sys.stderr, flush=True)
if os.fork() == 0:
    try:
        many_processes()
        print("many_processes: SUCCEEDED", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"many_processes: refused ({error})", file=sys.stderr, flush=True)
    signal_never()

for line in sys.stdin:
    print(f"answer to {line.strip()}", flush=True)
