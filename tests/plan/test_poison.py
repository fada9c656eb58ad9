"""Who is blamed for deaths: whoever kills each time, and never an innocent."""

from __future__ import annotations

import signal
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.events import Exited
from runner.plan.poison import (
    ALONE,
    ALONE_SENT,
    COMPARISONS,
    Blow,
    Closed,
    Dead,
    Elsewhere,
    NeedsOther,
    Search,
    Trial,
    blow_of,
    too_many,
)
from runner.units import Rate

MOST_STEPS = 2000
Killed = Callable[[tuple[int, ...]], tuple[int, int, Blow | None]]
"""What becomes of a trial: (answered, read, blow)."""


def carry_out(search: Search, killed: Killed, others: list[int] | None = None) -> tuple[list[int], Closed | Elsewhere]:
    """(The dead letters, how the search ended); `others` are messages that come besides."""
    others, dead = list(others or []), []
    for _ in range(MOST_STEPS):
        while search.wants and others:
            search.add(others.pop(0))
        match search.next():
            case Trial(messages):
                answered, read, blow = killed(messages)
                in_order(search, messages, answered, read, blow)
            case Dead(message):
                dead.append(message)
            case NeedsOther():
                search.no_other()
            case end:
                return dead, end
    raise AssertionError("the search does not end")


def in_order(search: Search, messages: tuple[int, ...], answered: int, read: int, blow: Blow | None) -> None:
    """The end of a trial whose program answers in order."""
    search.ended(answered=messages[:answered], touched=messages[answered:read], blow=blow)


def killer(killers: set[int], read_ahead: int = 0, *, buffers: bool = False) -> Killed:
    """A program that dies of `killers`; it reads on by so many messages, and may flush its answers at its end only."""

    def run(messages: tuple[int, ...]) -> tuple[int, int, Blow | None]:
        for index, message in enumerate(messages):
            if message in killers:
                return 0 if buffers else index, min(len(messages), index + 1 + read_ahead), Blow.OWN
        return len(messages), len(messages), None

    return run


@given(
    count=st.integers(1, 300),
    data=st.data(),
    read_ahead=st.integers(0, 50),
    buffers=st.booleans(),
)
def test_one_killer_is_found_and_nobody_else(count: int, data: st.DataObject, read_ahead: int, buffers: bool) -> None:
    bad = data.draw(st.integers(0, count - 1))
    search = Search(range(count), succeeded=True)
    dead, end = carry_out(search, killer({bad}, read_ahead, buffers=buffers), [1000, 1001])
    assert dead == [bad]
    assert isinstance(end, Closed)


@given(count=st.integers(1, 100), killers=st.sets(st.integers(0, 99), max_size=5), buffers=st.booleans())
def test_of_several_killers_none_but_killers_are_set_aside(count: int, killers: set[int], buffers: bool) -> None:
    search = Search(range(count), succeeded=True)
    dead, end = carry_out(search, killer(killers, 3, buffers=buffers), [1000, 1001, 1002])
    assert set(dead) <= killers
    there = killers & set(range(count))
    if 0 < len(there) <= COMPARISONS or isinstance(end, Closed):
        assert len(dead) == bool(there), "comparisons reach beyond killers that stand side by side"


@given(
    count=st.integers(1, 64),
    bad=st.none() | st.integers(0, 63),
    kills=st.lists(st.tuples(st.booleans(), st.integers(0, 63), st.sampled_from(Blow)), max_size=200),
)
def test_random_kills_set_no_innocent_aside(count: int, bad: int | None, kills: list[tuple[bool, int, Blow]]) -> None:
    """A random kill may hit anything, any time, but a message that is alone only once less than it takes."""
    schedule = iter(kills)
    alone: dict[int, int] = {}
    honest = killer({bad} if bad is not None else set())

    def run(messages: tuple[int, ...]) -> tuple[int, int, Blow | None]:
        strikes, at, blow = next(schedule, (False, 0, Blow.OWN))
        answered, read, own = honest(messages)
        if not strikes:
            return answered, read, own
        at = min(at, answered)
        hit = messages[at:read] if at < len(messages) else ()
        if len(messages) == 1 and hit and messages[0] != bad:
            most = (ALONE_SENT if blow is Blow.SENT else ALONE) - 1
            if alone.get(messages[0], 0) >= min(most, ALONE - 1):
                return answered, read, own
            alone[messages[0]] = alone.get(messages[0], 0) + 1
        return at, read, blow

    dead, end = carry_out(Search(range(count), succeeded=True), run, [1000, 1001, 1002])
    assert set(dead) <= {bad}
    assert isinstance(end, Closed), "random kills do not fail a processor"


@given(count=st.integers(1, 64), others=st.integers(0, 5), buffers=st.booleans())
def test_trouble_elsewhere_sets_nothing_aside(count: int, others: int, buffers: bool) -> None:
    everything = set(range(2000))
    search = Search(range(count), succeeded=count + others > 1)
    dead, end = carry_out(search, killer(everything, buffers=buffers), list(range(1000, 1000 + others)))
    assert dead == []
    assert isinstance(end, Elsewhere)


@given(
    moves=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from([None, *Blow]), st.booleans()), max_size=100
    )
)
def test_whoever_is_set_aside_killed_alone_often_enough_before_a_success(
    moves: list[tuple[int, int, Blow | None, bool]],
) -> None:
    """Whatever happens: the letter of the rule."""
    search = Search(range(30), succeeded=False)
    alone: dict[int, list[Blow]] = {}
    succeeded_after: set[int] = set()
    for some, more, blow, elsewhere in moves:
        if elsewhere:
            search.succeeded()
            succeeded_after |= set(alone)
        step = search.next()
        if isinstance(step, Dead):
            blows = alone[step.message]
            assert len(blows) >= (ALONE_SENT if Blow.SENT in blows else ALONE)
            assert step.message in succeeded_after
            continue
        if not isinstance(step, Trial):
            break
        answered = min(some, len(step.messages))
        read = max(answered, min(more, len(step.messages)))
        if answered:
            succeeded_after |= set(alone) - set(step.messages[:answered])
        if blow is not None and len(step.messages) == 1 and read > answered:
            alone.setdefault(step.messages[0], []).append(blow)
            succeeded_after.discard(step.messages[0])
        in_order(search, step.messages, answered, read, blow)


@given(
    count=st.integers(1, 60),
    bad=st.none() | st.integers(0, 59),
    orders=st.randoms(use_true_random=False),
    refused=st.sets(st.integers(0, 59), max_size=5),
)
def test_answers_in_any_order_and_messages_given_back(
    count: int, bad: int | None, orders: Random, refused: set[int]
) -> None:
    """A program with many messages in work at once, which dies of one and gives others back: its killer is found."""
    search, others, dead = Search(range(count), succeeded=True), [1000, 1001, 1002], []
    withdrawn: set[int] = set()
    for _ in range(MOST_STEPS):
        while search.wants and others:
            search.add(others.pop(0))
        match search.next():
            case Trial(messages):
                assert not withdrawn & set(messages), "what the program gave back is tried again"
                dies = bad in messages
                given_back = {each for each in messages if each in refused and each != bad}
                withdrawn |= given_back
                answered = [each for each in messages if each != bad and each not in given_back]
                if dies:
                    answered = orders.sample(answered, orders.randint(0, len(answered)))
                search.ended(answered=answered, touched=messages, blow=Blow.OWN if dies else None, withdrawn=given_back)
            case Dead(message):
                dead.append(message)
            case NeedsOther():
                search.no_other()
            case end:
                assert isinstance(end, Closed)
                assert not withdrawn & set(end.messages)
                break
    else:
        raise AssertionError("the search does not end")
    assert dead == ([bad] if bad is not None and bad < count else [])


def test_a_comparison_that_is_given_back_is_no_success() -> None:
    search = Search([1], succeeded=False)
    for _ in range(ALONE):
        search.next()
        search.ended(answered=(), touched=(1,), blow=Blow.OWN)
    search.add(2)
    assert search.next() == Trial((2,))
    search.ended(answered=(), touched=(), blow=None, withdrawn=(2,))
    assert search.next() == NeedsOther()
    search.no_other()
    assert isinstance(search.next(), Elsewhere)


def test_killers_side_by_side_are_told_from_trouble_elsewhere() -> None:
    dead, end = carry_out(Search(range(10), succeeded=True), killer({8, 9}), [1000])
    assert (dead, isinstance(end, Closed)) == ([8], True)


def test_what_was_not_read_did_not_kill() -> None:
    search = Search([1], succeeded=True)
    for _ in range(5):
        assert search.next() == Trial((1,))
        search.ended(answered=(), touched=(), blow=Blow.OWN)
    assert search.accused is None


def test_later_counts_for_nothing() -> None:
    search = Search([1], succeeded=True)
    for _ in range(5):
        assert search.next() == Trial((1,))
        search.ended(answered=(), touched=(1,), blow=None)
    assert search.accused is None


def test_the_only_message_is_set_aside_when_others_have_succeeded_before() -> None:
    assert carry_out(Search([1], succeeded=True), killer({1}))[0] == [1]
    dead, end = carry_out(Search([1], succeeded=False), killer({1}))
    assert (dead, isinstance(end, Elsewhere)) == ([], True)


def test_a_success_of_another_replica_tells_the_accused_from_trouble_elsewhere() -> None:
    search = Search([1], succeeded=False)
    for _ in range(ALONE):
        search.next()
        search.ended(answered=(), touched=(1,), blow=Blow.OWN)
    assert search.next() == NeedsOther()
    search.succeeded()
    assert search.next() == Dead(1)


@pytest.mark.parametrize(
    ("exited", "why", "blow"),
    [
        (Exited(1, None), None, Blow.OWN),
        (Exited(None, signal.SIGSEGV), None, Blow.OWN),
        (Exited(None, signal.SIGKILL), None, Blow.SENT),
        (Exited(None, signal.SIGTERM), None, Blow.SENT),
        (Exited(None, signal.SIGKILL, note="out of memory: its limit is 64 MiB"), None, Blow.OWN),
        (Exited(None, signal.SIGKILL), "stalled", Blow.OWN),
    ],
)
def test_who_may_have_done_it(exited: Exited, why: str | None, blow: Blow) -> None:
    assert blow_of(exited, why) is blow


def test_more_dead_letters_than_the_limit() -> None:
    limit = Rate(2, 60.0)
    assert not too_many([], 100.0, limit)
    assert not too_many([10.0, 50.0], 100.0, limit)
    assert too_many([50.0, 60.0], 100.0, limit)
