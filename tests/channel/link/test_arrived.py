"""What has arrived waits, bounded, or is handed over at once; what came before the end is still given out."""

from __future__ import annotations

import asyncio

import pytest

from runner.channel.link.arrived import Arrived
from runner.channel.link.transport import DownError


def test_frames_come_out_in_order_and_then_the_end() -> None:
    async def act() -> None:
        arrived = Arrived()
        receiving = asyncio.create_task(arrived.receive())
        await asyncio.sleep(0)
        arrived.put(b"a")
        arrived.put(b"b")
        arrived.end("gone")
        arrived.end("another reason")
        assert [await receiving, await arrived.receive()] == [b"a", b"b"]
        for _ in range(2):
            with pytest.raises(DownError, match="gone"):
                await arrived.receive()

    asyncio.run(act())


def test_who_waits_to_receive_hears_of_the_end() -> None:
    async def act() -> None:
        arrived = Arrived()
        receiving = asyncio.create_task(arrived.receive())
        await asyncio.sleep(0)
        arrived.end("gone")
        with pytest.raises(DownError, match="gone"):
            await receiving

    asyncio.run(act())


def test_reading_pauses_at_the_bound_and_goes_on_at_half_of_it() -> None:
    async def act() -> None:
        calls: list[str] = []
        arrived = Arrived(lambda: calls.append("pause"), lambda: calls.append("resume"), most_bytes=100)
        arrived.put(bytes(100))
        assert calls == []
        arrived.put(bytes(40))
        arrived.put(bytes(30))
        assert calls == ["pause"]
        await arrived.receive()
        assert calls == ["pause"]
        await arrived.receive()
        assert calls == ["pause", "resume"]
        arrived.put(bytes(90))
        assert calls == ["pause", "resume", "pause"]
        arrived.end("gone")
        for _ in range(2):
            await arrived.receive()
        assert calls == ["pause", "resume", "pause"]  # there is nothing to go on with

    asyncio.run(act())


def test_frames_are_handed_over_as_they_come_those_that_waited_first() -> None:
    async def act() -> None:
        calls: list[str] = []
        taken: list[object] = []
        arrived = Arrived(lambda: calls.append("pause"), lambda: calls.append("resume"), most_bytes=1)
        arrived.put(b"first")
        handing = asyncio.create_task(arrived.hand_to(taken.append))
        await asyncio.sleep(0)
        assert taken == [b"first"]
        arrived.put(b"second")
        assert taken == [b"first", b"second"]
        assert calls == ["pause", "resume"]  # what is handed over does not wait
        arrived.end("gone")
        arrived.put(b"third")
        with pytest.raises(DownError, match="gone"):
            await handing
        assert taken == [b"first", b"second"]
        with pytest.raises(DownError, match="gone"):
            await arrived.hand_to(taken.append)
        assert taken == [b"first", b"second", b"third"]

    asyncio.run(act())


def test_what_taking_raises_ends_the_handing_over() -> None:
    async def act() -> None:
        arrived = Arrived()
        taken: list[object] = []

        def take(frame: object) -> None:
            taken.append(frame)
            raise DownError("it is wrong")

        handing = asyncio.create_task(arrived.hand_to(take))
        await asyncio.sleep(0)
        arrived.put(b"first")
        arrived.put(b"second")
        arrived.end("gone")
        with pytest.raises(DownError, match="it is wrong"):
            await handing
        assert taken == [b"first"]
        assert await arrived.receive() == b"second"

    asyncio.run(act())


def test_handing_over_that_is_cancelled_leaves_the_rest_where_it_is() -> None:
    async def act() -> None:
        arrived = Arrived()
        taken: list[object] = []
        handing = asyncio.create_task(arrived.hand_to(taken.append))
        await asyncio.sleep(0)
        handing.cancel()
        await asyncio.gather(handing, return_exceptions=True)
        arrived.put(b"later")
        assert taken == []
        assert await arrived.receive() == b"later"

    asyncio.run(act())
