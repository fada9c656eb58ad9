"""Addresses of this machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

HAS_IPV6 = Path("/proc/net/if_inet6").exists() and "00000000000000000000000000000001" in Path(
    "/proc/net/if_inet6"
).read_text(encoding="ascii")
"""Whether this machine has the address ::1."""

_LOWEST = 12_000
_OWN = 256


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this machine that nobody listens at, and that nobody gets who does not ask for just that one.

    The kernel gives out higher ones by itself, and tests of other processes ask for others.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in itertools.islice(_PORTS, _OWN):
        with contextlib.suppress(OSError), socket.create_server((host, port), family=family):
            return port
    raise AssertionError("every port is taken")


def _own_ports() -> Iterator[int]:
    lowest_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    parts = (lowest_of_kernel - _LOWEST) // _OWN
    assert parts > 0, "the kernel gives out nearly all ports by itself"
    first = _LOWEST + os.getpid() % parts * _OWN
    return itertools.cycle(range(first, first + _OWN))


_PORTS = _own_ports()


def listens(port: int) -> bool:
    """Whether somebody does: looked up, as who tries it would be somebody who came."""
    tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = (line.split() for line in tables.splitlines() if "local_address" not in line)
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
