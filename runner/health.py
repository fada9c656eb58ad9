"""Asks a runner for its health, as the health check of its container does every other second.

Nothing but sockets is imported, for that question must cost next to nothing.
"""

from __future__ import annotations

import socket

DEFAULT = "127.0.0.1:8099"
"""Where a sidecar answers unless it is told otherwise."""
_LONGEST_S = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where others listen


def check(host: str, port: int) -> str | None:
    """Ask `GET /health` there: None when the runner is well, else why not."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with socket.create_connection((_EVERYWHERE.get(host, host), port), timeout=_LONGEST_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: runner\r\nConnection: close\r\n\r\n")
            head = connection.recv(64)
    except OSError as error:
        return f"nobody answers at {place}: {error.strerror or error}"
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        return f"what answers at {place} is no runner"
    return None if words[1] == b"200" else f"it is getting ready (HTTP status {words[1].decode('latin-1')})"
