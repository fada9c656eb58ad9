"""Streams of a NATS server that run full: their writers wait, and the server throws nothing away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

nats = pytest.importorskip("nats")

from runner.codec.lines import LINES  # noqa: E402
from tests.channel.nats_ends import End, numbers, run, streams_of  # noqa: E402
from tests.nats_server import NatsServer  # noqa: E402
from tests.waiting import until  # noqa: E402

STREAM = "connector_p_c"
MAX_BYTES = 20_000
IN_WINDOW_BYTES = 25
"""A message of which the server stores so many bytes too many is not refused by one that counts less than it stores."""


@pytest.fixture
def small_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sender", "receiver"):
        monkeypatch.setattr(f"runner.channel.nats.{module}._LEAST_STREAM_BYTES", MAX_BYTES)
    monkeypatch.setattr("runner.channel.nats.sender._FRAME_BYTES", 500)


def full(*ends: End) -> bool:
    return all("is full" in (end.channel.far_trouble or "") for end in ends)


async def state_of(stream: Any) -> Any:
    return (await stream.stream_info(STREAM)).state


async def all_kept(stream: Any) -> bool:
    """Whether all that the server took is there; false where the stream does not stay as it is meanwhile."""
    state = await state_of(stream)
    assert state.first_seq == 1
    return bool(state.messages == state.last_seq)


async def make_stream(stream: Any, **config: Any) -> None:
    found = {"retention": "workqueue", "discard": "new", "subjects": ["connector.p.c.*"], **config}
    await stream.add_stream(nats.js.api.StreamConfig(name=STREAM, **found))


async def fill(stream: Any, until_bytes: int) -> None:
    """With messages for another reader, until the stream has exactly so many bytes."""
    subject = "connector.p.c.other"
    missing = until_bytes - (await state_of(stream)).bytes
    while missing:
        stored = missing if missing <= 1500 else 1000
        await stream.publish(subject, b"x" * (stored - len(subject) - 30))
        missing -= stored


@pytest.mark.usefixtures("small_streams")
@pytest.mark.parametrize("writers", [("left",), ("left", "other")])
def test_a_stream_at_its_limit_throws_nothing_away(writers: tuple[str, ...], nats_server: NatsServer) -> None:
    async def act() -> None:
        async with streams_of(nats_server) as stream:
            before = End("writer", nats_server, capacity=1000)
            await before.write(100, 10, last=False)
            await until(lambda: before.channel.readers[0].account.acknowledged == 10)
            await before.kill()
            await fill(stream, MAX_BYTES + IN_WINDOW_BYTES - (await state_of(stream)).bytes)
            ends = [End("writer", nats_server, runner=runner, capacity=1000) for runner in writers]
            for end in ends:
                await end.write(110, 10)
            await until(lambda: full(*ends) or all(end.channel.readers[0].account.acknowledged for end in ends))
            assert await all_kept(stream)
            assert full(*ends)
            await stream.purge_stream(STREAM, subject="connector.p.c.other")
            right = End("reader", nats_server, capacity=1000, far_writers=writers)
            assert sorted(await right.read()) == sorted(numbers(100, 10) + numbers(110, 10) * len(writers))
            await asyncio.gather(right.living, *(end.living for end in ends))
            assert right.channel.readers[0].account.indeterminate == 0
            assert not right.warned + right.failed

    run(act)


@pytest.mark.usefixtures("small_streams")
@pytest.mark.parametrize("writers", [("left",), ("left", "second", "third")])
def test_a_full_stream_makes_the_writers_wait_until_there_is_room(
    writers: tuple[str, ...], nats_server: NatsServer
) -> None:
    async def act() -> None:
        ends = [End("writer", nats_server, runner=runner, capacity=1000) for runner in writers]
        writing = [asyncio.create_task(end.write(1, 5000)) for end in ends]
        await until(lambda: full(*ends))
        await until(lambda: all(end.writer is not None and end.writer.full for end in ends))
        await until(lambda: all("is full" in "".join(end.warned) for end in ends))
        async with streams_of(nats_server) as stream:
            await until(lambda: all_kept(stream))
        right = End("reader", nats_server, capacity=1000, far_writers=writers)
        assert sorted(await right.read()) == sorted(numbers(1, 5000) * len(writers))
        await asyncio.gather(right.living, *writing, *(end.living for end in ends))
        assert right.channel.readers[0].account.indeterminate == 0

    run(act)


def test_a_writer_that_is_stopped_at_a_full_stream_ends(nats_server: NatsServer) -> None:
    async def act() -> None:
        async with streams_of(nats_server) as stream:
            await make_stream(stream, max_bytes=MAX_BYTES)
            await fill(stream, MAX_BYTES - 5000)
            left = End("writer", nats_server)
            await left.write(1, 10)
            await until(lambda: full(left))
            left.channel.stop()
            await left.living
            assert left.channel.readers[0].account.unread == 10
            assert (await state_of(stream)).bytes == MAX_BYTES - 5000

    run(act)


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({"max_msgs": 5, "max_bytes": MAX_BYTES}, 5),
        ({"max_msgs": 3}, 3),
        ({"max_msgs_per_subject": 4, "discard_new_per_subject": True}, 4),
    ],
)
def test_a_stream_that_is_full_by_messages_throws_nothing_away(
    limits: dict[str, Any], most: int, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.channel.nats.sender._FRAME_BYTES", 20)

    async def act() -> None:
        async with streams_of(nats_server) as stream:
            await make_stream(stream, **limits)
            left = End("writer", nats_server)
            await left.write(1, 100)
            await until(lambda: full(left))
            assert await all_kept(stream)
            assert (await state_of(stream)).messages == most
            right = End("reader", nats_server)
            assert await right.read() == numbers(1, 100)
            await asyncio.gather(left.living, right.living)
            assert right.channel.readers[0].account.indeterminate == 0

    run(act)


@pytest.mark.parametrize("side", ["writer", "reader"])
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"discard": "old", "max_bytes": 1 << 20}, "max_bytes, with discard = old"),
        ({"discard": "old", "max_msgs": 1000}, "max_msgs, with discard = old"),
        ({"discard": "old", "max_age": 60}, "those older than 60 s"),
        ({"max_age": 60}, "those older than 60 s"),
        ({"max_msgs_per_subject": 10}, "max_msgs_per_subject"),
        ({"no_ack": True}, "confirms nothing"),
        ({"max_msg_size": 1000}, "max_msg_size"),
    ],
)
def test_a_stream_that_would_lose_messages_is_refused(
    config: dict[str, Any], said: str, side: str, nats_server: NatsServer
) -> None:
    async def act() -> None:
        async with streams_of(nats_server) as stream:
            await make_stream(stream, **config)
            end = End(side, nats_server)
            await until(lambda: bool(end.failed))
            assert said in end.failed[0]
            assert 'stream = "NAME"' in end.failed[0]

    run(act)


def test_a_stream_that_is_changed_to_lose_messages_is_refused_then(nats_server: NatsServer) -> None:
    async def act() -> None:
        async with streams_of(nats_server) as stream:
            await make_stream(stream, max_bytes=MAX_BYTES)
            await fill(stream, MAX_BYTES - 5000)
            left = End("writer", nats_server)
            await left.write(1, 10)
            await until(lambda: full(left))
            config = (await stream.stream_info(STREAM)).config
            config.discard = "old"
            await stream.update_stream(config)
            await until(lambda: bool(left.failed))
            assert "discard = old" in left.failed[0]

    run(act)


def test_a_stream_without_limits_may_discard_what_it_likes(nats_server: NatsServer) -> None:
    async def act() -> None:
        async with streams_of(nats_server) as stream:
            await make_stream(stream, discard="old")
            left, right = End("writer", nats_server), End("reader", nats_server)
            await left.write(1, 1000)
            assert await right.read() == numbers(1, 1000)
            await asyncio.gather(left.living, right.living)

    run(act)


def test_batches_fit_into_a_stream_of_small_messages(nats_server: NatsServer) -> None:
    async def act() -> None:
        async with streams_of(nats_server) as stream:
            await make_stream(stream, max_msg_size=4000)
            left, right = End("writer", nats_server), End("reader", nats_server)
            await left.write(1, 5000, last=False)
            assert await right.read(5000) == numbers(1, 5000)
            assert left.writer is not None
            left.writer.publish(LINES.batch_of([b"x" * 4000]))
            await until(lambda: bool(left.failed))
            assert "message 5,001 has 4,001 bytes" in left.failed[0]

    run(act)


def test_a_message_that_can_never_have_room_is_an_error(nats_server: NatsServer) -> None:
    async def act() -> None:
        async with streams_of(nats_server) as stream:
            await make_stream(stream, max_bytes=MAX_BYTES)
            left = End("writer", nats_server)
            assert left.writer is not None
            left.writer.publish(LINES.batch_of([b"x" * (MAX_BYTES // 2)]))
            await until(lambda: bool(left.failed))
            assert "raise max_payload of the server, or max_bytes" in left.failed[0]

    run(act)


@pytest.mark.parametrize("discard", ["old", "new"])
def test_a_plain_peers_stream_is_bounded_where_it_is_to_keep_what_it_has(discard: str, nats_server: NatsServer) -> None:
    async def act() -> None:
        async with streams_of(nats_server) as stream:
            await make_stream(stream, discard=discard, retention="limits", max_bytes=MAX_BYTES, subjects=["out"])
            left = End("writer", nats_server, plain=True, subject="out", stream=STREAM)
            await left.write(1000, 1000)
            if discard == "new":
                await until(lambda: full(left))
                assert await all_kept(stream)
                await stream.purge_stream(STREAM)
                await until(lambda: not full(left))
            else:
                await left.living
                state = await state_of(stream)
                assert state.last_seq == 1000
                assert state.first_seq > 1

    run(act)
