"""Programs that a wall is for, beside a trusted neighbour, in each home; see programs/assaults.py.

Those of one kind share a run; each is a test that looks at what came of it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from runner.launch.cgroup import CgroupHome
from tests.children.build import sink
from tests.conftest import without
from tests.e2e.connector import steady
from tests.hostile.harness import MIB, Spec, arena, need, walled
from tests.hostile.outside import cpu_s
from tests.hostile.seen import Seen, check_undisturbed, seen

PIDS = 32
SPINNERS = 3
SPIN_CPUS = 0.1
SPIN_MOST = 0.3
"""What it may come to where time is given in slices of some milliseconds; without a wall it gets more."""
INODES = 200_000
STDERR_BYTES = 4 * MIB
"""What the log of a flood may come to: 4,000 lines at once and 1,000 a second, of 100 bytes each, in 10 s."""


def need_groups(request: pytest.FixtureRequest) -> None:
    """Skip a sandbox whose resources no control group could hold (tier C)."""
    if request.param == "sandbox" and not {"memory", "cpus", "pids"} <= CgroupHome.find().enforced:
        without("no control groups can be made here")


# -- more than its share: memory


@pytest.fixture(scope="module")
def balloons(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """Three that take 160 MiB where 64 MiB are allowed, and one that makes more files than fit into these."""
    need(request)
    need_groups(request)
    with arena(request.param) as place:
        limits = {"memory": "64MiB", "cpus": 1}
        hostile = {
            kind: place.placed(place.python("assaults", "balloon", kind, 160 * MIB), resources=limits)
            for kind in ("anonymous", "memfd", "children")
        }
        files = place.python("assaults", "fill-inodes", "/tmp", INODES)
        hostile["inodes"] = place.placed(files, resources=limits | {"disk": "16MiB"})
        with place.start(hostile) as running:
            place.until_up(running)
            place.go()
            place.until(running, lambda: not place.pids("fill-inodes") or place.lines("inodes"), "files to be made")
            place.until(running, lambda: not place.pids("anonymous") and not place.pids("memfd"), "both to be killed")
            place.until(
                running, lambda: not place.pids(" children") or place.lines("children"), "children to be killed"
            )
            place.until_neighbour_went_on(running)
            place.stop.touch()
            yield seen(place, running.finish(20), running.pid)


@walled("balloons")
@pytest.mark.parametrize("kind", ["anonymous", "memfd"])
def test_a_memory_balloon_is_killed_and_named(balloons: Seen, kind: str) -> None:
    ended = balloons.ended(kind)
    assert (ended["state"], ended["signal"]) == ("failed", int(signal.SIGKILL)), ended
    assert "out of memory" in ended["cause"], ended
    assert "64 MiB" in ended["cause"], ended
    assert balloons.place.lines(kind) == []


@walled("balloons")
def test_memory_is_counted_over_all_children(balloons: Seen) -> None:
    ended = balloons.ended("children")
    if ended["state"] == "failed":
        assert "out of memory" in ended["cause"], ended
    else:
        (said,) = balloons.place.lines("children")
        assert int(said.split()[0]) >= 1, said


@walled("balloons")
def test_files_without_bytes_are_bounded_as_well(balloons: Seen) -> None:
    """By the file system itself in a container, as the memory that they take in a sandbox."""
    ended = balloons.ended("inodes")
    if balloons.place.home == "sandbox" and ended["state"] == "failed":
        assert "out of memory" in ended["cause"], ended
    else:
        (said,) = balloons.place.lines("inodes")
        assert "No space left" in said, said
        assert int(said.split()[0]) < INODES, said


@walled("balloons")
def test_balloons_disturb_nobody(balloons: Seen) -> None:
    check_undisturbed(balloons)


# -- more than its share: processes, processor time


@pytest.fixture(scope="module")
def hogs(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """A fork bomb, and one that spins on both processors."""
    need(request)
    need_groups(request)
    with arena(request.param) as place:
        hostile = {
            "bomb": place.placed(place.python("assaults", "fork-bomb", 150), resources={"pids": PIDS}),
            "spin": place.placed(place.python("assaults", "spin", SPINNERS, 30), resources={"cpus": SPIN_CPUS}),
        }
        with place.start(hostile) as running:
            place.until_up(running)
            place.go()
            place.until(running, lambda: place.lines("bomb"), "the bomb to end")
            most = steady(lambda: len(place.pids("fork-bomb")), "the bomb's processes")
            place.until(running, lambda: len(place.pids(" spin ")) == SPINNERS, "the spinning")
            spinning, began = place.pids(" spin "), time.monotonic()
            before = cpu_s(spinning)
            place.until_neighbour_went_on(running, messages=3000)
            place.until(running, lambda: time.monotonic() - began > 2, "two seconds")
            share = (cpu_s(spinning) - before) / (time.monotonic() - began)
            place.stop.touch()
            yield seen(place, running.finish(20), running.pid, most=most, share=share)


@walled("hogs")
def test_a_fork_bomb_is_held(hogs: Seen) -> None:
    assert hogs.place.lines("bomb") == ["refused"]
    assert PIDS // 2 < hogs.more["most"] <= PIDS


@walled("hogs")
def test_a_spin_gets_its_share_and_no_more(hogs: Seen) -> None:
    assert 0 < hogs.more["share"] < SPIN_MOST


@walled("hogs")
def test_hogs_disturb_nobody(hogs: Seen) -> None:
    check_undisturbed(hogs)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the control groups out of its sight")
def test_without_control_groups_each_process_is_held(bubblewrap: str) -> None:
    """By rlimits: fewer things hold (not what several processes have together), and those do."""
    del bubblewrap
    hidden = 'for each in /sys/fs/cgroup/* /sys/fs/cgroup; do umount -l "$each"; done 2> /dev/null; exec "$@"'
    with arena("sandbox") as place:
        balloon = place.python("assaults", "balloon", "anonymous", 160 * MIB)
        hostile = {
            "bomb": place.placed(place.python("assaults", "fork-bomb", 150), resources={"pids": PIDS}),
            "balloon": place.placed(balloon, resources={"memory": "64MiB"}),
        }
        with place.start(hostile, wrapper=("unshare", "--mount", "sh", "-c", hidden, "sh")) as running:
            place.until_up(running)
            place.go()
            place.until_told(running, "bomb", "refused")
            assert steady(lambda: len(place.pids("fork-bomb")), "the bomb's processes") <= PIDS
            place.until(running, lambda: not place.pids("balloon"), "the balloon to burst")
            place.until_neighbour_went_on(running)
            place.stop.touch()
            ended = seen(place, running.finish(20), running.pid)
        assert place.lines("balloon") == []
        assert ended.ended("balloon")["state"] == "failed"
        assert "resources.cpus is not held here" in ended.result.output
        check_undisturbed(ended)


# -- more than its share: bytes


@pytest.fixture(scope="module")
def streams(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """Everything that is wrong with what comes out of it."""
    need(request)
    with arena(request.param) as place:

        def assault(name: str, *arguments: object, **more: Any) -> dict[str, Any]:
            return place.placed(place.python("assaults", name, *arguments), **{"resources": {"cpus": 1}, **more})

        hostile: dict[str, Spec] = {
            "endless": assault("endless-line", 32 * MIB, max_message="1MiB"),
            "prefix": assault("huge-prefix", 32 * MIB, codec={"stdout": "length-prefixed"}),
            "flood": assault("flood-stdout", 48 * MIB, 4096),
            "empty": assault("flood-stdout", 4 * MIB, 1),
            "log": assault("flood-stderr", 16 * MIB),
            "nested": assault("nested", 200_000, guard="json"),
            "forger": assault("into-stdin", 1000),
            "pipes": assault("other-pipes"),
        }
        slow = {"told-flood": {"command": sink(place.told("flood"), "--until", place.stop), "reads": "told-flood"}}
        with place.start(hostile, "--quiet", more=slow) as running:
            place.until(running, lambda: all(place.pids(each) for each in PROGRAM_OF.values()), "all of them")
            place.go()
            flooding = psutil.Process(place.pids("flood-stdout 50331648")[0])
            place.until(running, lambda: flooding.io_counters().write_chars > 8 * MIB, "the flood")
            place.until(running, lambda: "flooded" in place.lines("log"), "the log")
            place.until(running, lambda: place.told("empty").stat().st_size == 4 * MIB, "empty lines")
            held = steady(lambda: flooding.io_counters().write_chars, "the flood to be held")
            place.until_neighbour_went_on(running)
            place.stop.touch()
            yield seen(place, running.finish(30), running.pid, held=held)


PROGRAM_OF = {
    "endless": "endless-line",
    "prefix": "huge-prefix",
    "flood": "flood-stdout 50331648",
    "empty": "flood-stdout 4194304",
    "log": "flood-stderr",
    "nested": "nested",
    "forger": "into-stdin",
    "pipes": "other-pipes",
}


@walled("streams")
def test_a_line_without_end(streams: Seen) -> None:
    ended = streams.ended("endless")
    assert ended["state"] == "failed", ended
    assert "1 MiB" in ended["cause"] or "max_message" in ended["cause"], ended
    assert streams.result.channel("told-endless")["written"] == 0


@walled("streams")
def test_a_length_of_four_gibibytes(streams: Seen) -> None:
    ended = streams.ended("prefix")
    assert ended["state"] == "failed", ended
    assert "max_message" in ended["cause"] or "16 MiB" in ended["cause"], ended
    assert streams.result.channel("told-prefix")["written"] == 0


@walled("streams")
def test_a_flood_waits_for_its_reader_and_then_arrives(streams: Seen) -> None:
    assert streams.more["held"] < 16 * MIB
    messages = 48 * MIB // 4096
    assert streams.result.account("told-flood", "told-flood") == {"written": messages, "acknowledged": messages}


@walled("streams")
def test_a_flood_of_empty_lines(streams: Seen) -> None:
    assert streams.result.account("told-empty", "told-empty") == {"written": 4 * MIB, "acknowledged": 4 * MIB}


@walled("streams")
def test_a_flood_of_log_lines_is_cut_and_counted(streams: Seen) -> None:
    report = streams.result.processor("log")
    assert (report["state"], report["log_lines_left_out"] > 100_000) == ("exited", True), report
    assert len(streams.result.stderr) < STDERR_BYTES


@walled("streams")
def test_what_a_parser_may_fall_over(streams: Seen) -> None:
    assert streams.ended("nested")["state"] == "exited"
    assert streams.place.lines("nested")[-1] == '{"whole": true}'


@walled("streams")
def test_writing_into_its_own_stdin_breaks_its_contract(streams: Seen) -> None:
    ended = streams.ended("forger")
    assert ended["state"] == "failed", ended
    assert streams.place.lines("forger") in (["forged"], [])


@walled("streams")
def test_pipes_that_are_played_with(streams: Seen) -> None:
    assert streams.ended("pipes")["state"] == "exited"
    assert set(streams.place.lines("pipes")) <= {"one", "two"}


@walled("streams")
def test_streams_disturb_nobody(streams: Seen) -> None:
    check_undisturbed(streams)
