"""A durable channel against brokers that keep messages on the disk: NATS JetStream and Redis streams.

One producer, one consumer, 100-byte messages, the same durability, each client pipelining as its library offers it. A
broker that is not installed is left out, and it is said.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.durable import DISK, PROCESS
from bench.measure import HERE, LIMIT_S, NS, Run, chain, folder, free_port, interleave, program, taken, wait_until
from bench.ratios import Row, Size, checked, row

_BYTES = 100
_TIMES = 5.0
_REDIS = HERE / "programs" / "redis_client.py"
_NATS = HERE / "programs" / "nats_client.py"


def brokers(size: Size) -> list[Row]:
    """All of it, of what is installed."""
    rows: list[Row] = []
    for name, command, module, measure in (
        ("Redis", "redis-server", "redis", _redis_rows),
        ("NATS", "nats-server", "nats", _nats_rows),
    ):
        if shutil.which(command) is None or importlib.util.find_spec(module) is None:
            print(f"{name} is left out: {command} or the Python package `{module}` is not installed", file=sys.stderr)
        else:
            rows += measure(size)
    return rows


def _redis_rows(size: Size) -> list[Row]:
    count = size.small_lines // 40
    return [
        _compared(name, f"Redis stream, appendfsync {sync}", channel, lambda sync=sync: _redis(count, sync), size)  # type: ignore[misc]
        for name, channel, sync in (("process", PROCESS, "no"), ("disk", DISK, "always"))
    ]


def _nats_rows(size: Size) -> list[Row]:
    """Debian's server (2.9) cannot sync each message: it syncs every two minutes, against either durability of ours."""
    count = size.small_lines // 100
    peer = "JetStream file store, its own sync interval"
    return [
        _compared(name, peer, channel, lambda: _jetstream(count), size)
        for name, channel in (("process", PROCESS), ("disk", DISK))
    ]


def _compared(name: str, peer: str, channel: dict[str, Any], measure: Callable[[], float], size: Size) -> Row:
    lines = size.small_lines // 4
    ratio = interleave(lambda: _ours(lines, channel), measure, size.rounds)
    what = f"durable {name}: one producer, one consumer, 100-byte messages/s"
    return row("durable-brokers", what, peer, ratio, _TIMES, "k/s", 1e3)


def _ours(lines: int, channel: dict[str, Any]) -> float:
    with folder() as at:
        out = at / "taken"
        with Run(at, chain(program("source", lines, _BYTES), program("sink", out)), {"c1": channel}) as run:
            run.finish()
        found = checked(taken(out), lines, _BYTES)
        return found.lines / found.seconds


@contextlib.contextmanager
def _server(command: list[str], answers: Callable[[], object]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(answers, f"{command[0]} to answer")
        yield
    finally:
        process.kill()
        process.wait()


def _clients(script: Path, at: str, count: int) -> float:
    """Messages a second at the consumer, which is there before the producer."""
    arguments = [at, str(count), str(_BYTES)]
    consumer = subprocess.Popen([sys.executable, str(script), "consume", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        subprocess.run([sys.executable, str(script), "produce", *arguments], check=True, timeout=LIMIT_S)
        told, _ = consumer.communicate(timeout=LIMIT_S)
    finally:
        consumer.kill()
    seen, first, last = map(int, told.split())
    return seen / ((last - first) / NS)


def _redis(count: int, sync: str) -> float:
    with folder() as at:
        path = at / "redis.sock"
        options = ["--appendonly", "yes", "--appendfsync", sync, "--save", "", "--auto-aof-rewrite-percentage", "0"]
        command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(at), *options]
        with _server(command, path.exists):
            import redis

            redis.Redis(unix_socket_path=str(path)).execute_command(
                "XGROUP", "CREATE", "messages", "group", "0", "MKSTREAM"
            )
            return _clients(_REDIS, str(path), count)


def _jetstream(count: int) -> float:
    with folder() as at:
        port = free_port()
        command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(at)]
        with _server(command, lambda: _listens(port)):
            url = f"nats://127.0.0.1:{port}"
            subprocess.run([sys.executable, str(_NATS), "prepare", url], check=True, timeout=60)
            return _clients(_NATS, url, count)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


BROKERS: dict[str, Callable[[Size], list[Row]]] = {"durable-brokers": brokers}
