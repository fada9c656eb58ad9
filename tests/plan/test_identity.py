"""Users of their own: the same at each run, apart from each other, above every account."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.plan.identity import IDS, instance_gid, instance_uid, usable_ids

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
WHOLE = "         0          0 4294967295\n"


@given(NAMES, NAMES, st.integers(1, 500))
def test_every_number_lies_in_its_range(pipeline: str, processor: str, replica: int) -> None:
    assert instance_uid(pipeline, processor, replica) in IDS
    assert instance_gid(pipeline, processor) in IDS
    assert instance_uid(pipeline, processor, replica, range(7, 9)) in {7, 8}


def test_numbers_are_the_same_at_every_run() -> None:
    """Files that a processor has written stay its own: these must not change from one version to the next."""
    assert instance_uid("flights", "store", 1) == 1_899_504_331
    assert instance_gid("flights", "store") == 1_095_402_767


def test_instances_processors_and_pipelines_are_apart() -> None:
    made = {
        instance_uid(pipeline, processor, replica)
        for pipeline in ("a", "ab", "b")
        for processor in ("c", "bc", "d")
        for replica in range(1, 100)
    }
    assert len(made) == 3 * 3 * 99
    assert len({instance_gid(pipeline, "p") for pipeline in ("a", "b", "c")}) == 3


def test_names_do_not_run_into_each_other() -> None:
    assert instance_uid("ab", "c", 1) != instance_uid("a", "bc", 1)
    assert instance_gid("ab", "c") != instance_gid("a", "bc")


def test_the_whole_range_is_used_where_it_is_there() -> None:
    assert usable_ids(WHOLE) == IDS


def test_a_namespace_of_few_gives_its_upper_half() -> None:
    assert usable_ids("0 100000 65536\n") == range(32767, 65534)
    assert usable_ids("0 1000 1\n1 100000 65536\n") == range(32767, 65534)


def test_a_namespace_of_hardly_any_gives_none() -> None:
    assert usable_ids("0 1000 1\n") is None
    assert usable_ids("") is None
