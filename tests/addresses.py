"""Addresses of this machine."""

from __future__ import annotations

import socket
from pathlib import Path

HAS_IPV6 = Path("/proc/net/if_inet6").exists() and "00000000000000000000000000000001" in Path(
    "/proc/net/if_inet6"
).read_text(encoding="ascii")
"""Whether this machine has the address ::1."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        port: int = listening.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody does: looked up, as who tries it would be somebody who came."""
    tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = (line.split() for line in tables.splitlines() if "local_address" not in line)
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
