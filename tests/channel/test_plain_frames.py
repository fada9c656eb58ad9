"""Where a websocket's messages end is known however the bytes are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.channel.plain.frames import Frames

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def _frame(opcode: int, payload: bytes, *, final: bool, masked: bool) -> bytes:
    """One frame (RFC 6455, 5.2)."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 1 << 16 else 127
    head = bytes((opcode | 0x80 * final, short | 0x80 * masked))
    head += size.to_bytes({126: 2, 127: 8}[short], "big") if short >= 126 else b""
    return head + b"\xff\0\xff\0" * masked + payload


FRAMES = st.lists(
    st.tuples(
        st.sampled_from((1, 2, 9)),
        st.sampled_from((0, 1, 125, 126, 300, 66_000)),
        st.booleans(),
        st.booleans(),
    ),
    max_size=8,
)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_what_is_pending_is_what_came_of_the_last_message(
    frames: list[tuple[int, int, bool, bool]], cuts: list[int]
) -> None:
    """Asked after each frame, which itself comes in pieces."""
    found, pending, open_ = Frames(), 0, False
    found.feed(REQUEST[:-1])
    found.feed(REQUEST[-1:])
    assert (found.begun, found.whole) == (True, True)
    for opcode, due, final, masked in frames:
        control = opcode == 9
        size = min(due, 125) if control else due
        data = _frame(opcode, b"\x82" * size, final=final or control, masked=masked)
        at = 0
        for cut in [*cuts, len(data)]:
            piece = data[at : at + cut]
            found.feed(piece)
            at += len(piece)
            if 0 < at < len(data):
                assert not found.whole
        if not control:
            open_ = not final
            pending = pending + size if open_ else 0
        assert found.whole is not open_
        assert found.pending_bytes == pending


@given(data=st.lists(st.binary(max_size=40)))
def test_no_bytes_confuse_it(data: list[bytes]) -> None:
    found = Frames()
    found.feed(REQUEST)
    for each in data:
        found.feed(each)
        assert found.pending_bytes >= 0
