"""Pipes that programs of other users may open again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from runner.launch.pipes import open_to
from runner.plan.containers import User

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives pipes away")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def state(descriptor: int) -> tuple[int, int]:
    """(Its owner, its mode)."""
    about = os.fstat(descriptor)
    return about.st_uid, stat.S_IMODE(about.st_mode)


@needs_root
def test_a_pipe_goes_to_the_user_of_its_program(pipe: tuple[int, int]) -> None:
    open_to(pipe, User(70_001, 70_002))
    assert state(pipe[0]) == (70_001, 0o600)


@needs_root
def test_a_pipe_between_two_users_stays_open_to_the_first(pipe: tuple[int, int]) -> None:
    open_to(pipe, User(70_001, 70_002))
    open_to(pipe, User(70_003, 70_004))
    assert state(pipe[0]) == (70_001, 0o666)


def test_a_pipe_for_nobody_known_is_open_to_all(pipe: tuple[int, int]) -> None:
    open_to(pipe, None)
    assert state(pipe[0]) == (os.geteuid(), 0o666)


def test_what_is_no_pipe_is_left_alone() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    before = state(null)
    try:
        open_to([null], None)
        assert state(null) == before
    finally:
        os.close(null)
