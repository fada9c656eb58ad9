"""What tests of the facts of machines share: another process that looks, and engines that are none."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runner.launch.machine import engine as engines
from runner.plan.facts import Engine
from tests.plan.machines import SYSTEM

PROJECT = Path(__file__).resolve().parents[2]
SOCKET = "/var/run/docker.sock"
HERE = replace(SYSTEM, kernel=os.uname().release)
GATHER = """
import json, msgspec
from runner.launch.machine import gather
print(json.dumps(msgspec.to_builtins(gather(surroundings=True))))
"""


def gathered(*before: str, code: str = GATHER, **environment: str) -> dict[str, Any]:
    """What another process finds, started by the words `before`."""
    done = subprocess.run(
        [*before, sys.executable, "-B", "-c", code],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def look(address: str = f"unix://{SOCKET}", *, within_s: float = 3.0) -> Engine:
    return engines.look(HERE, {"DOCKER_HOST": address}, within_s=within_s)


@contextlib.contextmanager
def listener(path: Path, serve: Callable[[socket.socket], None] | None = None, backlog: int = 8) -> Iterator[str]:
    """A unix socket that listens and, with `serve`, answers one connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(backlog)
        server.settimeout(10)
        thread = threading.Thread(target=_serve, args=(server, serve)) if serve is not None else None
        if thread is not None:
            thread.start()
        yield f"unix://{path}"
        if thread is not None:
            thread.join(20)
            assert not thread.is_alive()


def _serve(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with server.accept()[0] as connection, contextlib.suppress(OSError):
        connection.settimeout(10)
        connection.recv(4096)
        serve(connection)
