"""What every kind of channel owes to its writer and its readers, run against every kind.

What a kind cannot do by its nature is in EXCEPTIONS, with the reason, and in docs/network.md; everything else it does.
The finer obligations of channels that never leave their runner are in `test_channels` and `test_durable_machine`.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.kinds import KINDS, LINKS, PLAIN, ChannelLine, Line, opened
from tests.docs.pages import PROJECT
from tests.faults.proxy import Fault, Proxy, Way, What
from tests.nats_server import NatsServer

pytestmark = [  # nats-py leaves the streams of connections that it has given up
    pytest.mark.filterwarnings("ignore:(unclosed|loop is closed):ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]
BATCH_BYTES = 1000
WIDTH = 10
"""Digits of a number, so that half of one is seen to be that."""
CAPACITY_BYTES = 64 << 10
FRAME_BYTES = 256 << 10
KERNEL_BYTES = sum(int(Path(f"/proc/sys/net/ipv4/tcp_{each}").read_text().split()[2]) for each in ("wmem", "rmem"))
"""The most that the kernel keeps of one connection at both its ends."""
BETWEEN_BYTES = {
    "memory": 0, "durable": 0, "pipe": 1 << 20, "nats": 1_500_000, "http": CAPACITY_BYTES + (64 << 10),
    **dict.fromkeys(LINKS, 2 * CAPACITY_BYTES + 2 * FRAME_BYTES),
    **dict.fromkeys(PLAIN, KERNEL_BYTES + CAPACITY_BYTES + (1 << 20)),
}  # fmt: skip
"""More than what its writer's end holds: the queue at the other end, and what is on its way."""

NEVER_FULL = "it has room while the disk has"
UNHEARD = "who reads is not known to who writes"
IN_MEMORY = "what is in memory goes with its runner"
HERE = "it has no connection"
AT_MOST_ONCE = "at most once: what was on its way is lost"
EXCEPTIONS = {
    ("file", "full"): NEVER_FULL,
    ("file", "left"): NEVER_FULL,
    ("file", "end"): "a file that is followed may always grow",
    ("nats", "left"): UNHEARD,
    ("http", "left"): UNHEARD,
    ("http", "end"): "others may post as well: it goes on until it is stopped",
    ("pipe", "left"): "its writer gets SIGPIPE",
    ("pipe", "fan-out"): "it has one reader",
    ("pipe", "restart"): IN_MEMORY,
    ("memory", "restart"): IN_MEMORY,
    ("zeromq+plain", "end"): "nobody is told over ZeroMQ that a peer has ended",
    **{(kind, "left"): UNHEARD for kind in PLAIN},
    **{(kind, "restart"): AT_MOST_ONCE for kind in PLAIN},
    **{(kind, which): HERE for kind in ("memory", "pipe", "durable", "file") for which in ("again", "reconnect")},
    **{(kind, "reconnect"): AT_MOST_ONCE for kind in PLAIN},
}
SHOWN = {
    "order": "messages come whole, once, and in the order of each writer",
    "end": "its readers find the end after the last message",
    "full": "a reader that does not read makes the writer wait, after a bounded number of bytes",
    "left": "readers that have left hold up nobody",
    "fan-out": "each reader gets all of it",
    "restart": "killed at both ends and started again it goes on, where it is durable",
    "again": "a connection that is cut is made again, and messages go on: whole, in order, none of them twice",
    "reconnect": "a connection that is cut loses and doubles nothing",
}
OBLIGATIONS = tuple(SHOWN)


def owed(obligation: str) -> pytest.MarkDecorator:
    """All kinds that have it."""
    assert obligation in OBLIGATIONS
    return pytest.mark.parametrize("kind", [kind for kind in KINDS if (kind, obligation) not in EXCEPTIONS])


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What nats-py has left open is found in the test that made it."""
    yield
    gc.collect()


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the channel needs to be told, of a server that is there."""
    if kind != "nats":
        return {}
    server: NatsServer = request.getfixturevalue("nats_server")
    for module in ("sender", "receiver"):
        monkeypatch.setattr(f"runner.channel.nats.{module}._LEAST_STREAM_BYTES", 200_000)
    monkeypatch.setattr("runner.channel.nats.sender._FRAME_BYTES", 20_000)
    return {"url": server.url}


def run(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(act())


def numbered(first: int, count: int, size_bytes: int = 0) -> list[bytes]:
    return [b"%0*d" % (max(1, size_bytes), number) for number in range(first, first + count)]


async def write(line: Line, payloads: list[bytes], chance: random.Random | None = None) -> None:
    """In batches of any size."""
    at = 0
    while at < len(payloads):
        count = 10 if chance is None else chance.choice((1, 2, 7, 100))
        await line.write(payloads[at : at + count])
        at += count


@owed("order")
@pytest.mark.parametrize("codec", ["lines", "null", "length-prefixed"])
def test_messages_come_whole_and_in_order(kind: str, codec: str, tmp_path: Path, place: dict[str, Any]) -> None:
    chance = random.Random(codec)
    filler = {"lines": b"\0\xff", "null": b"\n\xff", "length-prefixed": b"\0\n\xff"}[codec]
    sizes = [chance.choice((0, 1, 80, 5000, 70_000)) for _ in range(300)]
    sent = [b"%d " % number + (filler * size)[:size] for number, size in enumerate(sizes)]

    async def act() -> None:
        async with opened(kind, tmp_path, codec=codec, **place) as line, asyncio.TaskGroup() as group:
            group.create_task(write(line, sent, chance))
            assert await line.read(len(sent)) == sent

    run(act)


@owed("end")
def test_its_readers_end_after_the_last_message(kind: str, tmp_path: Path, place: dict[str, Any]) -> None:
    async def act() -> None:
        async with opened(kind, tmp_path, **place) as line:
            await write(line, numbered(1, 100))
            assert await line.read(99) == numbered(1, 99)
            ending = asyncio.create_task(line.read(None))
            await line.end()
            assert await ending == numbered(100, 1)
            await line.over()

    run(act)


@owed("full")
def test_a_reader_that_does_not_read_holds_up_the_writer(kind: str, tmp_path: Path, place: dict[str, Any]) -> None:
    """After a bounded number of bytes, and not for longer than it does not read."""
    count = 3000
    payloads = numbered(1, count, BATCH_BYTES // 10 - 1)
    bound = CAPACITY_BYTES + BATCH_BYTES + BETWEEN_BYTES[kind]

    async def act() -> None:
        async with opened(kind, tmp_path, capacity_bytes=CAPACITY_BYTES, **place) as line:
            written = 0

            async def write() -> None:
                nonlocal written
                while True:
                    first = written % count
                    await line.write(payloads[first : first + 10])
                    written += 10

            writing = asyncio.create_task(write())
            last = -1
            while not (line.full() and last == written):
                last = written
                await asyncio.sleep(0.3)
            assert written * BATCH_BYTES // 10 <= bound, f"{written} messages before it was full"
            if isinstance(line, ChannelLine):
                assert all(reader.queued_bytes <= CAPACITY_BYTES + FRAME_BYTES for reader in line.readers)
            got = await line.read(written + 500)
            assert got == [payloads[number % count] for number in range(len(got))]
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    run(act)


@owed("left")
def test_readers_that_have_left_hold_up_nobody(kind: str, tmp_path: Path, place: dict[str, Any]) -> None:
    async def act() -> None:
        async with opened(kind, tmp_path, capacity_bytes=CAPACITY_BYTES, readers=2, **place) as line:
            await write(line, numbered(1, 10))
            for number, reader in enumerate(line.readers):
                assert await line.read(10, number) == numbered(1, 10)
                reader.leave(for_good=True)
            written = 0
            while line.writer.wanted or written < 2 * CAPACITY_BYTES:
                await line.write([b"x" * BATCH_BYTES])
                written += BATCH_BYTES
            await line.end()
            await line.over()

    run(act)


@owed("fan-out")
def test_each_reader_gets_all(kind: str, tmp_path: Path, place: dict[str, Any]) -> None:
    async def act() -> None:
        async with opened(kind, tmp_path, readers=2, **place) as line, asyncio.TaskGroup() as group:
            group.create_task(write(line, numbered(1, 2000)))
            readers = [group.create_task(line.read(2000, number)) for number in range(2)]
            for reading in readers:
                assert await reading == numbered(1, 2000)

    run(act)


@owed("restart")
def test_both_sides_killed_and_started_again(kind: str, tmp_path: Path, place: dict[str, Any]) -> None:
    """Where it is durable: what was acknowledged does not come again, all else does, once."""
    durable = {} if kind in ("durable", "file") else {"durable": True}

    async def act() -> None:
        got: list[bytes] = []
        async with opened(kind, tmp_path, **durable, **place) as line:
            for round_ in range(4):
                first = 300 * round_ + 1
                writing = asyncio.create_task(write(line, numbered(first, 300)))
                got += await line.read(200 if round_ else 100)
                await writing
                await line.kill()
                await line.open()
            got += await line.read(1200 - len(got))
        assert got == numbered(1, 1200)

    run(act)


@owed("again")
def test_connections_that_are_cut_are_made_again(kind: str, tmp_path: Path, place: dict[str, Any]) -> None:
    got = _through_cuts(kind, tmp_path, place)
    assert {len(payload) for payload in got} == {WIDTH}, "whole"
    assert got == sorted(set(got)), "in order, none twice"
    if (kind, "reconnect") not in EXCEPTIONS:
        assert got == numbered(0, len(got), WIDTH), "all"


def _through_cuts(kind: str, folder: Path, place: dict[str, Any]) -> list[bytes]:
    """What comes while connections are cut, and after that."""
    got: list[bytes] = []
    cuts = [Fault(What.RESET, Way.FORTH, 900)]
    if kind != "tcp+plain":  # there nothing goes back, and who sends no more may read on
        cuts += [
            Fault(What.RESET, Way.BACK, 10),
            Fault(What.FINISH, Way.FORTH, 900),
            Fault(What.FINISH, Way.BACK, 10),
        ]

    async def act() -> None:
        with Proxy(0) as proxy:
            if place:
                proxy.target = int(place["url"].rpartition(":")[2])
                more: dict[str, Any] = {"url": f"nats://127.0.0.1:{proxy.port}"}
            else:
                more = {"through": proxy.port, "closes": False}
            async with opened(kind, folder, **more) as line:
                if not place:
                    proxy.target = line.port
                writing = asyncio.create_task(_write_on(line))
                got.extend(await line.read(10))
                making = asyncio.create_task(asyncio.to_thread(lambda: [proxy.make(cut) for cut in cuts]))
                while not making.done():
                    got.extend(await line.read(10))
                await making
                got.extend(await line.read(100))
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        assert proxy.connections >= len(cuts)

    run(act)
    return got


async def _write_on(line: Line) -> None:
    """For as long as it takes."""
    number = 0
    while True:
        await line.write(numbered(number, 10, WIDTH))
        number += 10
        await asyncio.sleep(0.001)


def test_what_they_cannot_do_is_documented() -> None:
    """docs/network.md has the table that the suite has."""
    page = (PROJECT / "docs" / "network.md").read_text()
    for obligation in OBLIGATIONS:
        reasons: dict[str, list[str]] = {}
        for (kind, which), reason in EXCEPTIONS.items():
            if which == obligation:
                reasons.setdefault(reason, []).append(f"`{kind}`")
        told = "; ".join(f"{', '.join(kinds)}: {reason}" for reason, kinds in reasons.items()) or "none"
        assert f"| {SHOWN[obligation]} | {told} |" in page, f"| {SHOWN[obligation]} | {told} |"
