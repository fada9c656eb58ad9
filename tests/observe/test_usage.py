import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runner.observe.usage import MOST_PROCESSES, UsageMeter, children, tree

FAMILY = """
import os, sys
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0:
        block = bytearray(64 << 20)
        print("ready", flush=True)
        while True:
            pass
    os.wait()
os.wait()
"""


@pytest.fixture
def family() -> Iterator[int]:
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        yield parent.pid
        os.killpg(parent.pid, signal.SIGKILL)


def test_a_whole_tree_is_counted(family: int) -> None:
    found = tree([family])
    assert len(found) == 3
    assert found[0] == family
    now_s = 0.0
    meter = UsageMeter(lambda: now_s)
    usage = meter.sample([family])
    assert usage.cpu_percent is None
    assert usage.rss_bytes > 64 << 20
    while not usage.cpu_percent:  # the grandchild spins, so its time grows
        now_s += 1.0
        usage = meter.sample([family])


def test_processes_that_vanish_are_left_out() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        meter = UsageMeter()
        assert meter.sample([child.pid]).rss_bytes > 0
        child.kill()
        child.wait()
        after = meter.sample([child.pid])
    assert (after.rss_bytes, after.cpu_percent) == (0, 0.0)
    assert children(child.pid) == []
    assert UsageMeter().sample([]).rss_bytes == 0


def test_a_flood_of_processes_is_bounded() -> None:
    assert len(tree(range(1_000_000, 1_000_000 + 2 * MOST_PROCESSES))) == MOST_PROCESSES
