"""Logs: every line is shown, or counted."""

from __future__ import annotations

import asyncio
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.bridge.logs import LINE_BYTES, InstanceLog, LogReader
from runner.events import Bus, Event, LogLeftOut, LogLine

chunks = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([b"\n", b"line\n", b"half", b" and half\n", b"x" * 9000, b"y" * LINE_BYTES + b"\n"]),
            st.integers(1, 9000).map(lambda count: b"z\n" * count),
            st.integers(1, 9000).map(lambda count: b"z\n" * count + b"cut he"),
        ),
        st.floats(0, 3),
    ),
    max_size=12,
)


async def logged(given_chunks: list[tuple[bytes, float]]) -> tuple[list[LogLine], int, InstanceLog]:
    now = [0.0]
    events: list[Event] = []
    bus = Bus()
    bus.subscribe(events.append)
    log = InstanceLog(bus, "p", 1, clock=lambda: now[0])
    read_end, write_end = os.pipe()
    reader = LogReader(read_end, log, "stderr")
    for data, pause_s in given_chunks:
        reader._take(data)
        now[0] += pause_s
    os.close(write_end)
    async with asyncio.timeout(20):
        await reader.ended.wait()
    left_out = sum(event.count for event in events if isinstance(event, LogLeftOut))
    return [event for event in events if isinstance(event, LogLine)], left_out, log


@given(chunks)
@settings(deadline=None, max_examples=60)
def test_what_is_shown_and_what_is_left_out_are_all_lines(given_chunks: list[tuple[bytes, float]]) -> None:
    written = b"".join(data for data, _ in given_chunks)
    lines = written.count(b"\n") + (bool(written) and not written.endswith(b"\n"))
    shown, left_out, log = asyncio.run(logged(given_chunks))
    assert left_out == log.left_out
    assert len(shown) + left_out == lines


@given(chunks)
@settings(deadline=None, max_examples=30)
def test_a_line_is_shown_up_to_its_bound_and_says_so(given_chunks: list[tuple[bytes, float]]) -> None:
    shown, _, _ = asyncio.run(logged(given_chunks))
    assert all(len(event.text) <= LINE_BYTES for event in shown)
    assert all(len(event.text) == LINE_BYTES for event in shown if event.cut)


def test_a_flood_is_limited_and_quiet_lines_after_it_are_shown() -> None:
    shown, left_out, log = asyncio.run(logged([(b"flood\n" * 20_000, 100.0), (b"calm\n", 0.0)]))
    assert [event.text for event in shown] == ["calm"]
    assert left_out == 20_000
    assert log.last_lines[-2:] == ("flood", "calm")
