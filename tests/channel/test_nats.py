"""Channels over a real NATS server, which goes and comes, and is written to by strangers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

nats = pytest.importorskip("nats")

from runner.channel.base import Outside, Reader, Writer  # noqa: E402
from runner.channel.network import Here, NetworkedDurable, NetworkedMemory, network_channel  # noqa: E402
from runner.codec.lines import LINES  # noqa: E402
from runner.spec.model import Channel, Durability, Network  # noqa: E402
from runner.store.store import Store  # noqa: E402
from tests.nats_server import NatsServer, nats_program  # noqa: E402
from tests.waiting import until  # noqa: E402


def run(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(50):
            await act()

    asyncio.run(bounded())


class End:
    """One end of the channel `c`: with a writer or a reader of its own."""

    def __init__(self, side: str, server: NatsServer, *, store: Store | None = None, **network: Any) -> None:
        writes = side == "writer"
        plain = network.get("plain", False)
        spec = Channel(
            "c",
            "nats",
            network.pop("capacity", 1 << 20),
            writers=("w",) if writes else (),
            readers=() if writes else ("r",),
            durability=Durability.MEMORY if store is None else Durability.PROCESS,
            far_readers=("right",) if writes and not plain else (),
            far_writers=() if writes or plain else ("left",),
            network=Network(servers=(server.url,), **network),
        )
        self.warned: list[str] = []
        self.failed: list[str] = []
        self.got: list[bytes] = []
        self.data = asyncio.Event()
        here = Here("p", "left" if writes else "right", "run")
        self.channel: NetworkedMemory | NetworkedDurable = network_channel(spec, store, here)
        self.reader: Reader | None = None
        self.writer: Writer | None = None
        if writes:
            self.writer = self.channel.open_writer("w", LINES)
        else:
            self.reader = self.channel.open_reader("r", LINES)
            self.reader.on_data = self.data.set
        outside = Outside(self.failed.append, self.failed.append, self.warned.append)
        self.living = asyncio.create_task(self.channel.live(outside))

    async def write(self, first: int, count: int, *, last: bool = True) -> None:
        assert self.writer is not None
        for start in range(first, first + count, 10):
            while self.writer.full:
                room = asyncio.Event()
                self.writer.when_room(room.set)
                await room.wait()
            numbers = range(start, min(start + 10, first + count))
            self.writer.publish(LINES.batch_of([b"%d" % number for number in numbers]))
            await asyncio.sleep(0)
        if last:
            self.writer.end(for_good=True)

    async def read(self, count: int | None = None) -> list[bytes]:
        assert self.reader is not None
        while count is None or len(self.got) < count:
            batch = self.reader.take()
            if batch is not None:
                self.got += LINES.payloads(batch)
                self.reader.acknowledge(self.reader.number, batch.count)
            elif self.reader.ended and not self.reader.queued_messages:
                assert not self.failed
                break
            else:
                self.data.clear()
                await self.data.wait()
        return self.got

    async def kill(self) -> None:
        self.living.cancel()
        await asyncio.gather(self.living, return_exceptions=True)


async def _is_empty(stream: Any, name: str) -> bool:
    """Whether there is such a stream, with nothing in it."""
    with contextlib.suppress(nats.js.errors.NotFoundError):
        return not (await stream.stream_info(name)).state.messages
    return False


def numbers(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


async def both(server: NatsServer, count: int, meanwhile: Coroutine[Any, Any, None] | None = None) -> tuple[End, End]:
    left, right = End("writer", server), End("reader", server)
    async with asyncio.TaskGroup() as group:
        group.create_task(left.write(1, count))
        reading = group.create_task(right.read())
        if meanwhile is not None:
            group.create_task(meanwhile)
    await asyncio.gather(left.living, right.living)
    assert reading.result() == numbers(1, count)
    assert not left.failed + right.failed
    return left, right


def test_all_arrives_in_order_and_both_end(nats_server: NatsServer) -> None:
    async def act() -> None:
        left, right = await both(nats_server, 5000)
        (reader,) = left.channel.readers
        assert (reader.account.acknowledged, reader.held, right.channel.written) == (5000, 0, 5000)

    run(act)


def test_a_later_run_begins_anew(nats_server: NatsServer) -> None:
    async def act() -> None:
        first, _ = await both(nats_server, 300)
        later, right = await both(nats_server, 200)
        assert (first.channel.written, later.channel.written, right.channel.written) == (300, 200, 200)

    run(act)


def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing(nats_server: NatsServer) -> None:
    async def act() -> None:
        left, right = End("writer", nats_server, capacity=4096), End("reader", nats_server, capacity=4096)
        writing = asyncio.create_task(left.write(1, 6000))
        for reached in (1000, 2500, 4000):
            await right.read(reached)
            nats_server.kill()
            await until(lambda: bool(left.channel.far_trouble))
            nats_server.start()
        assert await right.read() == numbers(1, 6000)
        await asyncio.gather(writing, left.living, right.living)
        assert not left.failed + right.failed

    run(act)


def test_who_comes_before_the_server_waits_and_says_so(nats_server: NatsServer) -> None:
    async def act() -> None:
        nats_server.kill()
        left = End("writer", nats_server)
        await left.write(1, 10)
        await until(lambda: bool(left.warned))
        assert "waits" in left.warned[0]
        nats_server.start()
        right = End("reader", nats_server)
        assert await right.read() == numbers(1, 10)
        await asyncio.gather(left.living, right.living)

    run(act)


@pytest.mark.parametrize("side", ["writer", "reader"])
def test_a_durable_end_that_is_killed_goes_on(side: str, nats_server: NatsServer, tmp_path: Path) -> None:
    def store(name: str) -> Store:
        return Store.open(tmp_path / name, sync=False, capacity_bytes={"c": 1 << 20})

    async def act() -> None:
        stores = {each: store(each) for each in ("writer", "reader")}
        ends = {each: End(each, nats_server, store=stores[each]) for each in stores}
        await ends["writer"].write(1, 2000, last=False)
        got = list(await ends["reader"].read(500))
        await ends[side].kill()
        await stores[side].flush()
        stores[side].close()
        stores[side] = store(side)
        ends[side] = End(side, nats_server, store=stores[side])
        await ends["writer"].write(2001, 1000)
        if side == "reader":
            got += await ends["reader"].read()
        else:
            got = await ends["reader"].read()
        assert got == numbers(1, 3000)
        await asyncio.gather(*(end.living for end in ends.values()))
        for each in stores.values():
            await each.flush()
            each.close()

    run(act)


def test_strangers_and_doubles_are_not_taken(nats_server: NatsServer) -> None:
    async def act() -> None:
        left, right = End("writer", nats_server), End("reader", nats_server)
        await left.write(1, 20, last=False)
        assert await right.read(20) == numbers(1, 20)
        client = await nats.connect(nats_server.url)
        stream = client.jetstream()
        await stream.publish("connector.p.c.right", b"noise")
        headers = {"Connector-Writer": "left", "Connector-Epoch": "x", "Connector-Number": "1", "Connector-Count": "1"}
        await stream.publish("connector.p.c.right", b"noise\n", headers={**headers, "Connector-Crc": "5"})
        await left.write(21, 20)
        assert await right.read() == numbers(1, 40)
        assert len([text for text in right.warned if "is not taken" in text]) == 1
        await asyncio.gather(left.living, right.living)
        await until(lambda: _is_empty(stream, "connector_p_c"), "all to be acknowledged")
        await client.close()

    run(act)


@pytest.mark.parametrize("gone", ["consumer", "stream", "state"])
@pytest.mark.parametrize("plain", [False, True])
def test_what_the_server_has_no_more_is_made_again(gone: str, plain: bool, nats_server: NatsServer) -> None:
    async def act() -> None:
        more: dict[str, Any] = {"plain": True, "subject": "connector.p.c"} if plain else {}
        left, right = End("writer", nats_server, **more), End("reader", nats_server, **more)
        await left.write(1, 100, last=False)
        await right.read(100)
        await until(lambda: left.channel.readers[0].account.acknowledged == 100, "the server to have it")
        await _lose(nats_server, gone)
        await left.write(101, 100, last=not plain)
        got = await right.read(200 if gone != "consumer" or not plain else 300)
        assert got[-100:] == numbers(101, 100)
        if not plain:
            assert got == numbers(1, 200)
            await asyncio.gather(left.living, right.living)
            assert right.channel.written == 200
        assert not left.failed + right.failed
        await left.kill()
        await right.kill()

    run(act)


async def _lose(server: NatsServer, what: str) -> None:
    if what == "state":
        server.kill()
        server.forget()
        server.start()
        return
    client = await nats.connect(server.url)
    stream = client.jetstream()
    if what == "stream":
        await stream.delete_stream("connector_p_c")
    else:
        (consumer,) = await stream.consumers_info("connector_p_c")
        await stream.delete_consumer("connector_p_c", consumer.name)
    await client.close()


def test_what_was_only_at_the_server_and_is_lost_there_is_said_and_counted(nats_server: NatsServer) -> None:
    async def act() -> None:
        left, right = End("writer", nats_server), End("reader", nats_server)
        await left.write(1, 100, last=False)
        await right.read(100)
        await right.kill()
        await left.write(101, 50, last=False)
        await until(lambda: left.channel.readers[0].account.acknowledged == 150, "the server to have it")
        client = await nats.connect(nats_server.url)
        await client.jetstream().purge_stream("connector_p_c")
        await client.close()
        again = End("reader", nats_server)
        await left.write(151, 50)
        assert await again.read() == numbers(151, 50)
        assert again.channel.readers[0].account.indeterminate == 150
        assert any("150 messages that the server had are here no more" in text for text in again.warned)
        await asyncio.gather(left.living, again.living)

    run(act)


def test_a_full_stream_makes_the_writer_wait(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sender", "receiver"):
        monkeypatch.setattr(f"runner.channel.nats.{module}._LEAST_STREAM_BYTES", 20_000)
    monkeypatch.setattr("runner.channel.nats.sender._FRAME_BYTES", 500)

    async def act() -> None:
        left = End("writer", nats_server, capacity=1000)
        writing = asyncio.create_task(left.write(1, 5000))
        await until(lambda: "is full" in (left.channel.far_trouble or ""))
        await until(lambda: left.writer is not None and left.writer.full)
        right = End("reader", nats_server, capacity=1000)
        assert await right.read() == numbers(1, 5000)
        await asyncio.gather(writing, left.living, right.living)

    run(act)


def test_a_server_without_streams_is_named(tmp_path: Path) -> None:
    server = NatsServer(nats_program(), tmp_path)
    server.start(streams=False)

    async def act() -> None:
        left = End("writer", server)
        await until(lambda: bool(left.warned))
        assert "JetStream" in left.warned[0]
        await left.kill()

    try:
        run(act)
    finally:
        server.kill()


def test_a_wrong_token_is_an_error(tmp_path: Path) -> None:
    server = NatsServer(nats_program(), tmp_path, "--auth", "open")
    server.start()

    async def act() -> None:
        left = End("writer", server, token="closed")
        await until(lambda: bool(left.failed))
        assert "does not let us in" in left.failed[0]
        right = End("writer", server, token="open")
        await right.write(1, 3, last=False)
        await until(lambda: right.channel.readers[0].account.acknowledged == 3)
        await right.kill()

    try:
        run(act)
    finally:
        server.kill()


def test_any_other_program_is_a_plain_peer(nats_server: NatsServer) -> None:
    async def act() -> None:
        left = End("writer", nats_server, plain=True, subject="out.lines")
        right = End("reader", nats_server, plain=True, subject="in.lines")
        client = await nats.connect(nats_server.url)
        stream = client.jetstream()
        await left.write(1, 3)
        await left.living
        taken = await (await stream.pull_subscribe("out.lines", durable="mine", stream="out_lines")).fetch(3)
        assert [message.data for message in taken] == numbers(1, 3)
        await until(lambda: _is_empty(stream, "in_lines"), "the stream to be made")
        for number in range(1, 4):
            await stream.publish("in.lines", b"%d" % number)
        assert await right.read(3) == numbers(1, 3)
        right.channel.stop()
        await right.living
        await client.close()

    run(act)


def test_what_is_no_message_of_a_plain_peer_is_counted_and_told_seldom(nats_server: NatsServer) -> None:
    async def act() -> None:
        end = End("reader", nats_server, plain=True, subject="in.lines", max_message_bytes=10)
        client = await nats.connect(nats_server.url)
        stream = client.jetstream()
        await until(lambda: _is_empty(stream, "in_lines"), "the stream to be made")
        for number in range(20):
            for data in (b"two\nlines", b"x" * 11 + b"%d" % number):
                await stream.publish("in.lines", data)
        await stream.publish("in.lines", b"x" * 10)
        assert await end.read(1) == [b"x" * 10]
        assert end.channel.refused == 40
        assert len([text for text in end.warned if "is not taken" in text]) <= 3
        end.channel.stop()
        await end.living
        await client.close()

    run(act)
