"""Drives `connector sidecar`, with shims as plain processes where a user has containers."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import tomli_w

from tests.addresses import free_port
from tests.e2e.connector import RUNNER, Result, Running, until
from tests.launch.shims import Shims


class Sidecar:
    """A sidecar that can be killed and started again, and the containers beside it. `folder` holds its file."""

    def __init__(self, folder: Path, pipeline: Mapping[str, Any], *options: str) -> None:
        self.folder = folder
        self.shims = Shims()
        self.port = free_port()
        self.options = options
        self.report = folder / "report.json"
        self.running: Running | None = None
        (folder / "pipeline.toml").write_text(tomli_w.dumps({"name": "test"} | dict(pipeline)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running is not None:
            self.running.__exit__()
        self.shims.close()

    def begin(self) -> Running:
        """Start it, and wait until it is healthy: its sockets are there."""
        if self.running is not None:
            self.running.__exit__()
        command = [
            *RUNNER,
            "sidecar",
            "--bridges",
            str(self.shims.path),
            "--health",
            f"127.0.0.1:{self.port}",
            "--report",
            str(self.report),
            *self.options,
        ]
        self.running = Running(command, self.folder, self.report, {})
        until(lambda: self.dead() or self.ask("/health")[0] == 200, "the sidecar to be healthy")
        return self.running

    def dead(self) -> bool:
        """Whether it has ended."""
        return self.running is not None and self.running.process.poll() is not None

    def containers(self, *names: str, wrap: Callable[[list[str]], list[str]] = list) -> list[subprocess.Popen[bytes]]:
        """Start one of each."""
        return [self.shims.start(name, wrap) for name in names]

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body; (0, {}) where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        return 0, {}

    def cause(self, name: str) -> str:
        """Why a processor is in its state."""
        return str(self.ask("/ready")[1].get("processors", {}).get(name, {}).get("cause"))

    def finish(self, limit_s: float = 60.0) -> Result:
        """Wait for its end."""
        assert self.running is not None
        return self.running.finish(limit_s)
