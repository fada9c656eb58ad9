"""Answers each message with itself, through the Python SDK."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "sdk" / "python"))
from connector_processor import Processor  # type: ignore[import-not-found]


def handle(message):  # type: ignore[no-untyped-def]
    """The payload as it came."""
    return message.payload


Processor().run(handle)
