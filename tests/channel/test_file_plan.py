"""The plans for files: from any state and any disk, also from the middle of carrying one out."""

from __future__ import annotations

import dataclasses
import itertools

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from runner.channel.file_plan import (
    Disk,
    Found,
    Kept,
    Plan,
    Refusal,
    Sibling,
    Step,
    after,
    full_name,
    full_number,
    looks_rotated,
    plan_writing,
)

PATH = "out"
OURS, NEXT, OTHER, CREATED = 11, 12, 13, 99

founds = st.none() | st.builds(Found, st.sampled_from((OURS, NEXT, OTHER)), st.integers(0, 6), st.booleans())
disks = st.builds(Disk, founds, founds, founds, st.integers(0, 3))
records = st.none() | st.builds(
    Kept,
    st.just(PATH),
    st.integers(1, 4),
    st.just(OURS),
    st.integers(0, 6),
    st.just(0),
    st.sampled_from((0.0, 5.0)),
    st.none() | st.just(NEXT),
)


def carried_out(steps: tuple[Step, ...], disk: Disk, kept: Kept | None) -> Disk:
    """What the disk is like after `steps`."""
    for step in steps:
        current = disk.current
        if step is Step.CUT:
            assert current is not None
            assert kept is not None
            length = 0 if current.inode == kept.next_inode else kept.length_bytes
            disk = dataclasses.replace(disk, current=dataclasses.replace(current, size_bytes=length))
        elif step is Step.NAME_FULL:
            assert disk.full is None, "a file is never put over another"
            disk = dataclasses.replace(disk, full=current)
        elif step is Step.UNNAME:
            assert disk.full is not None
            assert current is not None
            assert disk.full.inode == current.inode, "it has its own name as well"
            disk = dataclasses.replace(disk, full=None)
        elif step is Step.SWAP:
            assert disk.fresh is not None
            assert current is None or (disk.full is not None and disk.full.inode == current.inode)
            disk = dataclasses.replace(disk, current=dataclasses.replace(disk.fresh, same_tail=True), fresh=None)
        else:
            assert current is None, "a file is never made over another"
            disk = dataclasses.replace(disk, current=Found(CREATED, 0))
    return disk


@given(kept=records, disk=disks)
@example(Kept(PATH, 1, OURS, 0, next_inode=NEXT), Disk(None, Found(OURS, 0), Found(NEXT, 1)))  # somebody wrote into it
def test_nothing_is_lost_by_a_plan(kept: Kept | None, disk: Disk) -> None:
    plan = plan_writing(PATH, kept, disk, 1.0)
    if isinstance(plan, Refusal):
        return
    done = carried_out(plan.steps, disk, kept)
    assert done.current is not None
    assert done.current.inode == (plan.kept.inode or CREATED)
    assert done.current.size_bytes == plan.kept.length_bytes, "never shorter, never padded"
    if kept is None:
        assert done.current == (disk.current or Found(CREATED, 0)), "what was there stays"
        return
    ours = [each for each in (done.current, done.full) if each is not None and each.inode == OURS]
    before = [each for each in (disk.current, disk.full) if each is not None and each.inode == OURS]
    if before and kept.length_bytes:
        assert ours
        assert all(each.size_bytes >= min(was.size_bytes for was in before) or each == done.current for each in ours)
    if plan.kept.generation == kept.generation and kept.length_bytes:
        assert plan.kept.length_bytes == kept.length_bytes


@given(kept=records, disk=disks)
def test_a_plan_that_was_cut_short_comes_to_the_same(kept: Kept | None, disk: Disk) -> None:
    plan = plan_writing(PATH, kept, disk, 1.0)
    if isinstance(plan, Refusal) or kept is None or Step.CREATE in plan.steps:
        return
    whole = carried_out(plan.steps, disk, kept)
    for some in range(len(plan.steps) + 1):
        between = carried_out(plan.steps[:some], disk, kept)
        again = plan_writing(PATH, kept, between, 1.0)
        assert isinstance(again, Plan), (some, again)
        assert again.kept == plan.kept
        assert carried_out(again.steps, between, kept) == whole


def test_every_moment_of_an_exchange() -> None:
    """Also where a file system without links takes the name away before it gives another."""
    kept = Kept(PATH, 3, OURS, 5, next_inode=NEXT)
    ours, empty = Found(OURS, 5), Found(NEXT, 0)
    moments = {
        Disk(ours, None, empty, 2): (Step.NAME_FULL, Step.SWAP),
        Disk(ours, ours, empty, 3): (Step.SWAP,),
        Disk(None, ours, empty, 3): (Step.SWAP,),
        Disk(empty, ours, None, 3): (),
        Disk(empty, None, None, 2): (),
    }
    for disk, steps in moments.items():
        assert plan_writing(PATH, kept, disk, 1.0) == Plan(steps, Kept(PATH, 4, NEXT)), disk
    given_up = msgspec.structs.replace(kept, next_inode=None)
    assert plan_writing(PATH, kept, Disk(ours, None, None, 2), 1.0) == Plan((), given_up)
    assert plan_writing(PATH, kept, Disk(ours, ours, None, 3), 1.0) == Plan((Step.UNNAME,), given_up)


def test_refusals_say_why() -> None:
    kept = Kept(PATH, 1, OURS, 5)
    for found, why in {
        None: "is not there any more, and 5 bytes of it are committed",
        Found(OTHER, 9): "is another file (inode 13) than the one that was written (inode 11)",
        Found(OURS, 4): "has 4 bytes, and 5 are committed",
        Found(OURS, 9, same_tail=False): "was changed: the bytes before the committed length (5) are others",
    }.items():
        assert plan_writing(PATH, kept, Disk(found), 1.0) == Refusal(why)
    taken = Disk(Found(OURS, 5), Found(OTHER, 1), Found(NEXT, 0))
    rotating = msgspec.structs.replace(kept, next_inode=NEXT)
    why = "is full, and another file has the name that it is to get"
    assert plan_writing(PATH, rotating, taken, 1.0) == Refusal(why)


def test_what_is_there_at_the_beginning_is_kept() -> None:
    assert plan_writing(PATH, None, Disk(None, highest=7), 9.0) == Plan((Step.CREATE,), Kept(PATH, 8, 0))
    assert plan_writing(PATH, None, Disk(Found(OTHER, 5)), 9.0) == Plan((), Kept(PATH, 1, OTHER, 5, 0, 9.0))
    assert plan_writing(PATH, None, Disk(Found(OTHER, 0)), 9.0) == Plan((), Kept(PATH, 1, OTHER))


# -- files that are followed


def test_names() -> None:
    assert full_name("a.log", 7) == "a.log.000007"
    assert full_name("a.log", 1_234_567) == "a.log.1234567"
    assert full_number("a.log", "a.log.000007") == 7
    for other in ("a.log", "a.log.7", "a.log.", "b.log.000007", "a.log.00000x"):
        assert full_number("a.log", other) is None
    for name in ("a.log.1", "a.log-20260101", "a.log.2026-01-01", "a.log.000001", "a.log-2026-01-01T10:00:00Z"):
        assert looks_rotated("a.log", name)
    for name in ("a.log", "a.log.gz", "a.log.1.gz", "a.log.bak", "a.log.next", "b.log.1"):
        assert not looks_rotated("a.log", name)


@given(order=st.permutations(range(6)), at=st.integers(0, 5), shifted=st.booleans(), same_time=st.booleans())
def test_generations_are_read_in_order(order: list[int], at: int, *, shifted: bool, same_time: bool) -> None:
    """Files 0 to 4 are full, 5 is the current one; whatever order they are found in, each is followed by the next."""
    files = [
        Sibling(f"a.{5 - n}" if shifted else full_name("a", n + 1), 100 + n, 1, 7 if same_time else 7 + n)
        for n in range(5)
    ]
    current = Sibling("a", 105, 1, 12)
    siblings = [files[n] for n in order if n < 5]
    read = [*files, current][at]
    chain = list(itertools.takewhile(lambda each: each is not None, _chain(read, siblings, current)))
    assert [each.inode - 100 for each in chain] == list(range(at + 1, 6))


def _chain(read: Sibling, siblings: list[Sibling], current: Sibling) -> list[Sibling]:
    found = []
    while (following := after(read, siblings, current)) is not None:
        found.append(following)
        read = following
    return found


def test_an_empty_current_file_is_not_turned_to() -> None:
    read = Sibling("a.1", 1, 5, 7)
    assert after(read, [read], Sibling("a", 2, 0, 9)) is None
    assert after(read, [read], None) is None
    assert after(read, [read], Sibling("a", 1, 5, 7)) is None
