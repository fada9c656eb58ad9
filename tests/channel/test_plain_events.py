"""Events are found however their bytes are cut and whichever line ends they have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.channel.plain.events import Event, Events
from runner.errors import CodecError

MOST = 10
STREAM = (
    b"\xef\xbb\xbf: a comment\nretry: 5\nid: 1\nevent: x\ndata: a\ndata:  b\ndata:c\n\n"
    b"data\n\nid\ndata:\n\nid: 2\n\n: " + b"long " * 10 + b"\ndata: 0123456789\n\ndata: 01234567890\ndata: x\n\n"
    b"data: 12345\ndata: 67890\n\ndata: d\n\nid: 3\ndata: half"
)
FOUND = [("a\n b\nc", "1"), ("", "1"), ("", ""), ("0123456789", "2"), (None, "2"), (None, "2"), ("d", "2")]


def _shown(events: list[Event]) -> list[tuple[str | None, str | None]]:
    return [(None if isinstance(each.data, CodecError) else each.data.decode(), each.last_id) for each in events]


@given(st.lists(st.integers(0, 40)), st.sampled_from((b"\n", b"\r", b"\r\n")))
def test_events_are_those_of_the_standard(cuts: list[int], line_end: bytes) -> None:
    stream, events, at = STREAM.replace(b"\n", line_end), Events(MOST, 100, None), 0
    found: list[Event] = []
    for cut in [*cuts, len(stream)]:
        found += events.feed(stream[at : at + cut])
        at += cut
    assert _shown(found) == FOUND


def test_an_event_of_many_lines_takes_no_longer_than_its_bytes() -> None:
    events = Events(1 << 21, 100, None)
    assert not events.feed(b"data:\n" * (1 << 20))
    (event,) = events.feed(b"\n")
    assert event.data == b"\n" * ((1 << 20) - 1)
