"""What leaves its runner: channels between two runners, against a memory channel and against each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import RUNNER, Run, bare, folder, free_port, interleave, program, taken
from bench.ratios import Row, Size, checked, row

MEMORY: dict[str, Any] = {"kind": "memory"}


def through(lines: int, width: int, channel: dict[str, Any]) -> tuple[float, float]:
    """Bytes and messages a second from a source to a sink, over one channel: of one runner, or between two."""
    with folder() as at:
        out = at / "taken"
        source: dict[str, Any] = {"command": program("source", lines, width), "writes": "c"}
        sink: dict[str, Any] = {"command": program("sink", out), "reads": "c"}
        more: dict[str, Any] = {}
        if channel["kind"] != "memory":
            channel = {"address": f"127.0.0.1:{free_port()}", **channel}
            source["runner"], sink["runner"] = "left", "right"
            more = {"runners": {"left": {}, "right": {}}}
        with Run(at, {"source": source, "sink": sink}, {"c": channel}, **more) as run:
            run.end()
        found = checked(taken(out), lines, width)
        return found.bytes / found.seconds, found.lines / found.seconds


def through_bare(lines: int, width: int, *, joined: bool) -> float:
    """Bytes a second from a source to a sink through a bare relay, or through two that are joined by TCP."""
    with folder() as at:
        out = at / "taken"
        source, sink = program("source", lines, width), program("sink", out)
        if joined:
            port = free_port()
            bare([program("relay", "from", port), sink], [source, program("relay", "to", port)])
        else:
            bare([source, program("relay"), sink])
        found = checked(taken(out), lines, width)
        return found.bytes / found.seconds


def links(size: Size) -> list[Row]:
    """Each kind between two runners."""
    small, large = size.small_lines // 2, size.large_lines
    with folder() as keys:
        _make_keys(keys)
        tls = {name: str(keys / "keys" / file) for name, file in _FILES.items()}
        tcp, over_tls = {"kind": "tcp"}, {"kind": "tcp", "tls": tls}
        websocket, zeromq = {"kind": "websocket"}, {"kind": "zeromq"}
        curve = {"kind": "zeromq", "keys": str(keys / "keys")}
        return [
            _row(size, "tcp: 10 KiB lines, bytes/s", tcp, "`memory`", MEMORY, large, 10_240, 0.8),
            _bare_row(size, large, 10_240),
            _row(size, "tcp: 100-byte lines, messages/s", tcp, "`memory`", MEMORY, small, 100, 0.5),
            _row(size, "tcp with TLS: 10 KiB lines, bytes/s", over_tls, "tcp without", tcp, large, 10_240, 0.5),
            _row(size, "websocket: 10 KiB lines, bytes/s", websocket, "tcp", tcp, large, 10_240, 0.6),
            _row(size, "zeromq: 10 KiB lines, bytes/s", zeromq, "tcp", tcp, large, 10_240, 0.0),
            _row(size, "zeromq with CURVE: 10 KiB lines, bytes/s", curve, "tcp", tcp, large // 4, 10_240, 0.0),
        ]


_FILES = {"ca": "ca.pem", "cert": "runner.pem", "key": "runner.key"}


def _make_keys(at: Path) -> None:
    import subprocess

    subprocess.run([*RUNNER, "keys", "keys"], cwd=at, check=True, stdout=subprocess.DEVNULL)


def _row(
    size: Size,
    what: str,
    ours: dict[str, Any],
    peer: str,
    theirs: dict[str, Any],
    lines: int,
    width: int,
    least: float,
) -> Row:
    index = 1 if width == 100 else 0

    def rate(channel: dict[str, Any]) -> float:
        return through(lines, width, channel)[index]

    ratio = interleave(lambda: rate(ours), lambda: rate(theirs), size.rounds)
    unit, scale = ("M/s", 1e6) if index else ("MB/s", 1e6)
    return row("links", what, peer, ratio, least, unit, scale)


def _bare_row(size: Size, lines: int, width: int) -> Row:
    """What the kernel alone leaves of the bytes: no link can be better."""
    ratio = interleave(
        lambda: through_bare(lines, width, joined=True), lambda: through_bare(lines, width, joined=False), size.rounds
    )
    what = "two bare relays joined by TCP: 10 KiB lines, bytes/s"
    return row("links", what, "one bare relay", ratio, 0.0, "MB/s", 1e6)


LINKS: dict[str, Callable[[Size], list[Row]]] = {"links": links}
