"""A NATS server of a test's own, at a port that it chose by itself, its streams in a folder of the test."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class NatsServer:
    """Can be killed and started again: then it has the same port and what it had stored."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self._program = program
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self, *, streams: bool = True) -> None:
        ports = self._folder / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir(parents=True)
        command = [
            self._program,
            "-a",
            "127.0.0.1",
            "-p",
            str(self.port),
            "--ports_file_dir",
            str(ports),
            *self._options,
        ]
        if streams:
            command += ["-js", "-sd", str(self._folder / "streams")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not (found := list(ports.glob("*.ports"))) or not found[0].read_text().strip():
            assert self._process.poll() is None, "nats-server has ended"
            assert time.monotonic() < deadline, "nats-server does not say its port"
            time.sleep(0.01)
        self.port = int(json.loads(found[0].read_text())["nats"][0].rpartition(":")[2])

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """What it has stored is gone."""
        shutil.rmtree(self._folder / "streams", ignore_errors=True)


def nats_program() -> str:
    program = shutil.which("nats-server")
    if program is None:
        pytest.skip("nats-server is not installed")
    return program


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(nats_program(), tmp_path / "nats")
    server.start()
    yield server
    server.kill()
