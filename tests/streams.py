"""Connections of tests, as streams."""

from __future__ import annotations

import asyncio
import contextlib


async def gone(writer: asyncio.StreamWriter) -> None:
    """Close it, and wait until it is: what is left of it would be told of in another test."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
