"""File channels without programs: what a file cannot carry, what a file to read has to be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.channel.base import Outside
from runner.channel.file_sink import FileSink
from runner.channel.file_source import FileSource
from runner.codec.registry import codec_named
from runner.errors import RunnerError
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import Durability, FileEnd, Rotation
from runner.store import Store
from tests.faults.files import files_of

LINES = codec_named("lines")


def _never(said: str) -> None:
    raise AssertionError(said)


def spec(path: Path, *, reads: bool, codec: str = "lines", most_bytes: int | None = None) -> ChannelSpec:
    file = FileEnd(path, codec, Rotation(most_bytes))
    writers, readers = ((), ("r",)) if reads else (("w",), ())
    return ChannelSpec("c", "file", 1000, writers=writers, readers=readers, durability=Durability.PROCESS, file=file)


def store_in(folder: Path) -> Store:
    return Store.open(folder / "state", sync=False, capacity_bytes={"c": 1000})


async def put(folder: Path, channel: ChannelSpec, *payloads: bytes) -> None:
    """A run that puts these into a file."""
    store = store_in(folder)
    sink = FileSink(channel, store)
    writer = sink.open_writer("w", LINES)
    living = asyncio.create_task(sink.live(Outside(_never, _never, _never)))
    writer.publish(LINES.batch_of(payloads))
    writer.end()
    await living
    await store.flush()
    sink.close()
    store.close()


def test_a_message_that_is_longer_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    payloads = [b"1", b"22", b"long" * 10, b"3", b"4"]
    asyncio.run(put(tmp_path, spec(tmp_path / "out", reads=False, most_bytes=10), *payloads))
    assert [each.read_bytes() for each in files_of(tmp_path / "out")] == [
        b"1\n22\n",
        b"long" * 10 + b"\n",
        b"3\n4\n",
    ]


def test_a_file_that_is_full_already(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"x" * 19 + b"\n")
    asyncio.run(put(tmp_path, spec(tmp_path / "out", reads=False, most_bytes=10), b"1"))
    assert [each.read_bytes() for each in files_of(tmp_path / "out")] == [b"x" * 19 + b"\n", b"1\n"]


def test_a_file_is_exchanged_by_its_age_over_runs(tmp_path: Path) -> None:
    """The clock goes on while nothing runs, and an empty file has no age."""

    async def run(now_s: float, payload: bytes) -> None:
        channel = ChannelSpec(
            "c",
            "file",
            1000,
            writers=("w",),
            durability=Durability.PROCESS,
            file=FileEnd(tmp_path / "out", "lines", Rotation(every_s=60.0)),
        )
        store = store_in(tmp_path)
        sink = FileSink(channel, store, now=lambda: now_s)
        writer = sink.open_writer("w", LINES)
        living = asyncio.create_task(sink.live(Outside(_never, _never, _never)))
        writer.publish(LINES.batch_of([payload]))
        writer.end()
        await living
        await store.flush()
        sink.close()
        store.close()

    for now_s, payload in ((1000.0, b"1"), (1059.0, b"2"), (1060.0, b"3"), (1119.0, b"4"), (5000.0, b"5")):
        asyncio.run(run(now_s, payload))
    assert [each.read_bytes() for each in files_of(tmp_path / "out")] == [b"1\n2\n", b"3\n4\n", b"5\n"]


async def got(folder: Path, channel: ChannelSpec) -> tuple[list[bytes], list[str]]:
    """What a run reads of a file, and why it stopped the run."""
    store = store_in(folder)
    try:
        source = FileSource(channel, store)
    except RunnerError:
        store.close()
        raise
    reader = source.open_reader("r", LINES)
    stopped: list[str] = []
    await source.live(Outside(_never, stopped.append, _never))
    await store.flush()
    found: list[bytes] = []
    while (batch := reader.take()) is not None:
        found += LINES.payloads(batch)
    assert reader.ended
    source.close()
    store.close()
    return found, stopped


def test_a_frame_that_is_cut_short_is_named_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"\0\0\0\1a\0\0\0\5bcd")
    found, stopped = asyncio.run(got(tmp_path, spec(tmp_path / "in", reads=True, codec="length-prefixed")))
    assert found == [b"a"]
    assert f"file {tmp_path}/in, byte 5: the last frame was cut short" in stopped[0]


def test_what_a_reader_cannot_be_given_is_named_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\0b\0c\nd\0e\0")
    found, stopped = asyncio.run(got(tmp_path, spec(tmp_path / "in", reads=True, codec="null")))
    assert found == [b"a", b"b"]
    assert f"file {tmp_path}/in, byte 4: message 3 of channel `c` is refused" in stopped[0]


def test_raw_bytes(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(600_000))

    async def run() -> int:
        store = store_in(tmp_path)
        source = FileSource(spec(tmp_path / "in", reads=True, codec="raw"), store)
        reader = source.open_reader("r", codec_named("raw"))
        store.on_freed = lambda _channel: source.room()
        living = asyncio.create_task(source.live(Outside(_never, _never, _never)))
        size_bytes = 0
        came = asyncio.Event()
        reader.on_data = came.set
        while not (reader.ended and not reader.queued_messages):
            batch = reader.take()
            if batch is not None:
                size_bytes += batch.size_bytes
                reader.acknowledge(reader.number, batch.count)
            elif not reader.ended:
                came.clear()
                await came.wait()
        await living
        source.close()
        store.close()
        return size_bytes

    assert asyncio.run(run()) == 600_000


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    assert asyncio.run(got(tmp_path, spec(tmp_path / "in", reads=True))) == ([], [])


def test_a_file_to_read_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="cannot be read: no such file or directory"):
        asyncio.run(got(tmp_path, spec(tmp_path / "in", reads=True)))
    (tmp_path / "in").mkdir()
    with pytest.raises(RunnerError, match="is a folder"):
        asyncio.run(got(tmp_path, spec(tmp_path / "in", reads=True)))
