"""What a review of the core found: each test states a rule, and fails while the core breaks it."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from runner.channel.memory import MemoryReader
from runner.errors import BugError, MachineError
from runner.events import Bus
from runner.spec.model import Contract, InFlight, RestartPolicy, Resume, StopPolicy
from runner.supervise.run import Run
from runner.units import Rate
from tests.supervise.running import (
    AT_ONCE,
    DEADLINE_S,
    NEVER,
    Happened,
    execute,
    pipeline,
    processor,
    sh,
)

ONE = Contract.ONE_TO_ONE


async def soon(wanted: Callable[[], object]) -> None:
    """Wait for what no event tells, looking each time the loop comes round."""
    async with asyncio.timeout(DEADLINE_S):
        while not wanted():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


def open_gate(gate: Path) -> None:
    gate.touch()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _cancelled(until: Callable[[Happened], Awaitable[object]]) -> tuple[int, int]:
    """How many descriptors were open before and after a run that is cancelled when `until` has come."""

    async def main() -> tuple[int, int]:
        before = descriptors()
        run = Run(
            pipeline(
                processor("src", sh("seq 10; exec sleep 1000"), writes="a"),
                processor("mid", sh("read x; echo read >&2; exec sleep 1000"), reads="a", writes="b", contract=ONE),
                processor("out", ("cat",), reads="b"),
            ),
            Bus(),
        )
        happened = Happened(run)
        run.bus.subscribe(happened.note)
        living = asyncio.ensure_future(run.execute())
        await until(happened)
        living.cancel()
        with pytest.raises(asyncio.CancelledError):
            await living
        return before, descriptors()

    return asyncio.run(main())


def test_a_cancelled_run_leaves_nothing_open() -> None:
    def all_run(happened: Happened) -> bool:
        return all("running" in happened.states(name) for name in ("src", "mid", "out")) and "read" in happened.logged()

    before, after = _cancelled(lambda happened: happened.until(lambda: all_run(happened)))
    assert after == before


def test_a_run_that_is_cancelled_while_it_starts_leaves_nothing_open() -> None:
    before, after = _cancelled(lambda happened: happened.until(lambda: happened.states("out") == ["starting"]))
    assert after == before


def test_an_error_of_ours_in_a_callback_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug must come out (exit 70), not leave a run that hangs."""

    def broken(self: MemoryReader, batch: object) -> None:
        raise AssertionError("a bug of ours")

    monkeypatch.setattr(MemoryReader, "offer", broken)
    with pytest.raises(Exception, match="a bug of ours"):
        execute(
            pipeline(
                processor("src", sh("echo x; exec sleep 1000"), writes="a"), processor("out", ("cat",), reads="a")
            ),
            deadline_s=10.0,
        )


def test_a_second_stop_does_not_wait_for_a_grandchild_that_holds_stdout() -> None:
    """Exit 0, and a grandchild has stdout: the grace period ends at once when everything is killed."""

    async def steps(happened: Happened) -> None:
        await happened.line("leaving")
        reader = happened.run.processors["src"].replicas[0]
        assert reader.attempt is not None
        await asyncio.sleep(0.5)
        happened.run.stop("enough")
        happened.run.kill()

    ran = execute(
        pipeline(
            processor(
                "src",
                sh("setsid sleep 1000 2>/dev/null & echo leaving >&2"),
                writes="a",
                stop=StopPolicy(grace_s=1000.0),
            ),
            processor("out", ("cat",), reads="a"),
            drain_s=2.0,
        ),
        steps,
        deadline_s=12.0,
    )
    assert ran.report.status == "stopped"


def test_a_batch_of_very_many_parts_goes_through() -> None:
    """writev(2) takes at most IOV_MAX parts at once."""
    spec = pipeline(
        processor("src", sh("yes 12345678901234 | head -c 300000"), writes="a", codec="raw", max_message_bytes=16),
        processor("out", sh("wc -c >&2"), reads="a", codec="raw"),
    )
    try:
        logged = execute(spec, deadline_s=15.0).happened.logged()
    except OSError as error:
        logged = [str(error)]
    assert logged == ["300000"]


def test_crashed_while_draining_is_restarted_though_settling_takes_longer_than_grace() -> None:
    """It died by itself before anybody asked: what it left unanswered is answered by the next."""

    async def steps(happened: Happened) -> None:
        await happened.line("reading")
        happened.run.stop("enough")

    ran = execute(
        pipeline(
            processor("src", sh("seq 10; exec sleep 1000"), writes="a", stop=StopPolicy(grace_s=0.1)),
            processor(
                "mid",
                sh(
                    '[ "$CONNECTOR_ATTEMPT" = 1 ] || exec cat;'
                    " read x; echo reading >&2; while read y; do :; done;"
                    " for i in 1 2 3 4 5; do printf '%05000d\\n' $i; done; exit 1"
                ),
                reads="a",
                writes="b",
                contract=ONE,
                stop=StopPolicy(grace_s=0.2),
            ),
            processor("out", sh("sleep 1.5; cat >/dev/null"), reads="b", in_flight=InFlight(4096)),
            channels={"b": {"capacity_bytes": 64}},
        ),
        steps,
    )
    assert ran.account("a", "mid").unread == 0
    assert ran.account("a", "mid").acknowledged == 10


def test_cause_is_readers_left_also_in_backoff() -> None:
    async def steps(happened: Happened) -> None:
        await happened.line("trapped")
        await happened.until(lambda: "backoff" in happened.states("src") and "running" in happened.states("out"))
        os.kill(happened.run.processors["out"].replicas[0].pids[0], 15)

    ran = execute(
        pipeline(
            processor(
                "src", sh("echo x; exit 1"), writes="a", resume=Resume.LIVE, restart=RestartPolicy(backoff=NEVER)
            ),
            processor("out", sh("trap 'exit 0' TERM; echo trapped >&2; while :; do sleep 0.05; done"), reads="a"),
        ),
        steps,
    )
    assert "readers left" in ran.cause("src")


def test_an_error_of_the_host_is_none_of_the_run() -> None:
    """Embedded: a task of the host's own that fails and is forgotten does not end the run."""

    async def steps(happened: Happened) -> None:
        async def fails() -> None:
            raise ValueError("the host's own")

        await happened.until(lambda: "running" in happened.states("src"))
        asyncio.get_running_loop().create_task(fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
        happened.run.stop("enough")

    ran = execute(
        pipeline(processor("src", sh("exec sleep 1000"), writes="a"), processor("out", ("cat",), reads="a")), steps
    )
    assert ran.report.status == "stopped"


def test_a_bug_in_a_delivery_is_not_held_against_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MemoryReader, batch: object) -> None:
        raise BugError("a bug of ours")

    monkeypatch.setattr(MemoryReader, "offer", broken)
    with pytest.raises(BugError, match="a bug of ours"):
        execute(
            pipeline(processor("src", sh("echo x"), writes="a"), processor("out", ("cat",), reads="a"), drain_s=1.0),
            deadline_s=10.0,
        )


def test_no_stall_is_found_in_a_program_that_has_ended() -> None:
    """Exit 0 with input left, and a grandchild that holds stdout for the grace period."""

    ran = execute(
        pipeline(
            processor("src", sh("yes | head -c 100000"), writes="a"),
            processor(
                "mid",
                sh("read x; sleep 1000 2>/dev/null & exit 0"),
                reads="a",
                writes="b",
                stall_s=0.6,
                stop=StopPolicy(grace_s=3.0),
                restart=RestartPolicy("never"),
            ),
            processor("out", ("cat",), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert ran.report.processors["mid"].restarts == 0, ran.happened.causes("mid")


@pytest.mark.parametrize("codec", ["length-prefixed"])
def test_a_frame_cut_short_at_exit_0_is_named_by_its_number(codec: str) -> None:
    ran = execute(
        pipeline(
            processor("src", sh(r"printf '\0\0\0\1a\0\0\0\5bc'"), writes="a", codec=codec),
            processor("out", sh("cat >/dev/null"), reads="a", codec=codec),
        )
    )
    assert ran.report.status == "failed"
    assert "message 2" in ran.cause("src"), ran.cause("src")


def test_a_number_counts_what_was_skipped() -> None:
    """resume = "skip": the number in the error is that of the message in the source's stream."""
    ran = execute(
        pipeline(
            processor(
                "src",
                sh('printf "1\\n2\\n"; [ "$CONNECTOR_ATTEMPT" = 1 ] && exit 1; printf "%0100d\\n" 3'),
                writes="a",
                resume=Resume.SKIP,
                max_message_bytes=50,
            ),
            processor("out", sh("cat >/dev/null"), reads="a"),
        )
    )
    assert "message 3" in ran.cause("src"), ran.cause("src")


def test_term_after_the_grace_of_the_drain_shows_as_stopping() -> None:
    async def steps(happened: Happened) -> None:
        await happened.line("ready")
        happened.run.stop("enough")

    ran = execute(
        pipeline(
            processor("src", sh("exec sleep 1000"), writes="a"),
            processor("out", sh("echo ready >&2; exec sleep 1000"), reads="a", stop=StopPolicy(grace_s=0.2)),
        ),
        steps,
    )
    assert ran.happened.states("out")[-3:] == ["draining", "stopping", "exited"], ran.happened.states("out")


def test_a_dead_shim_is_not_held_against_the_program() -> None:
    """Deaths that the runner caused count for nothing; its shim is a part of it."""

    def running(happened: Happened, times: int) -> bool:
        return happened.states("src").count("running") == times

    async def steps(happened: Happened) -> None:
        for times in range(1, 4):
            await happened.until(partial(running, happened, times))
            os.kill(parent_of(happened.run.processors["src"].replicas[0].pids[0]), 9)
        await happened.until(partial(running, happened, 4))
        happened.run.stop("enough")

    ran = execute(
        pipeline(
            processor(
                "src",
                sh("echo up >&2; exec sleep 1000"),
                writes="a",
                resume=Resume.LIVE,
                restart=RestartPolicy(backoff=AT_ONCE, limit=Rate(1, 60.0)),
            ),
            processor("out", ("cat",), reads="a"),
        ),
        steps,
    )
    assert ran.report.status == "stopped"


def test_no_descriptors_left_is_an_error_of_the_machine() -> None:
    """EMFILE while ports are made: a sentence, not a traceback."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def steps(happened: Happened) -> None:
        await happened.until(lambda: "running" in happened.states("src"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        os.kill(happened.run.processors["src"].replicas[0].pids[0], 9)

    ended: BaseException | None = None
    try:
        execute(
            pipeline(
                processor("src", sh("echo up >&2; exec sleep 1000"), writes="a", resume=Resume.LIVE),
                processor("out", ("cat",), reads="a"),
                drain_s=1.0,
            ),
            steps,
            deadline_s=10.0,
        )
    except Exception as error:  # noqa: BLE001 - which one it is is the question
        ended = error.with_traceback(None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert type(ended) is MachineError
