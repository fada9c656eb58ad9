"""What a failed step printed: its last lines, harmless, bounded."""

from __future__ import annotations

import pytest

from runner.pack.build import LastLines


@pytest.mark.parametrize("piece_length", [1, 3, 100_000])
def test_the_last_ones(piece_length: int) -> None:
    text = "".join(f"line {number}\n\n" for number in range(50)) + "torn"
    last = LastLines(3)
    for start in range(0, len(text), piece_length):
        last.add(text[start : start + piece_length])
    assert last.lines() == ["line 48", "line 49", "torn"]
    last.add(" no more\n")
    assert last.lines() == ["line 48", "line 49", "torn no more"]


def test_harmless() -> None:
    last = LastLines(9)
    last.add("\x1b[31mred\x1b[0m\n\x1b]0;title\x07\n10 %\r100 %\r\ntab\there\n\x1b[0m\n")
    assert last.lines() == ["red", "\ufffd]0;title\ufffd", "100 %", "tab\there"]


def test_an_endless_line() -> None:
    last = LastLines(2)
    for _ in range(100):
        last.add("x" * 1000)
    assert [len(line) for line in last.lines()] == [500]
    last.add("\nshort\n")
    assert [len(line) for line in last.lines()] == [500, 5]
