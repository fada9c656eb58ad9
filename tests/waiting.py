"""Waiting for what has no event of its own that a test could wait for."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

LIMIT_S = 20.0
"""Much else may run on this machine."""
_LOOK_AGAIN_S = 0.005


async def until(condition: Callable[[], Any], what: str = "what is due") -> Any:
    """Look until `condition`, which may be a coroutine function, is true; what it gave."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = condition()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


async def quiet(value: Callable[[], Any], looks: int = 40) -> Any:
    """Look until `value` was the same so often: nothing moves any more; what it is."""
    seen, times = value(), 0
    try:
        async with asyncio.timeout(LIMIT_S):
            while times < looks:
                await asyncio.sleep(_LOOK_AGAIN_S)
                now = value()
                seen, times = now, times + 1 if now == seen else 0
    except TimeoutError:
        raise AssertionError(f"it never came to rest: {seen}") from None
    return seen
