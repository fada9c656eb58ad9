"""Who made what, and whether that runner lives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.plan.owners import Owner, is_dead, leftovers, owner_in

ME = Owner("boot", 10, 100, 1000)
NUMBERS = st.integers(0, 1 << 62)


def alive(pid: int) -> int | None:
    return {100: 1000, 200: 2000}.get(pid)


@pytest.mark.parametrize(
    ("owner", "dead"),
    [
        (ME, False),
        (Owner("boot", 10, 200, 2000), False),
        (Owner("boot", 10, 200, 1999), True),  # its number was given to another
        (Owner("boot", 10, 300, 1000), True),
        (Owner("before", 10, 100, 1000), True),
        (Owner("boot", 11, 300, 1000), False),  # cannot be seen from here
    ],
)
def test_who_is_dead(owner: Owner, dead: bool) -> None:
    assert is_dead(owner, ME, alive) is dead


def test_leftovers_are_those_of_the_dead_alone() -> None:
    found = {"a": str(ME), "b": "boot-10-300-1", "c": "", "d": "somebody else's", "e": "boot-10-x-1", "f": "-1-2-3"}
    assert leftovers(found, ME, alive) == ["b"]


@given(st.from_regex("[0-9a-f]{8}", fullmatch=True), NUMBERS, NUMBERS, NUMBERS)
def test_an_owner_comes_back_from_its_text_and_from_a_files_name(boot: str, space: int, pid: int, began: int) -> None:
    owner = Owner(boot, space, pid, began)
    assert Owner.parse(str(owner)) == owner
    assert owner_in(f"connector-{owner}-abc_d1", "connector-") == owner


@pytest.mark.parametrize("name", ["connector", "connector-", "connector-x", "other-boot-1-2-3-r", "boot-1-2-3-r"])
def test_other_names_have_no_owner(name: str) -> None:
    assert owner_in(name, "connector-") is None
