"""One producer or one consumer of a Redis stream, pipelined: `redis_client.py produce|consume SOCKET COUNT SIZE`.

The consumer prints the number of messages and CLOCK_MONOTONIC ns of the first and of the last.
"""

from __future__ import annotations

import sys
import time

import redis

STREAM, GROUP, ME = b"messages", b"group", b"one"
AT_A_TIME = 1000


def produce(client: redis.Redis, count: int, size: int) -> None:
    """Pipelines of many XADD."""
    payload = b"x" * size
    for begin in range(0, count, AT_A_TIME):
        pipeline = client.pipeline(transaction=False)
        for _ in range(min(AT_A_TIME, count - begin)):
            pipeline.execute_command("XADD", STREAM, "*", b"m", payload)
        pipeline.execute()


def consume(client: redis.Redis, count: int, size: int) -> tuple[int, int]:
    """Many at a time; their XACK travels with the next XREADGROUP."""
    read = ("XREADGROUP", "GROUP", GROUP, ME, "COUNT", AT_A_TIME, "BLOCK", 10_000, "STREAMS", STREAM, ">")
    seen, first, last = 0, 0, 0
    ids: list[bytes] = []
    while seen < count:
        pipeline = client.pipeline(transaction=False)
        if ids:
            pipeline.execute_command("XACK", STREAM, GROUP, *ids)
        pipeline.execute_command(*read)
        found = pipeline.execute()[-1]
        entries = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
        last = time.monotonic_ns()
        first = first or last
        ids = [entry[0] for entry in entries]
        seen += len(ids)
        assert all(len(fields[b"m" if isinstance(fields, dict) else 1]) == size for _, fields in entries)
    client.execute_command("XACK", STREAM, GROUP, *ids)
    return first, last


def main() -> None:
    """See the module."""
    what, socket, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    client = redis.Redis(unix_socket_path=socket)
    if what == "produce":
        produce(client, count, size)
    else:
        first, last = consume(client, count, size)
        print(count, first, last)


main()
