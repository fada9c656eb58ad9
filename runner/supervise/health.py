"""Readiness and liveness: one probe of each kind, bounded in time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from runner.errors import RunnerError
from runner.launch.base import PROBE, Handle
from runner.plan.restart import describe
from runner.spec.model import Check
from runner.units import format_count

_LONGEST_PROBE_S = 5.0
_NOT_THERE = {
    "file": "{} is not there",
    "tcp": "nothing listens at {}",
    "http": "no answer with a status of 200 to 399 from {}",
}


async def _tcp(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]") or "127.0.0.1", int(port))
    writer.close()
    return None


def _get(url: str, timeout_s: float) -> str | None:
    import http.client
    import urllib.parse

    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
    try:
        path = parts.path or "/"
        connection.request("GET", f"{path}?{parts.query}" if parts.query else path)
        status = connection.getresponse().status
    except http.client.HTTPException as error:
        return f"no HTTP answer: {error!r}"
    finally:
        connection.close()
    return None if 200 <= status < 400 else f"HTTP status {status}"


class Prober:
    """Makes the checks of one instance: by its handle where it lives behind a wall, else from here."""

    def __init__(self, handle: Handle, directory: str | None) -> None:
        self._handle = handle
        self._directory = directory or "/"

    async def probe(self, check: Check, timeout_s: float) -> str | None:
        """None when the check passes, else why not. Takes at most `timeout_s` seconds, and raises nothing."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._once(check, timeout_s)
        except TimeoutError:
            return f"no answer within {timeout_s:g}s"
        except (OSError, ValueError, RunnerError) as error:
            return str(error) or type(error).__name__

    async def _once(self, check: Check, timeout_s: float) -> str | None:
        value = check.value
        if isinstance(value, tuple):
            exited = await self._handle.probe(value)
            return None if exited.ok else f"{value[0]} ended with {describe(exited)}"
        if check.kind in self._handle.checks_inside:
            exited = await self._handle.probe((PROBE, check.kind, value))
            return None if exited.ok else _NOT_THERE[check.kind].format(value)
        if check.kind == "file":
            there = await asyncio.to_thread(Path(self._directory, value).exists)
            return None if there else _NOT_THERE["file"].format(value)
        if check.kind == "tcp":
            return await _tcp(value)
        return await asyncio.to_thread(_get, value, timeout_s)


async def until_ready(check: Check, prober: Prober, lines: LineWatch | None) -> str | None:
    """Wait until the check passes: None, or why it did not within `check.timeout_s` (for the whole of it)."""
    try:
        async with asyncio.timeout(check.timeout_s):
            if check.kind == "line":
                assert lines is not None
                await lines.seen.wait()
                return None
            failed = 0
            while True:
                why = await prober.probe(check, min(_LONGEST_PROBE_S, check.timeout_s))
                if why is None:
                    return None
                failed += 1
                if check.failures is not None and failed >= check.failures:
                    return f"not ready: its check failed {format_count(failed, 'time')} in a row: {why}"
                await asyncio.sleep(check.every_s)
    except TimeoutError:
        what = check.value if isinstance(check.value, str) else check.value[0]
        return f"not ready within {check.timeout_s:g}s ({check.kind} {what})"


async def until_dead(check: Check, prober: Prober, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> str:
    """Watch a live program; returns why it counts as dead, once the check has failed `failures` times in a row."""
    failed = 0
    while True:
        await sleep(check.every_s)
        why = await prober.probe(check, check.timeout_s)
        failed = failed + 1 if why is not None else 0
        if failed >= (check.failures or 1):
            return f"its live check failed {failed} times in a row: {why}"


class LineWatch:
    """Looks for a log line that says that the program is ready."""

    def __init__(self, pattern: str) -> None:
        self.seen = asyncio.Event()
        self._search = re.compile(pattern.encode()).search

    def __call__(self, line: bytes) -> None:
        """One log line."""
        if self._search(line):
            self.seen.set()
