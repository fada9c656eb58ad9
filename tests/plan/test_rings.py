"""Rings of waits."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.plan.rings import Wait, ring_of

names = st.sampled_from("abcdef")
waits = st.lists(st.builds(Wait, names, names, st.just("c"), st.booleans()), max_size=14)


def wait(text: str) -> Wait:
    """ "a>b" waits for room, "a?b" for a message."""
    return Wait(text[0], text[2], f"{text[0]}{text[2]}", full=text[1] == ">")


@given(waits)
def test_what_is_found_is_a_ring_in_which_somebody_waits_for_room(given_waits: list[Wait]) -> None:
    ring = ring_of(given_waits)
    if ring is None:
        return
    assert all(item in given_waits for item in ring)
    assert all(here.whom == there.who for here, there in zip(ring, (*ring[1:], ring[0]), strict=True))
    assert len({item.who for item in ring}) == len(ring)
    assert any(item.full for item in ring)


@given(waits)
def test_a_ring_is_found_whenever_one_goes_through_a_full_channel(given_waits: list[Wait]) -> None:
    edges = {(item.who, item.whom) for item in given_waits}
    for _ in range(6):
        edges |= {(a, d) for a, b in edges for c, d in edges if b == c}
    expected = any(item.full and (item.whom == item.who or (item.whom, item.who) in edges) for item in given_waits)
    assert (ring_of(given_waits) is not None) == expected


def test_waits_for_messages_only_are_no_ring() -> None:
    assert ring_of([wait("a?b"), wait("b?a")]) is None


def test_a_chain_is_no_ring() -> None:
    assert ring_of([wait("a>b"), wait("b>c"), wait("c>d")]) is None


def test_a_ring_names_who_waits_for_whom_and_where() -> None:
    ring = ring_of([wait("x>a"), wait("a>b"), wait("b?c"), wait("c?a")])
    assert ring is not None
    assert [str(item) for item in ring] == [
        "`a` waits for `b` (channel `ab` is full)",
        "`b` waits for `c` (channel `bc` is empty)",
        "`c` waits for `a` (channel `ca` is empty)",
    ]


@pytest.mark.timeout(60)
def test_many_paths_take_no_time() -> None:
    """A slow last processor holds up every layer before it: that is ordinary, and looked at twice a second."""
    layers = [
        Wait(f"{depth}.{here}", f"{depth + 1}.{there}", "c", full=True)
        for depth in range(9)
        for here in range(4)
        for there in range(4)
    ]
    before_s = time.process_time()
    assert ring_of(layers) is None
    assert time.process_time() - before_s < 2
