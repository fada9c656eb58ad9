"""Descendants: found, told apart, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from runner.launch.tree import carries_mark, children_of, descendants_of, end_orphans


def spawn(script: str, **env: str) -> subprocess.Popen[bytes]:
    """A shell that has written one line, so that it is known to be where `script` wanted it."""
    child = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, env={**os.environ, **env})
    assert child.stdout is not None
    assert child.stdout.readline()
    return child


def end(child: subprocess.Popen[bytes]) -> None:
    for pid in descendants_of(child.pid):
        os.kill(pid, signal.SIGKILL)
    child.kill()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def test_children_and_all_below_them_are_found() -> None:
    child = spawn("sh -c 'echo up; exec sleep 1000' & wait")
    try:
        assert child.pid in children_of(os.getpid())
        (grandchild,) = children_of(child.pid)
        assert {child.pid, grandchild} <= descendants_of(os.getpid())
    finally:
        end(child)


def test_who_is_gone_has_no_children() -> None:
    child = spawn("echo up")
    end(child)
    assert children_of(child.pid) == set()
    assert descendants_of(child.pid) == set()


def test_a_mark_is_a_whole_variable() -> None:
    child = spawn("echo up; sleep 1000; :", CONNECTOR_RUN="12")
    try:
        assert carries_mark(child.pid, b"CONNECTOR_RUN=12")
        assert not carries_mark(child.pid, b"CONNECTOR_RUN=1")
        assert not carries_mark(child.pid, b"ONNECTOR_RUN=12")
    finally:
        end(child)
    assert not carries_mark(child.pid, b"CONNECTOR_RUN=12")


@pytest.mark.timeout(60)
def test_orphans_are_ended_with_all_below_them_and_nobody_else() -> None:
    """In a process of its own, which becomes subreaper."""
    script = """
import os, signal, subprocess, sys
from runner.launch.tree import become_subreaper, carries_mark, children_of, descendants_of, end_orphans

become_subreaper()
ours = subprocess.Popen(["sleep", "1000"])
hide = "setsid sh -c 'trap : TERM INT HUP; sleep 1001 & echo up; wait' & exit"
lost = subprocess.Popen(["sh", "-c", hide], stdout=subprocess.PIPE, env={**os.environ, "MARK": "1"})
lost.stdout.readline()
lost.wait()
before = children_of(os.getpid())
ended = end_orphans(lambda pid: carries_mark(pid, b"MARK=1"))
print(len(before), ended >= 2, sorted(descendants_of(os.getpid())) == [ours.pid], ours.poll())
ours.kill()
ours.wait()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert (done.stdout, done.stderr) == ("2 True True None\n", "")


def test_nothing_to_end_ends_nothing() -> None:
    assert end_orphans(lambda pid: False) == 0
