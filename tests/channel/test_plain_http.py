"""Requests that are posted: with the same key for the same messages, until they are taken; and taken once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path
from time import time

import aiohttp
import pytest
from aiohttp import web

from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.channel.plain.http import retry_after_s
from runner.channel.plain.keys import SeenKeys
from runner.store.store import Store
from tests.addresses import free_port
from tests.channel.plain_end import End, numbered, run
from tests.waiting import until

QUICK = Bounds(first_wait_s=0.001, longest_wait_s=0.01, room_s=0.1, body_s=0.3, head_s=0.3)


class Api:
    """A server of somebody else; `answer` says what the request number N (from 0) is told."""

    def __init__(self, answer: Callable[[int], web.Response]) -> None:
        self.answer = answer
        self.port = free_port()
        self.asked: list[tuple[str, bytes, str]] = []
        self.came = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.headers["Idempotency-Key"], await request.read(), request.content_type))
        self.came.set()
        return self.answer(len(self.asked) - 1)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        application = web.Application(client_max_size=1 << 26)
        application.router.add_post("/", self.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()


def _status(*statuses: int) -> Callable[[int], web.Response]:
    """Those, and then 200."""
    return lambda number: web.Response(
        status=statuses[number] if number < len(statuses) else 200, text="what\n it says"
    )


def _store(folder: Path) -> Store:
    return Store.open(folder / "state", sync=False, capacity_bytes={"c": 1 << 20})


@pytest.mark.parametrize("durable", [False, True])
def test_the_key_stays_however_often_it_is_tried(tmp_path: Path, durable: bool) -> None:
    async def act() -> None:
        api = Api(_status(*[503, 500, 429, 408, 425, 502] * 5))
        store = _store(tmp_path) if durable else None
        end = End("writer", "http", listens=False, port=api.port, bounds=QUICK, store=store)
        end.write(*numbered(10))
        async with end.alive() as living:
            await until(lambda: end.far.trouble, "it to be told")
            assert "connection refused" in (end.far.trouble or "")
            async with api.serving():
                await until(lambda: len(api.asked) > 30, "it to be taken")
                end.write(*numbered(5))
                end.end()
                await living
        if store is not None:
            store.close()
        keys = [key for key, _, _ in api.asked]
        assert len(set(keys[:31])) == 1
        assert len({body for _, body, _ in api.asked[:31]}) == 1
        assert keys[0].endswith("-1-10")
        assert keys[31].endswith("-11-15")
        assert end.account == {"acknowledged": 15}

    run(act)


def test_the_key_stays_over_a_crash_that_came_before_the_answer(tmp_path: Path) -> None:
    async def act() -> None:
        never = asyncio.Event()
        api = Api(_status())
        handle = api.handle

        async def mute(request: web.Request) -> web.StreamResponse:
            answer = await handle(request)
            await never.wait()
            return answer

        api.handle = mute  # type: ignore[method-assign]
        async with api.serving():
            store = _store(tmp_path)
            end = End("writer", "http", listens=False, port=api.port, bounds=QUICK, store=store)
            end.write(*numbered(10))
            living = asyncio.create_task(end.live())
            await api.came.wait()
            end.write(*numbered(7))
            await store.flush()
            store.close()  # nothing of what happens from here on is on record, as after SIGKILL
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            never.set()
            store = _store(tmp_path)
            end = End("writer", "http", listens=False, port=api.port, bounds=QUICK, store=store)
            end.end()
            await end.live()
            store.close()
        assert api.asked[0] == api.asked[1], "the same request, though more was there"
        assert [key.split("-", 1)[1] for key, _, _ in api.asked] == ["1-10", "1-10", "11-17"]
        assert end.account == {"carried": 17, "acknowledged": 17}

    run(act)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 301, 302, 307])
def test_an_answer_that_no_other_try_changes_fails_the_channel(status: int) -> None:
    async def act() -> None:
        api = Api(lambda _: web.Response(status=status, text="nothing of it", headers={"Location": "/there"}))
        end = End("writer", "http", listens=False, port=api.port, bounds=QUICK)
        end.write(b"one", b"two")
        async with api.serving():
            await end.live()
        assert f"refuses message 1 to 2 with status {status}" in end.failed[0]
        assert ("/there" if status < 400 else "nothing of it") in end.failed[0]
        assert len(api.asked) == 1
        assert end.account == {"unread": 2}

    run(act)


def test_what_was_refused_stays_first_in_line(tmp_path: Path) -> None:
    async def act() -> None:
        api = Api(_status(400))
        async with api.serving():
            for times in range(2):
                store = _store(tmp_path)
                end = End("writer", "http", listens=False, port=api.port, bounds=QUICK, store=store)
                end.write(b"%d" % times)
                end.end()
                await end.live()
                await store.flush()
                store.close()
                assert bool(end.failed) is not bool(times)
        assert [body for _, body, _ in api.asked] == [b"0\n", b"0\n", b"1\n"]
        assert api.asked[0] == api.asked[1]

    run(act)


def test_messages_that_are_no_lines_go_one_by_one() -> None:
    async def act() -> None:
        api = Api(_status(503))
        end = End("writer", "http", listens=False, port=api.port, bounds=QUICK, codec="length-prefixed")
        payloads = [b"one", b"two\nlines", b"", b" "]
        end.write(*payloads)
        end.end()
        async with api.serving():
            await end.live()
        assert [body for _, body, _ in api.asked] == [b"one", *payloads]
        assert [key.split("-", 1)[1] for key, _, _ in api.asked] == ["1", "1", "2", "3", "4"]
        assert {kind for _, _, kind in api.asked} == {"application/octet-stream"}

    run(act)


def test_an_empty_message_is_one_too() -> None:
    async def act() -> None:
        api = Api(_status())
        end = End("writer", "http", listens=False, port=api.port, bounds=QUICK)
        end.write(b"one", b"", b"two")
        end.end()
        async with api.serving():
            await end.live()
        assert [body for _, body, _ in api.asked] == [b"one", b"", b"two"]

    run(act)


def test_in_a_stop_a_server_that_is_not_there_is_not_waited_for() -> None:
    async def act() -> None:
        end = End("writer", "http", listens=False, bounds=Bounds(first_wait_s=30, longest_wait_s=30))
        end.write(b"one")
        async with end.alive() as living:
            await until(lambda: end.far.trouble, "it to be told")
            end.channel.stop()
            end.end()
            await living
        assert end.account == {"unread": 1}

    run(act)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (None, 0.5, 1),
        ("0", 0.5, 1),
        ("7", 7, 7),
        ("100000", 60, 60),
        ("9" * 400, 60, 60),
        ("-5", 0.5, 1),
        ("soon", 0.5, 1),
        ("²", 0.5, 1),
        ("Wed, 99 Foo 2020 99:99:99 GMT", 0.5, 1),
    ],
)
def test_retry_after_counts_within_bounds(value: str | None, least: float, most: float) -> None:
    assert least <= retry_after_s(value, 1.0, BOUNDS) <= most


def test_retry_after_may_be_a_date() -> None:
    for in_s, least, most in ((30, 20, 31), (-30, 0.5, 1)):
        assert least <= retry_after_s(formatdate(time() + in_s, usegmt=True), 1.0, BOUNDS) <= most


def test_retry_after_is_waited_for() -> None:
    async def act() -> None:
        api = Api(lambda number: web.Response(status=200 if number else 503, headers={"Retry-After": "1"}))
        end = End("writer", "http", listens=False, port=api.port, bounds=QUICK)
        end.write(b"one")
        end.end()
        began_s = asyncio.get_running_loop().time()
        async with api.serving():
            await end.live()
        assert asyncio.get_running_loop().time() - began_s >= 1

    run(act)


# -- as a server


@contextlib.asynccontextmanager
async def _inbox(**more: object) -> AsyncIterator[tuple[End, aiohttp.ClientSession, str]]:
    end = End("reader", "http", **{"bounds": QUICK, **more})  # type: ignore[arg-type]
    async with end.alive(), aiohttp.ClientSession() as session:
        (await end.connected())[1].close()
        yield end, session, f"http://127.0.0.1:{end.port}/"


LINES = {"Content-Type": "application/x-ndjson"}


def test_a_key_that_was_taken_is_answered_as_before() -> None:
    async def act() -> None:
        async with _inbox() as (end, session, url):
            for times in range(3):
                answer = await session.post(url, data=b"1\n\n2\n3", headers={**LINES, "Idempotency-Key": "k"})
                assert (answer.status, await answer.text()) == (200, "3 taken before\n" if times else "3 taken\n")
            answer = await session.post(url, data=b"1\n2\n4", headers={**LINES, "Idempotency-Key": "k"})
            assert answer.status == 422, "another request under a key that was used loses nothing silently"
            answer = await session.post(url, data=b"1\n2\n4", headers={**LINES, "Idempotency-Key": "l" * 1000})
            answer = await session.post(url, data=b"1\n2\n4", headers={**LINES, "Idempotency-Key": "l" * 1000})
            assert await answer.text() == "3 taken before\n"
            assert await end.read(6) == [b"1", b"2", b"3", b"1", b"2", b"4"]

    run(act)


def test_two_requests_with_one_key_at_once_are_taken_once() -> None:
    async def act() -> None:
        async with _inbox() as (end, session, url):
            posts = (session.post(url, data=b"x", headers={"Idempotency-Key": "k"}) for _ in range(20))
            texts = sorted([await answer.text() for answer in await asyncio.gather(*posts)])
            assert texts == ["1 taken\n", *["1 taken before\n"] * 19]
            assert await end.read(1) == [b"x"]
            assert end.channel.written == 1

    run(act)


def test_keys_are_remembered_over_a_crash_and_bounded_in_number(tmp_path: Path) -> None:
    async def act() -> None:
        store = _store(tmp_path)
        keys = SeenKeys(store, "c", Bounds(keys=3))
        for name in "abcd":
            keys.keep(name, 1, b"m")
        await store.flush()
        assert [keys.taken(name) is not None for name in "abcd"] == [False, True, True, True]
        store.close()
        store = _store(tmp_path)
        keys = SeenKeys(store, "c", Bounds(keys=3))
        assert [keys.taken(name) is not None for name in "abcd"] == [False, True, True, True]
        keys.keep("e", 1, b"m")
        await store.flush()
        store.close()
        store = _store(tmp_path)
        keys = SeenKeys(store, "c", Bounds(keys=3))
        assert [keys.taken(name) is not None for name in "abcde"] == [False, False, True, True, True]
        store.close()

    run(act)


def test_an_answer_comes_when_the_messages_are_stored(tmp_path: Path) -> None:
    async def act() -> None:
        store = _store(tmp_path)
        async with _inbox(store=store) as (_, session, url):
            answer = await session.post(url, data=b"x", headers={"Idempotency-Key": "k"})
            assert answer.status == 200
            store.close()  # nothing of what happens from here on is on record, as after SIGKILL
        store = _store(tmp_path)
        async with _inbox(store=store) as (end, session, url):
            answer = await session.post(url, data=b"x", headers={"Idempotency-Key": "k"})
            assert await answer.text() == "1 taken before\n"
            assert await end.read(1) == [b"x"]
        await store.flush()
        store.close()

    run(act)


def test_a_request_is_taken_as_a_whole_or_not_at_all() -> None:
    async def act() -> None:
        async with _inbox(max_message_bytes=1000) as (end, session, url):
            answer = await session.post(url, data=b"good\n" + b"x" * 1001 + b"\ngood", headers=LINES)
            assert answer.status == 400
            answer = await session.post(url, data=b"two\nlines")
            assert answer.status == 400
            answer = await session.post(url, data=b"x" * 1001)
            assert answer.status == 413
            answer = await session.post(url, data=b"x" * 1000)
            assert answer.status == 200
            assert await end.read(1) == [b"x" * 1000]
            assert end.channel.written == 1
            assert end.channel.refused == 3

    run(act)


def test_what_is_packed_is_not_unpacked() -> None:
    async def act() -> None:
        async with _inbox() as (end, session, url):
            answer = await session.post(url, data=b"x", headers={"Content-Encoding": "gzip"})
            assert answer.status == 415
            assert not end.channel.written

    run(act)


def test_a_full_channel_puts_requests_off() -> None:
    async def act() -> None:
        async with _inbox(capacity=1000) as (end, session, url):
            answer = await session.post(url, data=b"x" * 1000, headers={"Idempotency-Key": "k"})
            assert answer.status == 200
            answer = await session.post(url, data=b"y")
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            again = await session.post(url, data=b"x" * 1000, headers={"Idempotency-Key": "k"})
            assert await again.text() == "1 taken before\n", "that needs no room"
            assert any("no room" in why for why in end.far.hits)
            assert await end.read(1) == [b"x" * 1000]
            answer = await session.post(url, data=b"y")
            assert answer.status == 200

    run(act)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8000", 200),
        ("http://[::1]:8000", 200),
        ("https://example.com", 403),
        ("http://localhost.example.com", 403),
        ("http://[bad", 403),
        ("null", 403),
    ],
)
def test_pages_of_elsewhere_may_not_come_without_a_token(origin: str | None, status: int) -> None:
    async def act() -> None:
        headers = {} if origin is None else {"Origin": origin}
        async with _inbox() as (_, session, url):
            answer = await session.post(url, data=b"x", headers=headers)
            assert answer.status == status
        async with _inbox(token="secret") as (_, session, url):
            answer = await session.post(url + "?token=secret", data=b"x", headers=headers)
            assert answer.status == 200
            answer = await session.post(url, data=b"x", headers={**headers, "Authorization": "Bearer \u00fc"})
            assert answer.status == 401

    run(act)


def test_a_websocket_of_a_page_of_elsewhere_is_refused() -> None:
    async def act() -> None:
        end = End("reader", "websocket")
        async with end.alive(), aiohttp.ClientSession() as session:
            (await end.connected())[1].close()
            url = f"http://127.0.0.1:{end.port}/"
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url, headers={"Origin": "https://example.com"})
            assert refused.value.status == 403
            peer = await session.ws_connect(url, headers={"Origin": "http://localhost:3000"})
            await peer.send_str("one")
            assert await end.read(1) == [b"one"]
            await peer.close()

    run(act)


@pytest.mark.parametrize("token", [None, "secret"])
def test_pages_that_may_come_may_read_the_answers(token: str | None) -> None:
    page, asks = "http://localhost:3000", {"Access-Control-Request-Method": "POST"}

    async def act() -> None:
        async with _inbox(token=token) as (_, session, url):
            asked = await session.options(url, headers={"Origin": page, **asks})
            assert asked.status == 204
            assert asked.headers["Access-Control-Allow-Origin"] == page
            assert "POST" in asked.headers["Access-Control-Allow-Methods"]
            assert "Idempotency-Key" in asked.headers["Access-Control-Allow-Headers"]
            answer = await session.post(f"{url}?token=secret", data=b"x", headers={"Origin": page})
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, page)
            assert answer.headers["Vary"] == "Origin"
            other = await session.options(url, headers={"Origin": "https://example.com", **asks})
            assert other.status == (403 if token is None else 204)
            assert ("Access-Control-Allow-Origin" in other.headers) is (token is not None)

    run(act)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Host": "example.com:80"}, 403),
        ({"Host": "127.0.0.1.example.com"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "http://localhost:3000", "Sec-Fetch-Site": "cross-site"}, 200),
    ],
)
def test_no_page_of_elsewhere_takes_what_is_streamed(headers: dict[str, str], status: int) -> None:
    async def act() -> None:
        end = End("writer", "http")
        async with end.alive(), aiohttp.ClientSession() as session:
            (await end.connected())[1].close()
            answer = await session.get(f"http://127.0.0.1:{end.port}/", headers=headers)
            assert answer.status == status
            assert ("Access-Control-Allow-Origin" in answer.headers) is ("Origin" in headers)
            answer.close()

    run(act)


@pytest.mark.parametrize(
    ("shown", "status"),
    [("Bearer secret", 200), ("bearer secret", 200), ("BEARER  secret ", 200), ("Bearer", 401), ("Basic secret", 401)],
)
def test_a_token_is_shown_as_http_says(shown: str, status: int) -> None:
    async def act() -> None:
        async with _inbox(token="secret") as (_, session, url):
            assert (await session.post(url, data=b"x", headers={"Authorization": shown})).status == status

    run(act)


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_none_of_anybody(key: str) -> None:
    async def act() -> None:
        async with _inbox() as (end, session, url):
            answer = await session.post(url, data=b"x", headers={"Idempotency-Key": key})
            assert (answer.status, await answer.text()) == (400, "the Idempotency-Key is empty\n")
            assert not end.channel.written

    run(act)


def test_what_is_packed_on_its_way_is_not_unpacked_either() -> None:
    async def act() -> None:
        async with _inbox() as (end, _, _):
            for coding, status in ((b"gzip, chunked", b"415"), (b"chunked", b"200"), (b"Chunked", b"200")):
                reader, writer = await end.connected()
                writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: " + coding)
                writer.write(b"\r\n\r\n1\r\nx\r\n0\r\n\r\n")
                assert status in await reader.readline()
                writer.close()
            assert end.channel.written == 2

    run(act)
