"""Errors of the runner itself while a run goes on: those of callbacks, which nobody awaits, and the first of many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any


@contextlib.contextmanager
def callback_errors() -> Iterator[asyncio.Future[None]]:
    """A future that fails with the first error that a callback of the event loop raises."""
    loop = asyncio.get_running_loop()
    broken: asyncio.Future[None] = loop.create_future()
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException) and "handle" in context and _is_ours(error) and not broken.done():
            broken.set_exception(error)
        elif before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield broken
    finally:
        loop.set_exception_handler(before)
        broken.cancel()
        if not broken.cancelled():
            broken.exception()  # somebody has seen it


def _is_ours(error: BaseException) -> bool:
    """Whether it came through this package: a host's own errors are none of the run's."""
    return any(frame.f_globals.get("__name__", "").startswith("runner.") for frame, _ in walk_tb(error.__traceback__))


async def raise_from(broken: asyncio.Future[None]) -> None:
    """Wait for that error, and raise it."""
    await broken


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a person should see: the first of a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
