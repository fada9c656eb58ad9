"""Channels over a real NATS server, which goes and comes, and is written to by strangers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

nats = pytest.importorskip("nats")

from runner.channel.nats.receiver import NatsReceiver  # noqa: E402
from runner.store.store import Store  # noqa: E402
from tests.channel.nats_ends import End, numbers, run, streams_of  # noqa: E402
from tests.nats_server import NatsServer, nats_program  # noqa: E402
from tests.waiting import until  # noqa: E402


async def _is_empty(stream: Any, name: str) -> bool:
    """Whether there is such a stream, with nothing in it."""
    with contextlib.suppress(nats.js.errors.NotFoundError):
        return not (await stream.stream_info(name)).state.messages
    return False


async def _is_read(stream: Any, name: str) -> bool:
    """Whether there is such a stream with a consumer: before that it may be known and take nothing yet."""
    with contextlib.suppress(nats.js.errors.NotFoundError):
        return bool((await stream.stream_info(name)).state.consumer_count)
    return False


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

    run(act, server_dies=True)


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

    run(act, server_dies=True)


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
        async with streams_of(nats_server) as stream:
            await stream.publish("connector.p.c.right", b"noise")
            headers = {
                "Connector-Writer": "left",
                "Connector-Epoch": "x",
                "Connector-Number": "1",
                "Connector-Count": "1",
            }
            await stream.publish("connector.p.c.right", b"noise\n", headers={**headers, "Connector-Crc": "5"})
            await left.write(21, 20)
            assert await right.read() == numbers(1, 40)
            assert len([text for text in right.warned if "is not taken" in text]) == 1
            await asyncio.gather(left.living, right.living)
            await until(lambda: _is_empty(stream, "connector_p_c"), "all to be acknowledged")

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

    run(act, server_dies=gone == "state")


async def _lose(server: NatsServer, what: str) -> None:
    if what == "state":
        server.kill()
        server.forget()
        server.start()
        return
    async with streams_of(server) as stream:
        if what == "stream":
            await stream.delete_stream("connector_p_c")
        else:
            (consumer,) = await stream.consumers_info("connector_p_c")
            await stream.delete_consumer("connector_p_c", consumer.name)


def test_what_was_only_at_the_server_and_is_lost_there_is_said_and_counted(nats_server: NatsServer) -> None:
    async def act() -> None:
        left, right = End("writer", nats_server), End("reader", nats_server)
        await left.write(1, 100, last=False)
        await right.read(100)
        await right.kill()
        await left.write(101, 50, last=False)
        await until(lambda: left.channel.readers[0].account.acknowledged == 150, "the server to have it")
        async with streams_of(nats_server) as stream:
            await stream.purge_stream("connector_p_c")
        again = End("reader", nats_server)
        await left.write(151, 50)
        assert await again.read() == numbers(151, 50)
        assert again.channel.readers[0].account.indeterminate == 150
        assert any("150 messages that the server had are here no more" in text for text in again.warned)
        await asyncio.gather(left.living, again.living)

    run(act)


def test_what_a_former_stream_brought_is_not_acknowledged_to_a_new_one(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledgements say numbers of the stream: a new one would throw away its own messages of those numbers."""
    monkeypatch.setattr("runner.channel.nats.sender._FRAME_BYTES", 40)
    held: list[Callable[[], None]] = []
    monkeypatch.setattr("runner.channel.network.Queue.when_committed", lambda _, callback: held.append(callback))
    subscribe = NatsReceiver._subscribe

    async def act() -> None:
        async with streams_of(nats_server) as stream:
            left, right = End("writer", nats_server), End("reader", nats_server)
            await left.write(100, 30, last=False)
            assert await right.read(30) == numbers(100, 30)

            async def subscribe_late(receiver: NatsReceiver, streams: Any) -> Any:
                subscription = await subscribe(receiver, streams)
                await until(lambda: has_messages(stream, 3))
                for callback in held:
                    callback()
                await asyncio.gather(*receiver._acknowledging)
                assert receiver._server.client is not None
                await receiver._server.client.flush()
                return subscription

            monkeypatch.setattr(NatsReceiver, "_subscribe", subscribe_late)
            await stream.delete_stream("connector_p_c")
            await left.write(130, 30)
            assert await right.read() == numbers(100, 60)
            assert right.channel.readers[0].account.indeterminate == 0

    run(act)


async def has_messages(stream: Any, count: int) -> bool:
    return bool((await stream.stream_info("connector_p_c")).state.last_seq >= count)


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
        async with streams_of(nats_server) as stream:
            await left.write(1, 3)
            await left.living
            taken = await (await stream.pull_subscribe("out.lines", durable="mine", stream="out_lines")).fetch(3)
            assert [message.data for message in taken] == numbers(1, 3)
            await until(lambda: _is_read(stream, "in_lines"), "the stream to be made")
            for number in range(1, 4):
                await stream.publish("in.lines", b"%d" % number)
            assert await right.read(3) == numbers(1, 3)
            right.channel.stop()
            await right.living

    run(act)


def test_what_is_no_message_of_a_plain_peer_is_counted_and_told_seldom(nats_server: NatsServer) -> None:
    async def act() -> None:
        end = End("reader", nats_server, plain=True, subject="in.lines", max_message_bytes=10)
        async with streams_of(nats_server) as stream:
            await until(lambda: _is_read(stream, "in_lines"), "the stream to be made")
            for number in range(20):
                for data in (b"two\nlines", b"x" * 11 + b"%d" % number):
                    await stream.publish("in.lines", data)
            await stream.publish("in.lines", b"x" * 10)
            assert await end.read(1) == [b"x" * 10]
            assert end.channel.refused == 40
            assert len([text for text in end.warned if "is not taken" in text]) <= 3
            end.channel.stop()
            await end.living

    run(act)
