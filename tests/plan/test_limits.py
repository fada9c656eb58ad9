"""Resources as rlimits."""

from __future__ import annotations

import resource

from runner.plan.limits import rlimits
from runner.spec.model import Resources


def test_what_is_not_limited_has_no_rlimit() -> None:
    assert rlimits(Resources()) == {}


def test_each_limit_is_its_own_rlimit() -> None:
    assert rlimits(Resources(memory_bytes=1 << 28, pids=64, files=256)) == {
        resource.RLIMIT_DATA: 1 << 28,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_NOFILE: 256,
    }


def test_memory_is_never_the_address_space() -> None:
    """Node and Java reserve far more of it than they use."""
    assert resource.RLIMIT_AS not in rlimits(Resources(memory_bytes=1 << 28))


def test_what_rlimits_cannot_hold_is_left_out() -> None:
    assert rlimits(Resources(cpus=0.5, disk_bytes=1 << 20)) == {}
