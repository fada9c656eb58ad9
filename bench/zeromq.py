"""What `bridge = "zeromq"` costs beside the same over standard input and output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from bench.measure import Ratio, Run, chain, folder, interleave, program, taken
from bench.ratios import CAT, Row, Size, checked, row

_SOCKETS = """
import os, zmq
context = zmq.Context()
here, there = context.socket(zmq.PULL), context.socket(zmq.PUSH)
here.connect(os.environ["CONNECTOR_READER_STDIN"])
there.connect(os.environ["CONNECTOR_WRITER_STDOUT"])
while message := here.recv():
    there.send(message)
context.destroy(linger=-1)
"""
_PIPES = """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
"""
_DEALER = """
import os, zmq
context = zmq.Context()
runner = context.socket(zmq.DEALER)
runner.connect(os.environ["CONNECTOR_ENDPOINT"])
runner.send(b"ready 0 1")
while True:
    header, *payload = runner.recv_multipart()
    words = header.split()
    if words[0] == b"msg":
        runner.send_multipart([b"out %b %b stdout" % (words[1], words[2]), payload[0]])
        runner.send(b"ack 0 " + words[2])
    elif words[0] == b"ping":
        runner.send(b"pong 0 " + words[2])
    elif words[0] == b"end" and len(words) == 2:
        break
runner.send(b"end 0")
context.destroy(linger=-1)
"""
_FRAMES = """
import sys
read, write = sys.stdin.buffer, sys.stdout.buffer
write.write(b"ready 0 1\\n")
write.flush()
while True:
    words = read.readline().split()
    payload = read.read(int(words[1]))
    if words[0] == b"msg":
        write.write(b"out %b %b stdout\\n%back 0 %b\\n" % (words[1], words[2], payload, words[2]))
        if not read.peek():
            write.flush()
        elif int(words[2]) % 64 == 0:
            write.flush()
    elif words[0] == b"ping":
        write.write(b"pong 0 %b\\n" % words[2])
        write.flush()
    elif words[0] == b"end" and len(words) == 2:
        break
write.write(b"end 0\\n")
"""
_SOCKET: dict[str, Any] = {"bridge": "zeromq", "stop": {"grace": "60s"}}


def _python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def _through(lines: int, middle: list[str], **keys: Any) -> tuple[float, float]:
    """100-byte messages a second through this program, and the runner's own CPU time for a million of them."""
    with folder() as at:
        out = at / "taken"
        with Run(at, chain(program("source", lines, 100), middle, program("sink", out), **keys)) as run:
            report = run.finish()
        found = checked(taken(out), lines, 100)
        return found.lines / found.seconds, report["supervisor"]["cpu_s"] * 1e6 / lines


def _compared(name: str, what: str, lines: int, rounds: int, ours: dict[str, Any], peer: dict[str, Any]) -> list[Row]:
    spent: list[tuple[float, float]] = []

    def measure(keys: dict[str, Any], whose: int) -> float:
        speed, cpu_s = _through(lines, **keys)
        spent.append((whose, cpu_s))
        return speed

    ratio = interleave(lambda: measure(ours, 0), lambda: measure(peer, 1), rounds)
    times = [tuple(cpu_s for each, cpu_s in spent if each == whose)[1:] for whose in (0, 1)]
    cost = Ratio(times[0], times[1])
    return [
        row("zeromq", f"{name}, messages/s", what, ratio, 0.0, "M/s", 1e6),
        row("zeromq", f"{name}, the runner's CPU time for a million", what, cost, 0.0, "s", 1.0),
    ]


def zeromq(size: Size) -> list[Row]:
    """Plain sockets without a library, with pyzmq, and the protocol over a DEALER; 100-byte messages."""
    many, few = size.small_lines // 5, size.small_lines // 40
    bare = {"middle": program("zcat"), **_SOCKET}
    plain = {"middle": _python(_SOCKETS), "end": "empty", **_SOCKET}
    dealer = {"middle": _python(_DEALER), "contract": "acknowledged", **_SOCKET}
    return [
        *_compared("ZeroMQ, PULL and PUSH in C", "`cat` by stdio", many, size.rounds, bare, {"middle": CAT}),
        *_compared(
            "ZeroMQ, PULL and PUSH in Python (pyzmq)",
            "Python by stdio, line by line",
            few,
            size.rounds,
            plain,
            {"middle": _python(_PIPES)},
        ),
        *_compared(
            "acknowledged over a DEALER in Python (pyzmq), one by one",
            "Python by stdio, one by one",
            few // 5,
            size.rounds,
            dealer,
            {"middle": _python(_FRAMES), "contract": "acknowledged"},
        ),
    ]


ZEROMQ: dict[str, Callable[[Size], list[Row]]] = {"zeromq": zeromq}
