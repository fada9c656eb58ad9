"""What does not end, and what is to outlive its run."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.children.build import source
from tests.e2e.connector import until, wait_gone
from tests.hostile.harness import HOMES, MIB, arena, homes, need, walled
from tests.hostile.programs.assaults import SURVIVORS
from tests.hostile.seen import Seen, check_undisturbed, seen

HOST_PIDS = Path("/proc/self/ns/pid")
GONE_WITHIN_S = 2.0

# -- what does not end


@pytest.fixture(scope="module")
def stubborn(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """Three that never read and never end, then the run is stopped."""
    need(request)
    with arena(request.param) as place:
        hostile = {}
        feeders = {}
        for how in ("ignores", "stops", "closes"):
            command = place.python("assaults", "stubborn", how)
            hostile[how] = place.placed(command, reads=f"feed-{how}", stop={"grace": "300ms"})
            feeders[f"feeder-{how}"] = {"command": source(None, "--until", place.stop), "writes": f"feed-{how}"}
        with place.start(hostile, more=feeders) as running:
            place.until_up(running)
            for how in hostile:
                place.until_told(running, how, "stubborn")
            stopped = until(lambda: state_of(place.pids("stubborn stops")) == "T", "it to stop itself")
            place.until_neighbour_went_on(running)
            place.stop.touch()
            place.until(running, place.total.exists, "the neighbour's source to end")
            began = time.monotonic()
            running.signal(signal.SIGINT)
            result = running.finish(20)
            yield seen(place, result, running.pid, took_s=time.monotonic() - began, stopped=stopped)


def state_of(pids: list[int]) -> str:
    """The state of the first of these processes."""
    return Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[0] if pids else ""


@walled("stubborn")
@pytest.mark.parametrize("how", ["ignores", "stops", "closes"])
def test_who_does_not_end_is_ended(stubborn: Seen, how: str) -> None:
    assert stubborn.ended(how)["signal"] == signal.SIGKILL
    assert stubborn.more["took_s"] < 15


@walled("stubborn")
@pytest.mark.parametrize("how", ["ignores", "stops"])
def test_what_is_never_read_is_bounded_and_counted(stubborn: Seen, how: str) -> None:
    account = stubborn.result.account(f"feed-{how}", how)
    assert account["written"] == account["unread"], account
    assert account["written"] * 101 < 16 * MIB


@walled("stubborn")
def test_the_stubborn_disturb_nobody(stubborn: Seen) -> None:
    check_undisturbed(stubborn, 128 + signal.SIGINT, "stopped")


# -- what is to outlive it


@pytest.fixture(scope="module")
def outliving(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """One that leaves children of every kind and ends, and two that kill whom they can."""
    need(request)
    with arena(request.param) as place:
        hostile = {
            name: place.placed(place.python("assaults", name, *arguments))
            for name, arguments in (("outlives", ["ends"]), ("kills-everybody", []), ("kills-its-shim", []))
        }
        again = {"backoff": "0s", "limit": "2 in 60s"}
        hostile["residue"] = place.placed(place.python("assaults", "residue", "/tmp"), restart=again)
        with place.start(hostile) as running:
            place.until_up(running)
            place.go(pid_namespace=HOST_PIDS.stat().st_ino)
            place.until(running, lambda: place.lines("outlives"), "the survivors")
            place.until(running, lambda: not place.pids("outlives"), "the survivors to be gone", 5)
            place.until(running, lambda: "sent" in place.lines("kills-everybody"), "all the signals")
            place.until(running, lambda: "alive" in place.lines("kills-its-shim"), "what it kills")
            place.until(running, lambda: place.lines("residue"), "its second run")
            place.until_neighbour_went_on(running)
            place.stop.touch()
            yield seen(place, running.finish(20), running.pid)


@walled("outliving")
def test_nothing_outlives_it(outliving: Seen) -> None:
    assert outliving.place.lines("outlives") == [f"{SURVIVORS} up"]
    assert outliving.ended("outlives")["code"] == 0


@walled("outliving")
def test_it_reaches_its_own_only(outliving: Seen) -> None:
    assert outliving.place.lines("kills-everybody") == ["its own child: -9", "sent"]
    assert outliving.ended("kills-everybody")["code"] == 0


@walled("outliving")
def test_its_shim_does_not_die_of_it(outliving: Seen) -> None:
    assert outliving.place.lines("kills-its-shim") == ["alive"]
    assert outliving.ended("kills-its-shim")["code"] == 0


@walled("outliving")
def test_the_next_run_finds_nothing_of_the_one_before(outliving: Seen) -> None:
    assert outliving.result.processor("residue")["restarts"] == 1
    assert outliving.place.lines("residue") == ["file False, processes 0"]


@walled("outliving")
def test_who_is_outlived_disturbs_nobody(outliving: Seen) -> None:
    check_undisturbed(outliving)


@pytest.mark.parametrize("home", homes(*HOMES))
def test_nothing_outlives_a_runner_that_is_killed(request: pytest.FixtureRequest, home: str) -> None:
    """Every process within two seconds; what is no process is taken away by the next run."""
    need(request, home)
    with arena(home) as place:
        with place.start({"outlives": place.placed(place.python("assaults", "outlives", "stays"))}) as running:
            place.until_up(running)
            place.go()
            place.until(running, lambda: place.lines("outlives"), "the survivors")
            hostile = place.pids()
            family = [process.pid for process in running.family()]
            assert len(hostile) > SURVIVORS
            killed = running.pid
            running.process.kill()
            left = wait_gone([*hostile, *family], GONE_WITHIN_S)
            assert not left, f"alive {GONE_WITHIN_S} s after the runner: {left}"
            assert not [each for each in place.left(killed) if each.startswith("process")]
        place.out.unlink()
        place.stop.touch()
        with place.start({"outlives": place.placed(place.python("assaults", "outlives", "ends"))}) as running:
            result = running.finish(20)
        result.completed()
        assert place.left(running.pid) + place.left(killed) == []
