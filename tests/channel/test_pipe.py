"""The `pipe` channel: a kernel pipe whose ends are handed out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runner.channel.pipe import PipeChannel
from runner.codec.registry import codec_named
from runner.errors import BugError
from runner.spec.model import Channel

LINES = codec_named("lines")


@pytest.fixture
def channel() -> Iterator[PipeChannel]:
    made = PipeChannel(Channel("p", kind="pipe"))
    yield made
    made.close()


def test_what_is_written_comes_out(channel: PipeChannel) -> None:
    os.write(channel.writing_end(), b"as it is")
    assert os.read(channel.reading_end(), 100) == b"as it is"


def test_the_reader_finds_the_end_when_the_writer_s_end_is_released(channel: PipeChannel) -> None:
    copy = os.dup(channel.writing_end())
    channel.release_writing_end()
    os.write(copy, b"last")
    os.close(copy)
    assert os.read(channel.reading_end(), 100) == b"last"
    assert os.read(channel.reading_end(), 100) == b""


def test_a_write_fails_when_the_reader_s_end_is_released(channel: PipeChannel) -> None:
    channel.release_reading_end()
    with pytest.raises(BrokenPipeError):
        os.write(channel.writing_end(), b"x")


def test_no_child_inherits_its_ends(channel: PipeChannel) -> None:
    assert not os.get_inheritable(channel.reading_end())
    assert not os.get_inheritable(channel.writing_end())


def test_closing_twice_closes_nothing_else(channel: PipeChannel) -> None:
    ends = (channel.reading_end(), channel.writing_end())
    channel.close()
    others = [os.dup(0), os.dup(0)]  # the same numbers again
    assert set(others) == set(ends)
    channel.close()
    channel.release_reading_end()
    channel.release_writing_end()
    for other in others:
        os.close(other)


def test_it_counts_nothing_and_has_no_ends_of_ours(channel: PipeChannel) -> None:
    assert not channel.counted
    assert channel.readers == ()
    with pytest.raises(BugError):
        channel.open_reader("r", LINES)
    with pytest.raises(BugError):
        channel.open_writer("w", LINES)
