"""Addresses of this machine."""

from __future__ import annotations

import socket
from pathlib import Path


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody does: looked up, as who tries it would be somebody who came."""
    tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = (line.split() for line in tables.splitlines() if "local_address" not in line)
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
