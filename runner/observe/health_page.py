"""Health over HTTP, for who starts and watches the runner itself: `GET /health` and `GET /ready`.

/health is 200 from when everything that others connect to is there until the run is over, whatever the processors do.
/ready is 200 while every processor runs and every channel has joined its far end, else 503. Both say why, as JSON.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from runner import health
from runner.errors import EXIT_USAGE, MachineError, RunnerError
from runner.supervise.run import Run

MOST_CONNECTIONS = 16
MOST_REQUEST_BYTES = 8 << 10
REQUEST_S = 5.0
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class AddressError(RunnerError):
    """What was given is no address."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class Address:
    """Where it is answered."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(text: str) -> Address | None:
    """HOST:PORT, or None for "off". Raises RunnerError for anything else."""
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise AddressError(
            f'"{text}" is no address for health', remedy='write HOST:PORT, such as 127.0.0.1:8099, or "off"'
        )
    return Address(host.strip("[]") or "127.0.0.1", int(port))


def answer(run: Run, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body for a GET of `path`."""
    if path == "/health":
        return (200 if run.prepared else 503), _body(run, ok=run.prepared)
    if path == "/ready":
        body = _body(run, ok=True)
        body["ok"] = run.prepared and not body["waiting"]
        return (200 if body["ok"] else 503), body
    return 404, {"ok": False, "cause": "ask for /health or /ready"}


def _body(run: Run, *, ok: bool) -> dict[str, Any]:
    processors = {
        name: {"state": str(each.state), "ready": each.ready, "cause": each.row().waiting or each.cause}
        for name, each in run.processors.items()
    }
    channels = run.troubles()
    waiting = [f"{name}: {each['cause']}" for name, each in processors.items() if not each["ready"]]
    waiting += [f"channel {name}: {trouble}" for name, trouble in channels.items()]
    return {
        "ok": ok,
        "pipeline": run.pipeline.name,
        "run": run.id,
        "stopping": run.stopping,
        "waiting": waiting,
        "processors": processors,
        "channels": channels,
    }


class HealthPage:
    """Answers as long as it is entered. Raises MachineError where the address cannot be had."""

    def __init__(self, run: Run, address: Address) -> None:
        self._run = run
        self._address = address
        self._server: asyncio.Server | None = None
        self._open = 0

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(
                self._serve, self._address.host, self._address.port, limit=MOST_REQUEST_BYTES, backlog=MOST_CONNECTIONS
            )
        except OSError as error:
            raise MachineError(
                f"health cannot be answered at {self._address}: {error.strerror or error}",
                remedy='choose another address with --health HOST:PORT, or "off"',
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST_CONNECTIONS:
                async with asyncio.timeout(REQUEST_S):
                    writer.write(await self._answered(reader))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(400, {"ok": False, "cause": "the request is too long"})
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(400, {"ok": False, "cause": "this is no HTTP request"})
        if words[0] not in {b"GET", b"HEAD"}:
            return _response(405, {"ok": False, "cause": "only GET is answered"})
        status, body = answer(self._run, words[1].split(b"?")[0].decode("latin-1"))
        return _response(status, body, head_only=words[0] == b"HEAD")


def _response(status: int, body: dict[str, Any], *, head_only: bool = False) -> bytes:
    text = json.dumps(body, ensure_ascii=False).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else text)


def check(address: Address) -> str | None:
    """Ask a runner for its health: None when it is well, else why not."""
    return health.check(address.host, address.port)
