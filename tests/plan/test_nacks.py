"""Nacks that count against a message, and those that do not."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runner.plan.nacks import APART_S, FEW, LONE_APART_S, Nacks, after_nack

AFTER = 3


def nacked(steps: list[tuple[float, int, int | None]]) -> Nacks:
    """A message that is nacked at these times: (seconds since before, successes since before, left)."""
    record: Nacks | None = None
    now_s, answered = 0.0, 0
    for since_s, successes, left in steps:
        now_s, answered = now_s + since_s, answered + successes
        record = after_nack(record, now_s=now_s, answered=answered, left=left)
    assert record is not None
    return record


def test_each_counts_where_others_succeed_meanwhile() -> None:
    assert nacked([(0, 5, None), (APART_S, 1, None), (APART_S, 1, None)]).count == AFTER


def test_none_but_the_first_counts_where_nothing_succeeds() -> None:
    assert nacked([(0, 5, None), *[(60.0, 0, None)] * 100]).count == 1


def test_what_is_soon_over_counts_once() -> None:
    assert nacked([(0, 5, None), *[(APART_S / 11, 100, None)] * 10]).count == 1


def test_where_nothing_else_comes_later_successes_do() -> None:
    assert nacked([(0, 5, None), (APART_S, 1, None), (APART_S, 0, FEW + 7), (APART_S, 0, FEW + 7)]).count == AFTER + 1


def test_where_nothing_else_comes_and_few_are_left_earlier_successes_do_in_time() -> None:
    assert nacked([(0, 5, FEW), (LONE_APART_S, 0, FEW), (LONE_APART_S, 0, FEW)]).count == AFTER
    assert nacked([(0, 5, FEW), *[(LONE_APART_S / 3, 0, FEW)] * 2]).count == 1
    assert nacked([(0, 5, FEW + 1), *[(60.0, 0, FEW + 1)] * 100]).count == 1
    assert nacked([(0, 0, 1), *[(60.0, 0, 1)] * 100]).count == 1


@given(
    st.lists(
        st.tuples(st.floats(0, 30), st.integers(0, 3), st.none() | st.integers(1, 10)), min_size=AFTER, max_size=60
    )
)
def test_whoever_is_set_aside_failed_for_long_and_others_did_not(steps: list[tuple[float, int, int | None]]) -> None:
    """The letter of the rule: so many seconds have gone by, and something has succeeded, mostly meanwhile."""
    count = nacked(steps).count
    lasted_s = sum(since_s for since_s, _, _ in steps[1:])
    assert lasted_s >= (count - 1) * APART_S - 1e-6
    if count > 1:
        assert any(successes for _, successes, _ in steps)
        few = any(left is not None and left <= FEW for _, _, left in steps)
        assert few or any(successes for _, successes, _ in steps[1:])
    counts = [nacked(steps[:length]).count for length in range(1, len(steps) + 1)]
    assert all(0 <= later - before <= 1 for before, later in itertools.pairwise(counts))
