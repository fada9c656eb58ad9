"""Poison messages under `batch`: a batch that fails again and again is split, and who is to blame is set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.spec.model import Poison, Processor, RestartPolicy
from runner.units import Rate
from tests.supervise.running import AT_ONCE, MANY, Ran, execute, pipeline, processor, sh, through
from tests.supervise.test_batch import batch, notes, numbers, program, written

CAREFUL = RestartPolicy(backoff=AT_ONCE, limit=Rate(5, 60.0))
"""The default limit: what the search costs must not count for it."""


def stumbles(*bad: int, **more: Any) -> Processor:
    """Reads all of its batch, writes it, and ends with 3 where a bad message is among them."""
    test = " || ".join(f"$1 == {number}" for number in bad)
    more.setdefault("restart", CAREFUL)
    return batch(("awk", f"{test} {{ bad = 1 }} {{ print }} END {{ exit bad * 3 }}"), **more)


def all_but(count: int, *bad: int) -> list[int]:
    return [number for number in range(1, count + 1) if number not in bad]


def dead(ran: Ran) -> list[int]:
    """The numbers of the dead letters."""
    assert ran.report.dead_letters is not None
    return [letter.number for letter in ran.report.dead_letters.letters]


@pytest.mark.parametrize("replicas", [1, 3])
def test_the_bad_message_is_found_and_set_aside(tmp_path: Path, replicas: int) -> None:
    ran = through(tmp_path, stumbles(337, replicas=replicas), 1000)
    assert ran.report.status == "completed"
    assert sorted(numbers(tmp_path)) == all_but(1000, 337)
    assert dead(ran) == [337]
    account = ran.account("a", "m")
    assert (account.acknowledged, account.dead, account.unread) == (999, 1, 0)
    assert ran.report.processors["m"].restarts < 30


def test_several_bad_ones_in_one_batch_and_in_others(tmp_path: Path) -> None:
    bad = (1, 33, 34, 250, 400)
    ran = through(tmp_path, stumbles(*bad, restart=RestartPolicy(backoff=AT_ONCE, limit=Rate(20, 60.0))), 400)
    assert sorted(numbers(tmp_path)) == all_but(400, *bad)
    assert sorted(dead(ran)) == list(bad)


def test_a_batch_as_a_file_is_searched_as_well(tmp_path: Path) -> None:
    command = ("awk", "$1 == 42 { bad = 1 } { print } END { exit bad * 3 }", "{batch}")
    ran = through(tmp_path, batch(command, restart=CAREFUL), 100)
    assert dead(ran) == [42]
    assert sorted(numbers(tmp_path)) == all_but(100, 42)


def test_each_try_is_a_batch_with_its_numbers_and_attempt(tmp_path: Path) -> None:
    """Three times the whole, then halves, down to the one; and another one alone, which clears the program."""
    through(tmp_path, program("--notes", tmp_path / "notes", "--poison", 3, messages=8, restart=CAREFUL), 8)
    assert notes(tmp_path) == [
        "1-8 1", "1-8 2", "1-8 3", "1-4 4", "1-2 5", "3-3 5", "3-3 6", "8-8 4", "4-7 5"
    ]  # fmt: skip
    assert sorted(numbers(tmp_path)) == all_but(8, 3)


def test_trouble_elsewhere_sets_nothing_aside(tmp_path: Path) -> None:
    """It reads its batch and then finds that its database is down."""
    ran = through(
        tmp_path, batch(sh("cat > /dev/null; exit 1"), restart=RestartPolicy(backoff=AT_ONCE, limit=MANY)), 50
    )
    assert ran.report.status == "failed"
    assert "two messages in a row" in ran.cause("m")
    account = ran.account("a", "m")
    assert (account.dead, account.acknowledged, account.unread) == (0, 0, 50)


@pytest.mark.parametrize("death", ["kill -9 $$", "exit 137", "kill -TERM $$"])
def test_a_signal_that_somebody_may_have_sent_blames_nobody(tmp_path: Path, death: str) -> None:
    """However often: the batch stays whole."""
    often = RestartPolicy(backoff=AT_ONCE, limit=MANY)
    script = f"echo $CONNECTOR_BATCH >> {tmp_path}/runs; cat; [ $CONNECTOR_ATTEMPT = 9 ] || {death}"
    ran = through(tmp_path, batch(sh(script), restart=often), 100)
    assert written(tmp_path, "runs") == ["1-100"] * 9
    assert numbers(tmp_path) == list(range(1, 101))
    assert ran.account("a", "m").dead == 0


def test_who_dies_before_it_reads_blames_nobody(tmp_path: Path) -> None:
    """What is left in the pipe shows that nothing was read, so it is the limit that ends this."""
    ran = through(tmp_path, batch(sh("exit 1"), restart=RestartPolicy(backoff=AT_ONCE, limit=Rate(9, 60.0))), 100)
    assert ran.report.status == "failed"
    assert "10 deaths within 1m" in ran.cause("m")
    assert ran.account("a", "m").unread


def test_the_only_message_there_is_fails_the_processor(tmp_path: Path) -> None:
    ran = through(tmp_path, stumbles(1), 1)
    assert ran.report.status == "failed"
    assert "the only message there is" in ran.cause("m")
    assert ran.account("a", "m").unread == 1


def test_more_dead_letters_than_the_limit_fail_the_processor(tmp_path: Path) -> None:
    ran = through(tmp_path, stumbles(20, 50, 80, messages=10, poison=Poison(2, Rate(2, 60.0))), 100)
    assert ran.report.status == "failed"
    assert "more dead letters than the limit" in ran.cause("m")
    assert dead(ran) == [20, 50]


def test_the_accused_waits_for_another_message(tmp_path: Path) -> None:
    """The source writes one more only when the search has come to the bad one, alone."""
    alone = f"echo $CONNECTOR_BATCH >> {tmp_path}/runs; grep -v '^2$' && [ $CONNECTOR_BATCH != 1-2 ]"
    source = (
        f"echo 1; echo 2; while [ $(grep -c '^2-2$' {tmp_path}/runs 2> /dev/null || echo 0) -lt 2 ];"
        " do sleep 0.01; done; echo 3"
    )
    ran = execute(
        pipeline(
            processor("s", sh(source), writes="a"),
            batch(sh(alone), messages=2, restart=CAREFUL),
            processor("t", sh(f"cat > {tmp_path}/out"), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert dead(ran) == [2]
    assert sorted(written(tmp_path)) == ["1", "3"]


def test_the_accused_waits_for_what_another_replica_runs(tmp_path: Path) -> None:
    """Message 2 is with the other replica, which ends only when 1 has died three times, and twice in the search."""
    script = (
        f"echo $CONNECTOR_BATCH >> {tmp_path}/runs; read n; [ $n = 1 ] && exit 3;"
        f" while [ $(grep -c '^1-1$' {tmp_path}/runs) -lt 5 ]; do sleep 0.01; done; echo $n"
    )
    ran = execute(
        pipeline(
            processor("s", ("seq", "2"), writes="a"),
            batch(sh(script), messages=1, replicas=2, restart=CAREFUL),
            processor("t", sh(f"cat > {tmp_path}/out"), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert dead(ran) == [1]
    assert written(tmp_path) == ["2"]
