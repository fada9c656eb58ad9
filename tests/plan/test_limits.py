"""Resources as rlimits."""

from __future__ import annotations

import resource

from runner.plan.limits import asked, rlimits
from runner.spec.model import Resources

ALL = Resources(memory_bytes=1 << 28, cpus=0.5, pids=64, files=256, disk_bytes=1 << 26)


def test_what_is_not_limited_has_no_rlimit() -> None:
    assert rlimits(Resources()) == {}
    assert asked(Resources()) == frozenset()


def test_each_limit_is_its_own_rlimit() -> None:
    assert rlimits(ALL) == {
        resource.RLIMIT_DATA: 1 << 28,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_FSIZE: 1 << 26,
    }
    assert asked(ALL) == {"memory", "cpus", "pids", "files", "disk"}


def test_zero_is_a_limit() -> None:
    assert asked(Resources(disk_bytes=0)) == {"disk"}
    assert rlimits(Resources(disk_bytes=0)) == {resource.RLIMIT_FSIZE: 0}


def test_memory_is_never_the_address_space() -> None:
    """Node and Java reserve far more of it than they use."""
    assert resource.RLIMIT_AS not in rlimits(ALL)


def test_what_rlimits_cannot_hold_is_left_out() -> None:
    assert rlimits(Resources(cpus=0.5)) == {}


def test_what_is_held_by_something_better_has_no_rlimit() -> None:
    assert rlimits(ALL, held={"memory", "pids", "cpus", "disk"}) == {resource.RLIMIT_NOFILE: 256}
