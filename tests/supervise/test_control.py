"""The control socket alone: whoever asks, and however badly, is answered or let go, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runner.cli.control import ask, at_work
from runner.errors import MachineError, RunnerError
from runner.supervise import control
from runner.supervise.control import MOST_REQUEST_BYTES, NAME, Control


async def count(arguments: msgspec.Raw) -> AsyncIterator[int]:
    for number in range(msgspec.json.decode(arguments, type=dict[str, int])["to"]):
        yield number


async def fails(arguments: msgspec.Raw) -> AsyncIterator[int]:
    del arguments
    yield 1
    raise RunnerError("it rains", where="outside", remedy="wait")


def served(folder: Path, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run `scenario` while the socket in `folder` is served."""

    async def run() -> None:
        server = Control(folder, {"count": count, "fails": fails})
        server.open()
        try:
            serving = asyncio.create_task(server.serve())
            async with asyncio.timeout(20):
                await scenario()
            assert not serving.done()
            serving.cancel()
            await asyncio.wait({serving})
        finally:
            server.close()

    asyncio.run(run())
    assert not (folder / NAME).exists()
    assert not at_work(folder)


async def asks(folder: Path, verb: str, arguments: object) -> list[Any]:
    return await asyncio.to_thread(lambda: [json.loads(bytes(answer)) for answer in ask(folder, verb, arguments)])


def dialled() -> socket.socket:
    """A connection to the socket in the current folder."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(NAME)
    connection.settimeout(20)
    return connection


def raw(data: bytes) -> bytes:
    """What comes back for these bytes."""
    with dialled() as connection, connection.makefile("rb") as answer:
        connection.sendall(data)
        return answer.read()


def test_items_and_what_is_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        assert await asks(tmp_path, "count", {"to": 3}) == [0, 1, 2]
        assert len(await asks(tmp_path, "count", {"to": 5000})) == 5000
        with pytest.raises(MachineError, match=r"outside: it rains \(wait\)"):
            await asks(tmp_path, "fails", {})
        with pytest.raises(MachineError, match="does not know `dance`"):
            await asks(tmp_path, "dance", {})

    served(tmp_path, scenario)


def test_only_its_owner_finds_a_way_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
        await asyncio.sleep(0)

    served(tmp_path, scenario)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"hello\n", b"no request that this runner understands"),
        (b'{"verb":"count","arguments":{"to":"many"}}\n', b"no request that this runner understands"),
        (b'{"verb":"count","arguments":' + b"[" * 30_000 + b"\n", b"no request that this runner understands"),
        (b"x" * MOST_REQUEST_BYTES, b"no request that this runner understands"),
    ],
)
def test_garbage_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, said: bytes) -> None:
    monkeypatch.chdir(tmp_path)

    async def scenario() -> None:
        assert said in await asyncio.to_thread(raw, data)
        assert await asks(tmp_path, "count", {"to": 1}) == [0]

    served(tmp_path, scenario)


def test_who_says_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_REQUEST_S", 0.1)
    monkeypatch.chdir(tmp_path)

    async def scenario() -> None:
        silent = [await asyncio.to_thread(dialled) for _ in range(20)]
        assert await asks(tmp_path, "count", {"to": 1}) == [0]
        for connection in silent:
            with connection:
                assert await asyncio.to_thread(connection.recv, 1) == b""

    served(tmp_path, scenario)


def test_who_reads_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_SEND_S", 0.1)
    monkeypatch.chdir(tmp_path)

    async def scenario() -> None:
        with dialled() as deaf:
            deaf.sendall(b'{"verb":"count","arguments":{"to":10000000}}\n')
            assert await asks(tmp_path, "count", {"to": 1}) == [0]
            await asyncio.to_thread(_until_closed, deaf)

    served(tmp_path, scenario)


def _until_closed(connection: socket.socket) -> None:
    """Until the other end has gone: sending fails then, whatever is still to be read."""
    try:
        while True:
            connection.sendall(b"x")
    except (BrokenPipeError, ConnectionResetError):
        return


def test_what_a_dead_runner_left_is_no_runner(tmp_path: Path) -> None:
    left = Control(tmp_path, {})
    left.open()
    assert left._socket is not None
    left._socket.close()
    assert (tmp_path / NAME).is_socket()
    assert not at_work(tmp_path)

    async def scenario() -> None:
        assert await asks(tmp_path, "count", {"to": 1}) == [0]

    served(tmp_path, scenario)
