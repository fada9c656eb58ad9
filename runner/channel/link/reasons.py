"""What becomes of connections, in words for people."""

from __future__ import annotations

import os
import socket
import ssl

from runner.channel import tls


def reason(error: BaseException) -> str:
    """Why a connection is no more, or never was, in words that end a sentence."""
    below = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error  # of aiohttp's errors
    if isinstance(below, ssl.SSLError):
        return tls.why_not(below)
    if isinstance(error, socket.gaierror):
        return "its host's name is not known"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno is not None else _last_reason(str(error))
    return str(error) or type(error).__name__


def _last_reason(text: str) -> str:
    """Of what asyncio says when it has tried several addresses."""
    return "connection refused" if "refused" in text else text.lower()


def named(address: tuple[object, ...] | None) -> str:
    """An address as people write it."""
    if not address:
        return "somebody"
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
