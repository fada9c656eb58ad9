"""A runner with its durable channels broken on purpose: an answer is stored a moment before what it answers is.

The negative control of the kills of runners: run in place of `python -m runner`, a message must be found twice.
"""

from __future__ import annotations

import asyncio
import importlib
import sys

from runner.channel.durable import DurableReader

LATER_S = 0.02


def break_it() -> None:
    """Acknowledge in another transaction."""
    original = DurableReader.acknowledge

    def acknowledge(reader: DurableReader, number: int, messages: int) -> None:
        asyncio.get_running_loop().call_later(LATER_S, original, reader, number, messages)

    DurableReader.acknowledge = acknowledge  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    break_it()
    sys.exit(importlib.import_module("runner.cli").main())
