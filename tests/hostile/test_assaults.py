"""Programs that a wall is for, beside a trusted neighbour, in each home; see programs/assaults.py.

Those of one kind share a run; each is a test that looks at what came of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.launch.cgroup import CgroupHome
from tests.children.build import sink, source
from tests.conftest import without
from tests.e2e.connector import Result, check_ledger, steady, until, wait_gone
from tests.hostile.harness import HOMES, MIB, Arena, Spec, arena, failure, homes, need, walled
from tests.hostile.outside import cpu_s
from tests.hostile.programs.assaults import ESCAPES, SURVIVORS

PIDS = 32
SPINNERS = 3
SPIN_CPUS = 0.1
SPIN_MOST = 0.3
"""What it may come to where time is given in slices of some milliseconds; without a wall it gets more."""
INODES = 200_000
HOST_PIDS = Path("/proc/self/ns/pid")
GONE_WITHIN_S = 2.0
STDERR_BYTES = 4 * MIB
"""What the log of a flood may come to: 4,000 lines at once and 1,000 a second, of 100 bytes each, in 10 s."""


@dataclass
class Seen:
    """What became of a run; its folder is there as long as the fixture."""

    place: Arena
    result: Result
    neighbour: str | None
    runner: str | None
    left: list[str]
    more: dict[str, Any]

    def ended(self, name: str) -> dict[str, Any]:
        """What the report says of the last run of a processor's program, its state among it."""
        report = self.result.processor(name)
        last = report["instances"][-1]
        return {"state": report["state"], "code": last["exit"]["code"], "signal": last["exit"]["signal"]} | {
            "cause": report["cause"]
        }


def seen(place: Arena, result: Result, runner: int, **more: Any) -> Seen:
    """Everything that can be looked at once the run is over."""
    print(result)
    return Seen(
        place=place,
        result=result,
        neighbour=failure(lambda: place.check_neighbour(result)),
        runner=failure(lambda: place.check_runner(result)),
        left=place.left(runner),
        more=more,
    )


def check_undisturbed(seen: Seen, code: int = 0, status: str = "completed") -> None:
    """The neighbour, the runner and the host are as they should be, the ledger balances, nothing is left."""
    seen.result.expect(code, status)
    check_ledger(seen.result)
    assert seen.neighbour is None
    assert seen.runner is None
    assert seen.left == []
    seen.place.check_host()


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


# -- words that do something to who reads them


@pytest.fixture(scope="module")
def words(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """Escapes in the log, in the last lines of one that fails, and in an answer too many."""
    home, form = request.param
    need(request, home)
    with arena(home) as place:
        escapes = place.python("assaults", "escapes")
        hostile = {
            "escapes": place.placed(escapes),
            "answers": place.placed(escapes, contract="one-to-one"),
            "last": place.placed(place.python("assaults", "last-words")),
        }
        with place.start(hostile, "--log-format", form) as running:
            place.until(running, lambda: len(place.pids("assaults.py")) == 3, "all of them")
            place.go()
            place.until(running, lambda: not place.pids("last-words"), "the last words")
            place.until(running, lambda: len(place.lines("escapes")) >= len(ESCAPES), "all the escapes")
            place.until_neighbour_went_on(running)
            place.stop.touch()
            result = running.finish(20)
            printed = (place.work / "run.stderr").read_bytes() + (place.work / "run.stdout").read_bytes()
            report = (place.work / "report.json").read_bytes()
            yield seen(place, result, running.pid, form=form, printed=printed, report=report)


in_words = pytest.mark.parametrize(
    "words",
    [
        pytest.param(("sandbox", "text"), id="sandbox-text"),
        pytest.param(("container", "json"), id="container-json", marks=pytest.mark.engine),
    ],
    indirect=True,
    scope="module",
)
HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def harmful(raw: bytes) -> list[str]:
    """The lines with anything in them that a terminal may obey, or that hides what a person sees."""
    return [
        ascii(line)
        for line in raw.decode("utf-8").split("\n")
        if any(unicodedata.category(each) in HARMFUL and each not in "\u200c\u200d" for each in line)
    ]


@in_words
def test_what_is_printed_is_harmless(words: Seen) -> None:
    assert harmful(words.more["printed"]) == []
    assert b"pwned" in words.more["printed"]


@in_words
def test_the_report_is_harmless(words: Seen) -> None:
    assert harmful(words.more["report"]) == []


@in_words
def test_a_log_line_cannot_speak_for_another(words: Seen) -> None:
    """A line that looks like one of ours is behind the name of who wrote it."""
    printed = words.more["printed"].decode()
    lines = [line for line in printed.split("\n") if "run_ended" in line]
    if words.more["form"] == "text":
        assert lines
        assert all(re.search(r" (escapes|answers|last)\[1\] +\| ", line) for line in lines), lines
        return
    events = [json.loads(line) for line in lines]
    assert [each["event"] for each in events].count("run_ended") == 1, events
    assert {each["processor"] for each in events if each["event"] == "log_line"} >= {"escapes", "last"}


@in_words
def test_messages_are_passed_on_as_they_are(words: Seen) -> None:
    assert words.place.told("escapes").read_bytes() == b"".join(each + b"\n" for each in ESCAPES)


@in_words
def test_the_answer_too_many_is_named(words: Seen) -> None:
    assert words.ended("answers")["state"] == "failed"
    assert "answer" in words.ended("answers")["cause"]


@in_words
def test_its_words_disturb_nobody(words: Seen) -> None:
    check_undisturbed(words)
    assert not Path("/tmp/pwned").exists()


def test_the_escapes_would_be_seen() -> None:
    found = harmful(b"".join(each.decode("utf-8", "replace").encode() + b"\n" for each in ESCAPES))
    assert len(found) >= 6
