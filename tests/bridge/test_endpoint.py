"""Who connects to an endpoint: one at a time, and whoever means harm costs little and stops nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runner.bridge.inlet import Inlet
from runner.bridge.zeromq import endpoint as module
from runner.bridge.zeromq.endpoint import Endpoint
from runner.bridge.zeromq.plain import PullFeeder
from runner.channel.memory import MemoryChannel
from runner.codec.lines import LINES
from runner.codec.zeromq import ZEROMQ, ZEROMQ_NO_EMPTY
from runner.protocol import zmtp
from runner.spec.model import Channel

LIMIT_S = 20.0


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ce-", dir="/tmp") as folder:
        yield str(Path(folder, "s"))


def listener(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(0)
    made.bind(path)
    made.listen(8)
    return made


@dataclass
class Seen:
    """A taker that keeps what it is given."""

    linked: list[tuple[int, bytes]] = field(default_factory=list)
    refused: int = 0
    notes: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def link(self, descriptor: int, rest: bytes) -> None:
        self.linked.append((descriptor, rest))
        self.changed.set()

    def nobody_came(self) -> None:
        self.refused += 1
        self.changed.set()

    async def until(self, wanted: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not wanted():
                self.changed.clear()
                await self.changed.wait()


def with_endpoint(path: str, test: Callable[[Endpoint, Seen], Awaitable[None]]) -> None:
    async def run() -> None:
        seen = Seen()
        made = Endpoint("stdin", ours=b"PUSH", theirs=b"PULL", taker=seen, note=seen.notes.append, size_bytes=1 << 16)
        made.listen(listener(path))
        try:
            await test(made, seen)
        finally:
            made.close()
            made.close()
            for descriptor, _ in seen.linked:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    asyncio.run(run())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def connect(path: str, sent: bytes = b"") -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(0)
    made.connect(path)
    made.send(sent)
    return made


GOOD = zmtp.GREETING + zmtp.ready(b"PULL")


def test_who_is_right_is_let_in_with_what_it_sent(path: str) -> None:
    async def test(_: Endpoint, seen: Seen) -> None:
        with connect(path, GOOD + b"more"):
            await seen.until(lambda: seen.linked)
            assert seen.linked[0][1] == b"more"
            assert not seen.notes

    with_endpoint(path, test)


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 20, zmtp.GREETING + b"\x04\x05\x04SUBS"]
)
def test_garbage_is_refused_and_the_next_is_let_in(path: str, sent: bytes) -> None:
    async def test(_: Endpoint, seen: Seen) -> None:
        with connect(path, sent), connect(path, GOOD):
            await seen.until(lambda: seen.linked)
            assert seen.refused == 1
            assert len(seen.notes) == 1

    with_endpoint(path, test)


def test_who_says_nothing_makes_room(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHAKE_WITHIN_S", 0.1)

    async def test(made: Endpoint, seen: Seen) -> None:
        with connect(path), connect(path, GOOD[:30]), connect(path, GOOD):
            await seen.until(lambda: seen.linked)
            assert seen.refused == 2
            assert seen.notes == ["zeromq: stdin: a connection was refused: it does not say what it is"]
            assert not made.shaking

    with_endpoint(path, test)


def test_thousands_wait_in_the_kernel_or_not_at_all(path: str) -> None:
    async def test(_: Endpoint, seen: Seen) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(connect(path, GOOD))
            await seen.until(lambda: seen.linked)
            before = descriptors()
            held = 0
            for _number in range(2000):
                made = stack.enter_context(socket.socket(socket.AF_UNIX))
                made.settimeout(0)
                try:
                    made.connect(path)
                except BlockingIOError:
                    made.close()
                    break
                held += 1
                await asyncio.sleep(0)
            assert held < 20, "the kernel takes no more"
            assert descriptors() == before + held, "and none of them is let in"
            assert len(seen.linked) == 1
            assert len(seen.notes) == 1

    with_endpoint(path, test)


def test_who_comes_again_and_again_is_slowed_down(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFUSED_PAUSE_S", 3600.0)

    async def test(_: Endpoint, seen: Seen) -> None:
        with connect(path, b"no"), connect(path, b"no"), connect(path, b"no"):
            await seen.until(lambda: seen.refused)
            for _number in range(100):
                await asyncio.sleep(0)
            assert seen.refused == 1

    with_endpoint(path, test)


def test_the_log_is_bounded(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFUSED_PAUSE_S", 0.0)

    async def test(_: Endpoint, seen: Seen) -> None:
        for number in range(40):
            with connect(path, zmtp.GREETING + zmtp.ready(b"T%d" % number)):
                await seen.until(lambda: seen.refused > number)  # noqa: B023 - waited for at once
        assert len(seen.notes) == 16

    with_endpoint(path, test)


# -- a peer that was let in and means harm


async def _fed(path: str, payloads: list[bytes]) -> tuple[PullFeeder, list[str]]:
    channel = MemoryChannel(Channel("c", writers=("w",), readers=("r",)))
    reader = channel.open_reader("r", ZEROMQ_NO_EMPTY)
    writer = channel.open_writer("w", LINES)
    reader.epoch = "e"
    notes: list[str] = []
    inlet = Inlet("stdin", [reader], replicas=1)
    feeder = PullFeeder(inlet, on_progress=lambda: None, note=notes.append, says_end=True, size_bytes=10_000)
    feeder.endpoint.listen(listener(path))
    feeder.begin()
    writer.publish(LINES.batch_of(payloads))
    writer.end()
    return feeder, notes


async def _received(connection: socket.socket, size: int) -> bytes:
    data = b""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LIMIT_S):
        while len(data) < size:
            piece = await loop.sock_recv(connection, min(4096, size - len(data)))
            if not piece:
                break
            data += piece
    return data


async def _some(connection: socket.socket) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.get_running_loop().sock_recv(connection, 1000)


HELLO = zmtp.GREETING + zmtp.ready(b"PUSH")


def test_a_reader_that_asks_without_end_gets_its_messages_whole(path: str) -> None:
    """Pings while a message is half written: the answers come between messages, and not more than a few at a time."""

    async def test() -> None:
        payloads = [b"%d" % number * 3000 for number in range(1, 10)]
        feeder, _ = await _fed(path, payloads)
        with connect(path, GOOD) as peer:
            assert await _received(peer, len(HELLO)) == HELLO
            for _ in range(50):
                with contextlib.suppress(BlockingIOError):
                    peer.send(zmtp.command(b"PING", b"\0\0abc") * 20)
                await asyncio.sleep(0)
            decoder = ZEROMQ.decoder(1 << 20)
            found: list[bytes] = []
            while b"" not in found:
                found += ZEROMQ.payloads(decoder.feed(await _some(peer)))
            assert found == [*payloads, b""]
            assert 1 <= len(decoder.pings) <= 8
        feeder.stop()
        await feeder.count_unread()
        assert feeder.settle().unread == 0

    asyncio.run(test())


@pytest.mark.parametrize("sent", [b"\0\5hello", b"\2" + b"\xff" * 8, b"\x99\x99", b"\6" + b"\xff" * 8])
def test_a_pull_socket_that_sends_is_cut_off_and_the_next_gets_the_rest(path: str, sent: bytes) -> None:
    async def test() -> None:
        payloads = [b"%d" % number * 3000 for number in range(1, 100)]
        feeder, _ = await _fed(path, payloads)
        with connect(path, GOOD) as peer:
            assert await _received(peer, len(HELLO)) == HELLO
            some = await _received(peer, 5000)
            peer.send(sent)
            rest = await _received(peer, 10_000_000)
        decoder = ZEROMQ.decoder(1 << 20)
        first = ZEROMQ.payloads(decoder.feed(some + rest))
        with connect(path, GOOD) as peer:
            assert await _received(peer, len(HELLO)) == HELLO
            second: list[bytes] = []
            decoder = ZEROMQ.decoder(1 << 20)
            while b"" not in second:
                second += ZEROMQ.payloads(decoder.feed(await _some(peer)))
        assert 0 < len(first) < len(payloads)
        assert [*first, *second] == [*payloads, b""], "from the message on that was cut in two"
        feeder.stop()
        await feeder.count_unread()
        assert feeder.settle().unread == 0

    asyncio.run(test())


@pytest.mark.parametrize("connections", [1, 9])
def test_a_death_costs_exactly_what_was_sent(path: str, connections: int) -> None:
    """Whole messages that went into a connection are its; the one that was cut, and what was not sent, come back."""

    async def test() -> None:
        payloads = [b"%d" % number * 3000 for number in range(1, 100)]
        feeder, _ = await _fed(path, payloads)
        sent = 0
        for number in range(connections):
            with connect(path, GOOD) as peer:
                assert await _received(peer, len(HELLO)) == HELLO
                some = await _received(peer, 100 + 1700 * number)
                if number == connections - 1:
                    feeder.stop()
                    await feeder.count_unread()
                else:
                    peer.send(b"\0\1x")  # what a PULL socket never sends: it is cut off
                decoder = ZEROMQ.decoder(1 << 20)
                sent += decoder.feed(some + await _received(peer, 10_000_000)).count
                assert decoder.pending_bytes, "a test of messages cut in two"
        left = feeder.settle()
        assert (left.consumed, left.unread) == (sent, 99 - sent)
        assert 0 < sent < 99
        assert sum(count for _, count in feeder.in_flight) == sent
        piece = feeder.inlet.take()
        assert piece is not None
        assert ZEROMQ.payloads(piece.batch)[0] == payloads[sent]

    asyncio.run(test())
