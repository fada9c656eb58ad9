"""Contract `batch`, from inside: how batches are cut and run, what counts of a run, and what a failure does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.bridge import batch_outputs
from runner.events import StateChanged
from runner.spec.model import Backoff, BatchPolicy, Contract, Processor, RestartPolicy, StopPolicy
from runner.units import Rate
from tests.children.build import script, sink, source
from tests.supervise.running import (
    AT_ONCE,
    MANY,
    NEVER,
    Happened,
    execute,
    pipeline,
    processor,
    python,
    sh,
    through,
)

SOON_S = 0.05
FEW = RestartPolicy(backoff=AT_ONCE, limit=Rate(2, 60.0))


def batch(command: tuple[str, ...], messages: int = 100, size_bytes: int = 8 << 20, **more: Any) -> Processor:
    """A processor `m` that is run once per batch."""
    more.setdefault("reads", "a")
    more.setdefault("writes", "b")
    policy = BatchPolicy(messages, size_bytes, more.pop("wait_s", 30.0))
    return processor("m", command, contract=Contract.BATCH, batch=policy, **more)


def program(*arguments: object, **more: Any) -> Processor:
    return batch(tuple(script("batches", *arguments)), **more)


def written(tmp_path: Path, name: str = "out") -> list[str]:
    file = tmp_path / name
    return file.read_text().splitlines() if file.exists() else []


def numbers(tmp_path: Path, name: str = "out") -> list[int]:
    return [int(line[:10]) for line in written(tmp_path, name)]


def notes(tmp_path: Path) -> list[str]:
    """Batch and attempt of each run, in the order of their starts."""
    return [line.split(" ", 1)[1] for line in written(tmp_path, "notes")]


# -- how they are cut


def test_each_batch_is_a_run_of_the_program(tmp_path: Path) -> None:
    ran = through(tmp_path, batch(sh(f"echo $CONNECTOR_BATCH $CONNECTOR_ATTEMPT >> {tmp_path}/runs; sort -rn")), 250)
    assert ran.report.status == "completed"
    assert written(tmp_path, "runs") == ["1-100 1", "101-200 1", "201-250 1"]
    assert numbers(tmp_path) == [*range(100, 0, -1), *range(200, 100, -1), *range(250, 200, -1)]
    assert ran.account("a", "m").acknowledged == 250
    assert ran.cause("m") == "all input read, 3 batches done"


def test_a_batch_is_bounded_in_bytes_and_a_longer_message_comes_alone(tmp_path: Path) -> None:
    lines = ["x" * 9, "y" * 9, "z" * 9, "l" * 60, "e"]
    ran = execute(
        pipeline(
            processor("s", ("printf", "%s\\n", *lines), writes="a"),
            batch(sh(f"echo $CONNECTOR_BATCH >> {tmp_path}/runs; cat"), size_bytes=25),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert written(tmp_path, "runs") == ["1-2", "3-3", "4-4", "5-5"]
    assert written(tmp_path) == lines
    assert ran.account("a", "m").acknowledged == 5


def test_a_batch_that_is_not_full_is_run_when_it_has_waited(tmp_path: Path) -> None:
    """The source writes no more before what it wrote first has arrived."""
    slow = python(
        f"import os, time, pathlib; out = pathlib.Path({str(tmp_path / 'out')!r}); os.write(1, b'1\\n2\\n')\n"
        "while not out.exists() or out.read_bytes() != b'1\\n2\\n': time.sleep(0.005)\n"
        "os.write(1, b'3\\n')"
    )
    execute(
        pipeline(
            processor("s", slow, writes="a"),
            program("--notes", tmp_path / "notes", wait_s=SOON_S),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert notes(tmp_path) == ["1-2 1", "3-3 1"]
    assert written(tmp_path) == ["1", "2", "3"]


def test_no_message_starts_no_program(tmp_path: Path) -> None:
    ran = through(tmp_path, batch(sh(f"touch {tmp_path}/ran")), 0)
    assert ran.report.status == "completed"
    assert not (tmp_path / "ran").exists()
    assert ran.report.processors["m"].instances == []
    assert ran.cause("m") == "all input read, 0 batches done"


def test_a_batch_holds_messages_of_one_channel(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", tuple(source(250, size=20)), writes="a"),
            processor("u", tuple(source(150, size=20)), writes="c"),
            program("--notes", tmp_path / "notes", reads={"stdin": ("a", "c")}),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    found = sorted(line.replace(f"@{ran.report.run}", "") for line in written(tmp_path, "notes"))
    assert found == ["a 1-100 1", "a 101-200 1", "a 201-250 1", "c 1-100 1", "c 101-150 1"]
    assert sorted(numbers(tmp_path)) == sorted([*range(1, 251), *range(1, 151)])


def test_the_batch_may_be_a_file(tmp_path: Path) -> None:
    """It can be read as often as one likes, and nothing is on stdin."""
    middle = batch(("sh", "-c", "sort -rn '{batch}'; wc -l < {batch}; wc -c"))
    assert middle.batch_as_file
    through(tmp_path, middle, 150)
    assert [int(line.split()[0]) for line in written(tmp_path)] == [
        *range(100, 0, -1), 100, 0, *range(150, 100, -1), 50, 0
    ]  # fmt: skip


def test_clean_runs_are_no_restarts_and_say_nothing(tmp_path: Path) -> None:
    ran = through(tmp_path, batch(("cat",), messages=10, restart=FEW), 400)
    assert ran.happened.states("m") == ["starting", "running", "draining", "exited"]
    report = ran.report.processors["m"]
    assert (report.restarts, report.batches, len(report.instances)) == (0, 40, 20)
    assert ran.report.processors["s"].batches is None
    assert len([event for event in ran.happened.events if isinstance(event, StateChanged)]) < 15


def test_exit_0_acknowledges_the_batch_whatever_was_read_of_it(tmp_path: Path) -> None:
    ran = through(tmp_path, batch(("head", "-n1")), 250)
    assert numbers(tmp_path) == [1, 101, 201]
    account = ran.account("a", "m")
    assert (account.acknowledged, account.unread, account.indeterminate) == (250, 0, 0)


def test_stdout_without_a_channel_is_the_log(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", tuple(source(150, size=20)), writes="a"),
            batch(sh(f"cat >> {tmp_path}/out; echo stored $CONNECTOR_BATCH"), writes=None),
        )
    )
    assert [line for line in ran.happened.logged() if "stored" in line] == ["stored 1-100", "stored 101-150"]
    assert numbers(tmp_path) == list(range(1, 151))
    assert ran.account("a", "m").acknowledged == 150


# -- failures


def test_a_failed_batch_is_run_again_and_what_it_had_written_is_dropped(tmp_path: Path) -> None:
    ran = through(tmp_path, program("--notes", tmp_path / "notes", "--fail-first"), 250)
    assert notes(tmp_path) == ["1-100 1", "1-100 2", "101-200 1", "101-200 2", "201-250 1", "201-250 2"]
    assert numbers(tmp_path) == list(range(1, 251))
    assert ran.report.processors["m"].restarts == 3
    assert "exit 1, given messages 101 to 200 of channel `a`" in " ".join(ran.happened.causes("m"))
    assert ran.account("a", "m").acknowledged == 250


def test_all_outputs_of_a_batch_are_bound(tmp_path: Path) -> None:
    noisy = "cat >&2; echo half >&3; " + "[ $CONNECTOR_ATTEMPT = 2 ] && seq 3"
    ran = execute(
        pipeline(
            processor("s", tuple(source(150, size=20)), writes="a"),
            batch(sh(noisy), writes={"stdout": "b", "side": "c", "stderr": "d"}),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
            processor("u", tuple(sink(tmp_path / "side")), reads="c"),
            processor("v", tuple(sink(tmp_path / "noise")), reads="d"),
        )
    )
    assert written(tmp_path) == ["1", "2", "3"] * 2
    assert written(tmp_path, "side") == ["half"] * 2
    assert numbers(tmp_path, "noise") == list(range(1, 151))
    assert ran.report.channels["c"].written == 2


def test_later_counts_for_no_limit(tmp_path: Path) -> None:
    waits = sh(f"echo >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -gt 9 ] || exit 75; cat")
    ran = through(tmp_path, batch(waits, restart=FEW), 50)
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 51))


def test_too_many_failures_fail_the_processor_with_its_batch(tmp_path: Path) -> None:
    ran = through(tmp_path, batch(sh("exit 3"), restart=FEW), 250)
    assert ran.report.status == "failed"
    assert "exit 3" in ran.cause("m")
    assert "3 deaths within 1m" in ran.cause("m")
    assert "given messages 1 to 100 of channel `a`" in ran.cause("m")
    account = ran.account("a", "m")
    assert (account.acknowledged, account.indeterminate) == (0, 0)
    assert account.unread


def test_a_success_begins_the_backoff_anew(tmp_path: Path) -> None:
    """Twenty failures, each followed by a success: without that the last would wait for a quarter of an hour."""
    fails = sh("[ $CONNECTOR_ATTEMPT = 2 ] || exit 1; cat")
    through(tmp_path, batch(fails, messages=10, restart=RestartPolicy(backoff=Backoff(0.001, 1e6), limit=MANY)), 200)
    assert numbers(tmp_path) == list(range(1, 201))


@pytest.mark.parametrize("when", ["never", "always"])
def test_restart_is_about_failures(tmp_path: Path, when: Any) -> None:
    ran = through(tmp_path, program("--fail-first", restart=RestartPolicy(when, AT_ONCE)), 250)
    assert ran.report.status == ("failed" if when == "never" else "completed")
    assert len(written(tmp_path)) == (0 if when == "never" else 250)


def test_replicas_run_batches_side_by_side(tmp_path: Path) -> None:
    """No run ends before there are two of them."""
    meets = sh(
        f"touch {tmp_path}/run$CONNECTOR_INSTANCE; while [ ! -e {tmp_path}/run1 -o ! -e {tmp_path}/run2 ];"
        " do sleep 0.01; done; cat"
    )
    ran = through(tmp_path, batch(meets, replicas=2), 400)
    assert sorted(numbers(tmp_path)) == list(range(1, 401))
    assert ran.report.processors["m"].batches == 4


def test_a_batch_that_failed_goes_to_a_replica_that_lives(tmp_path: Path) -> None:
    """The first replica fails for the first time, and would wait very long for its restart."""
    fails = f"[ $CONNECTOR_BATCH$CONNECTOR_ATTEMPT = 1-1001 ] && exit 1; echo $CONNECTOR_BATCH >> {tmp_path}/runs; cat"
    restart = RestartPolicy(backoff=NEVER)
    ran = through(tmp_path, batch(sh(fails), replicas=2, restart=restart), 300)
    assert sorted(numbers(tmp_path)) == list(range(1, 301))
    assert sorted(written(tmp_path, "runs")) == ["1-100", "101-200", "201-300"]
    assert ran.report.processors["m"].restarts == 1


# -- outputs


def test_outputs_beyond_memory_go_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_outputs, "IN_MEMORY_BYTES", 1000)
    spilled = []
    commit = batch_outputs.Outputs.commit

    def noted(outputs: batch_outputs.Outputs) -> None:
        spilled.append(outputs.spilled_bytes)
        commit(outputs)

    monkeypatch.setattr(batch_outputs.Outputs, "commit", noted)
    three = batch(sh("cat {batch} {batch} >&4; cat {batch}"), messages=20_000, writes={"stdout": "b", "more": "c"})
    ran = execute(
        pipeline(
            processor("s", tuple(source(30_000, size=100)), writes="a"),
            three,
            processor("t", tuple(sink(tmp_path / "out", "--read", 4096)), reads="b"),
            processor("u", tuple(sink(tmp_path / "more")), reads="c"),
        )
    )
    assert numbers(tmp_path) == list(range(1, 30_001))
    assert sorted(numbers(tmp_path, "more")) == sorted([*range(1, 30_001)] * 2)
    assert len(spilled) == 2
    assert min(spilled) > 1_000_000
    assert ran.report.channels["c"].written == 60_000


def test_more_than_max_outputs_fails_and_names_the_messages(tmp_path: Path) -> None:
    ran = through(tmp_path, batch(("yes",), max_outputs_bytes=20_000), 150)
    assert ran.report.status == "failed"
    assert "more than 20 KiB in answer to messages 1 to 100 of channel `a`" in ran.cause("m")
    assert "max_outputs" in ran.cause("m")
    assert not written(tmp_path)
    assert ran.report.processors["m"].restarts == 0


def test_outputs_that_cannot_be_kept_fail_with_the_reason(tmp_path: Path) -> None:
    outputs = batch_outputs.Outputs(tmp_path / "nowhere", 1 << 30, lambda: "messages")
    from runner.bridge.outlet import Outlet
    from runner.codec.base import Batch
    from runner.errors import RunnerError

    port = outputs.of(Outlet("stdout", []))
    with pytest.raises(RunnerError, match=r"cannot be kept in .*nowhere: No such file"):
        port.deliver(Batch((b"x" * (9 << 20),), 1, 9 << 20))


def test_what_a_channel_cannot_carry_commits_nothing(tmp_path: Path) -> None:
    """The second output of the batch has a newline, which the reader's codec cannot carry."""
    frames = python(
        "import sys\nfor text in (b'good', b'two\\nlines'):\n"
        "    sys.stdout.buffer.write(len(text).to_bytes(4, 'big') + text)"
    )
    ran = through(tmp_path, batch(frames, codec={"stdout": "length-prefixed"}), 150)
    assert ran.report.status == "failed"
    assert "message 2 of channel `b` is refused" in ran.cause("m")
    assert not written(tmp_path)
    assert ran.account("a", "m").acknowledged == 0


def test_a_full_channel_holds_up_the_next_run_only(tmp_path: Path) -> None:
    """Each run writes far more than fits; the sink reads only once the first has ended, and nothing is lost."""
    many = sh(f"cat; seq 1 3000; echo $CONNECTOR_BATCH >> {tmp_path}/ended")
    ran = execute(
        pipeline(
            processor("s", tuple(source(60, size=20)), writes="a"),
            batch(many, messages=20),
            processor("t", tuple(sink(tmp_path / "out", "--until", tmp_path / "ended")), reads="b"),
            channels={"b": {"capacity_bytes": 100}},
        )
    )
    assert ran.report.channels["b"].written == 60 + 3 * 3000
    assert len(written(tmp_path)) == 60 + 3 * 3000


def test_a_ring_of_waits_through_batches_is_found(tmp_path: Path) -> None:
    """`t` reads all of `side` first; the batches that it does not read yet hold up the source of both."""
    both = sh("seq 1 999999 | tee /dev/fd/3")
    joins = sh("cat /dev/fd/3; cat")
    ran = execute(
        pipeline(
            processor("s", both, writes={"stdout": "a", "side": "c"}),
            batch(("cat",), messages=1_000_000, size_bytes=50_000),
            processor("t", joins, reads={"stdin": "b", "side": "c"}),
            channels={name: {"capacity_bytes": 50} for name in "abc"},
        )
    )
    assert ran.report.status == "failed"
    assert "ring of waits" in (ran.report.cause or "")
    assert "`m`" in (ran.report.cause or "")


# -- stops


def test_a_stop_lets_the_batch_under_way_finish(tmp_path: Path) -> None:
    async def stop(happened: Happened) -> None:
        await happened.line("begun")
        happened.run.stop("enough")
        (tmp_path / "go").touch()

    waits = sh(f"echo begun >&2; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; cat")
    ran = execute(
        pipeline(
            processor("s", tuple(source(None, "--rate", "1000", "--graceful", size=20)), writes="a"),
            batch(waits, messages=50),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        ),
        stop,
    )
    assert ran.report.status == "stopped"
    account = ran.account("a", "m")
    assert account.acknowledged == len(numbers(tmp_path)) == ran.report.channels["a"].written
    assert numbers(tmp_path) == list(range(1, len(numbers(tmp_path)) + 1))


def test_a_stop_ends_a_batch_that_takes_too_long(tmp_path: Path) -> None:
    async def stop(happened: Happened) -> None:
        await happened.line("begun")
        happened.run.stop("enough")

    ran = execute(
        pipeline(
            processor("s", tuple(source(None, "--rate", "1000", "--graceful", size=20)), writes="a"),
            batch(sh("echo begun >&2; cat; sleep 1000"), messages=50, stop=StopPolicy(grace_s=0.1)),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        ),
        stop,
    )
    assert ran.report.status == "stopped"
    account = ran.account("a", "m")
    assert (account.acknowledged, account.indeterminate) == (0, 0)
    assert account.unread == ran.report.channels["a"].written
    assert not written(tmp_path)


def test_a_run_that_takes_longer_than_stall_is_run_again(tmp_path: Path) -> None:
    hangs = sh("[ $CONNECTOR_ATTEMPT = 1 ] && sleep 1000; cat")
    ran = through(tmp_path, batch(hangs, stall_s=0.2), 50)
    assert numbers(tmp_path) == list(range(1, 51))
    assert "stalled" in " ".join(ran.happened.causes("m"))


def test_readers_that_left_end_it(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", tuple(source(None, size=20)), writes="a"),
            batch(("cat",), messages=50),
            processor("t", ("head", "-n1"), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert ran.cause("m").startswith("readers left")
