import subprocess
import sys

from runner.observe.usage import MOST_PROCESSES, UsageMeter, children, tree

FAMILY = """
import os, sys
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0:
        block = bytearray(64 << 20)
        print("ready", flush=True)
        while os.getppid():
            pass
    os.wait()
os.wait()
"""


def test_a_whole_tree_is_counted() -> None:
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        found = tree([parent.pid])
        assert len(found) == 3
        assert found[0] == parent.pid
        now_s = 0.0
        meter = UsageMeter(lambda: now_s)
        first = meter.sample([parent.pid])
        assert first.cpu_percent is None
        assert first.rss_bytes > 64 << 20
        before = second = first
        while not second.cpu_percent:  # the grandchild spins, so its time grows
            now_s += 1.0
            before, second = second, meter.sample([parent.pid])
        assert before.cpu_percent in {None, 0.0}
        for pid in reversed(found):
            subprocess.run(["kill", "-9", str(pid)], check=False)


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
