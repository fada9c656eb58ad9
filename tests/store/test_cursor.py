"""Cursors against a naive model: a dict from number to what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import BugError
from runner.store.cursor import Cursor
from runner.store.sealed import SealError

MOST = 24
OUTCOMES = {
    "acknowledged": Cursor.acknowledge,
    "indeterminate": Cursor.mark_indeterminate,
    "dead": Cursor.mark_dead,
    "dropped": Cursor.drop,
}
STEPS = st.lists(
    st.tuples(st.sampled_from([*OUTCOMES, "claim", "unclaim"]), st.integers(0, MOST), st.integers(0, 6)), max_size=40
)


@dataclass
class Model:
    outcome: dict[int, str] = field(default_factory=dict)
    claimed: set[int] = field(default_factory=set)

    def do(self, what: str, numbers: set[int]) -> bool:
        """Whether it may be done; it is done then."""
        if not numbers or min(numbers) < 1 or numbers & self.outcome.keys():
            return False
        if what == "claim":
            if numbers & self.claimed:
                return False
            self.claimed |= numbers
        elif what == "unclaim":
            if not numbers <= self.claimed:
                return False
            self.claimed -= numbers
        else:
            self.outcome.update(dict.fromkeys(numbers, what))
            self.claimed -= numbers
        return True


def numbers_of(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    """Each number in `ranges`."""
    return {number for first, last in ranges for number in range(first, last + 1)}


def same(cursor: Cursor, model: Model) -> None:
    """What both say."""
    base = 0
    while base + 1 in model.outcome:
        base += 1
    assert cursor.base == base
    assert numbers_of(cursor.done) == {number for number in model.outcome if number > base}
    assert numbers_of(cursor.claimed) == model.claimed
    assert cursor.handed_out == len(model.claimed)
    for what in OUTCOMES:
        assert getattr(cursor, what) == sum(1 for one in model.outcome.values() if one == what)
    assert cursor.outcomes == len(model.outcome)
    assert cursor.begun == 0
    for ranges in (cursor.done, cursor.claimed):
        assert all(one[1] + 1 < other[0] for one, other in pairwise(ranges)), "not normalised"
    assert numbers_of(cursor.open_ranges(MOST)) == set(range(1, MOST + 1)) - model.outcome.keys()


@given(STEPS)
@settings(deadline=None)
def test_as_a_set_of_numbers(steps: list[tuple[str, int, int]]) -> None:
    cursor, model = Cursor(), Model()
    for what, number, count in steps:
        act = OUTCOMES.get(what) or getattr(Cursor, what)
        if model.do(what, set(range(number, number + count))):
            cursor = act(cursor, number, count)
        else:
            with pytest.raises(BugError):
                act(cursor, number, count)
        same(cursor, model)
    assert Cursor.decode(b"k", cursor.encode(b"k")) == cursor
    after = cursor.after_crash()
    for number in tuple(model.claimed):
        model.do("indeterminate", {number})
    same(after, model)


@given(STEPS, st.data())
@settings(deadline=None)
def test_a_flipped_bit_is_noticed(steps: list[tuple[str, int, int]], data: st.DataObject) -> None:
    cursor = Cursor()
    for number, count in ((number, count) for _, number, count in steps if number and count):
        if number > cursor.base and not numbers_of(cursor.done) & set(range(number, number + count)):
            cursor = cursor.acknowledge(number, count)
    stored = bytearray(cursor.encode(b"a\0reader"))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealError):
        Cursor.decode(b"a\0reader", bytes(stored))


def test_of_another_reader() -> None:
    with pytest.raises(SealError):
        Cursor.decode(b"one", Cursor(base=3, acknowledged=3).encode(b"two"))


def test_who_joins_late() -> None:
    cursor = Cursor(base=100).acknowledge(101, 5)
    assert (cursor.base, cursor.begun, cursor.acknowledged) == (105, 100, 5)
