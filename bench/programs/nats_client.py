"""One producer or one consumer of a JetStream stream: `nats_client.py produce|consume URL COUNT SIZE`.

The producer publishes without waiting for each acknowledgement, the consumer takes many and acknowledges all at once.
It prints the number of messages and CLOCK_MONOTONIC ns of the first and of the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

import nats
from nats.errors import TimeoutError as NothingCameError
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

STREAM, SUBJECT = "messages", "messages"
AT_A_TIME = 1000


async def produce(url: str, count: int, size: int) -> None:
    """As many as the client allows without their acknowledgements."""
    client = await nats.connect(url)
    stream = client.jetstream(publish_async_max_pending=4 * AT_A_TIME)
    payload = b"x" * size
    for _ in range(count):
        await stream.publish_async(SUBJECT, payload, wait_stall=60)
    await stream.publish_async_completed()
    await client.close()


async def consume(url: str, count: int, size: int) -> tuple[int, int]:
    """Pulls of many; the acknowledgement of the last is that of all."""
    client = await nats.connect(url)
    stream = client.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.ALL, max_ack_pending=100 * AT_A_TIME)
    subscription = await stream.pull_subscribe(SUBJECT, durable="one", config=config)
    seen, first, last = 0, 0, 0
    while seen < count:
        with contextlib.suppress(NothingCameError):
            found = await subscription.fetch(AT_A_TIME, timeout=10)
            last = time.monotonic_ns()
            first = first or last
            seen += len(found)
            assert all(len(each.data) == size for each in found)
            await found[-1].ack()
    await client.close()
    return first, last


async def prepare(url: str) -> None:
    """A stream in files."""
    client = await nats.connect(url)
    await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=[SUBJECT], storage=StorageType.FILE))
    await client.close()


def main() -> None:
    """See the module."""
    what, url = sys.argv[1], sys.argv[2]
    if what == "prepare":
        asyncio.run(prepare(url))
    elif what == "produce":
        asyncio.run(produce(url, int(sys.argv[3]), int(sys.argv[4])))
    else:
        count = int(sys.argv[3])
        first, last = asyncio.run(consume(url, count, int(sys.argv[4])))
        print(count, first, last)


main()
