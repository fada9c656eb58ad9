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
from runner.events import Bus, WaitChanged
from runner.spec.model import Contract, InFlight, RestartPolicy, Resume, StopPolicy
from runner.supervise import monitor
from runner.supervise.run import Run
from runner.units import Rate
from tests.supervise.running import (
    AT_ONCE,
    DEADLINE_S,
    MANY,
    NEVER,
    Happened,
    execute,
    pipeline,
    processor,
    python,
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


def test_a_refused_answer_is_a_clean_failure_with_a_balanced_ledger() -> None:
    """One read with a good answer and one that its reader's framing cannot carry."""
    ran = execute(
        pipeline(
            processor("src", sh("seq 4"), writes="a"),
            processor(
                "mid",
                sh("read a; read b; printf '1\\0two\\nlines\\0'; cat >/dev/null"),
                reads="a",
                writes="b",
                codec={"stdin": "lines", "stdout": "null"},
                contract=ONE,
            ),
            processor("out", sh("cat >&2"), reads="b"),
        )
    )
    assert ran.report.status == "failed"
    assert "message 2 of channel `b` is refused" in ran.cause("mid")
    assert ran.happened.logged() == ["1"]
    assert ran.account("a", "mid").acknowledged == 1
    assert ran.account("a", "mid").unread == 3
    assert ran.report.channels["b"].refused == 1


def test_a_refused_answer_behind_the_sequencer_balances() -> None:
    """The same with replicas and order = "keep": what waits behind the bad answer is accounted for too."""
    ran = execute(
        pipeline(
            processor("src", sh("seq 200"), writes="a"),
            processor(
                "mid",
                sh("read a; read b; printf '1\\0two\\nlines\\0'; cat >/dev/null"),
                reads="a",
                writes="b",
                codec={"stdin": "lines", "stdout": "null"},
                contract=ONE,
                replicas=2,
                in_flight=InFlight(4096, 4),
            ),
            processor("out", sh("cat >&2"), reads="b"),
        )
    )
    assert ran.report.status == "failed"


def test_two_deaths_at_once_balance() -> None:
    """A ledger check while another program's settled run still waits for the end of its log."""

    async def steps(happened: Happened) -> None:
        await happened.line("read all")
        await happened.until(lambda: "running" in happened.states("one") and "running" in happened.states("two"))
        pid = happened.run.processors["one"].replicas[0].pids[0]
        held = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY)  # somebody else writes to its log
        try:
            os.kill(pid, 9)
            reader = happened.run.channels["a"].readers[0]
            await soon(lambda: reader.account.indeterminate)  # settled, and now waiting for the log
            os.kill(happened.run.processors["two"].replicas[0].pids[0], 9)
            await happened.until(lambda: "backoff" in happened.states("two"))
        finally:
            os.close(held)

    ran = execute(
        pipeline(
            processor("src", sh("seq 10; exec sleep 3"), writes="a"),
            processor(
                "one",
                sh('[ "$CONNECTOR_ATTEMPT" = 1 ] || exec cat; head -c 21 >/dev/null; echo read all >&2; sleep 60'),
                reads="a",
            ),
            processor("two", sh('[ "$CONNECTOR_ATTEMPT" = 1 ] || exec cat; exec sleep 60'), reads="a"),
        ),
        steps,
    )
    assert ran.account("a", "one").indeterminate == 10


def test_a_failed_replica_ends_the_others_though_their_answers_wait_for_its(tmp_path: Path) -> None:
    """order = "keep": the head of the line is with the one that fails for good, the others hold more than fits."""
    script = """
import os, sys
for line in sys.stdin.buffer:
    if line == b"0\\n":
        sys.stderr.write("first\\n"); sys.stderr.flush()
        while not os.path.exists(GATE): pass
        os._exit(1)
    os.write(1, b"x" * 30000 + b"\\n")
"""
    gate = tmp_path / "gate"

    async def steps(happened: Happened) -> None:
        await happened.line("first")
        mid = happened.run.processors["mid"]

        def crowded() -> bool:
            return any(
                item.attempt is not None and any(port.paused for port in item.attempt.ports.collectors)
                for item in mid.replicas
            )

        await soon(crowded)
        open_gate(gate)

    ran = execute(
        pipeline(
            processor("src", sh("seq 0 99"), writes="a"),
            processor(
                "mid",
                python(script.replace("GATE", repr(str(gate)))),
                reads="a",
                writes="b",
                contract=ONE,
                replicas=2,
                in_flight=InFlight(4096, 8),
                restart=RestartPolicy("never"),
                continue_on_error=True,
            ),
            processor("out", sh("cat >/dev/null"), reads="b"),
            channels={"a": {"capacity_bytes": 4096}},
        ),
        steps,
        deadline_s=15.0,
    )
    assert ran.report.processors["mid"].state == "failed"


def test_what_dead_replicas_leave_is_taken_up_in_order(tmp_path: Path) -> None:
    """order = "keep", both replicas die one after the other: the oldest message goes out first, or nobody can go on."""
    script = f"""
import os, sys, time
attempt, replica = os.environ["CONNECTOR_ATTEMPT"], os.environ["CONNECTOR_INSTANCE"]
me = os.path.join({str(tmp_path)!r}, replica)
if attempt == "1":
    lines = [os.read(0, 2) for _ in range(2)]
    open(me, "w").close()
    sys.stderr.write(f"{{replica}} has {{lines}}\\n"); sys.stderr.flush()
    time.sleep(1000)
for line in sys.stdin.buffer:
    os.write(1, line.strip() + b"x" * 50000 + b"\\n")
"""

    async def steps(happened: Happened) -> None:
        await happened.until(lambda: len([line for line in happened.logged() if " has " in line]) == 2)
        await happened.until(lambda: all("running" in happened.states("mid", replica) for replica in (1, 2)))
        mid = happened.run.processors["mid"]
        first = next(line for line in happened.logged() if "b'0" in line)[0]  # who has the oldest message
        for name in (first, "2" if first == "1" else "1"):
            os.kill(mid.replicas[int(name) - 1].pids[0], 9)

    ran = execute(
        pipeline(
            processor("src", sh("seq 0 7"), writes="a"),
            processor(
                "mid",
                python(script),
                reads="a",
                writes="b",
                contract=ONE,
                replicas=2,
                in_flight=InFlight(4096, 2),
                restart=RestartPolicy(backoff=AT_ONCE, limit=MANY),
            ),
            processor("out", sh("cut -c1 >&2"), reads="b"),
            channels={"a": {"capacity_bytes": 4096}},
            drain_s=2.0,
        ),
        steps,
        deadline_s=15.0,
    )
    assert ran.happened.logged()[-8:] == [str(number) for number in range(8)]


def test_what_a_dead_replica_leaves_goes_to_an_idle_live_one(tmp_path: Path) -> None:
    """The dead one waits long for its restart; the live one is idle, and nothing new comes to wake it."""

    async def steps(happened: Happened) -> None:
        await happened.until(lambda: "backoff" in happened.states("mid", 1) + happened.states("mid", 2))
        await happened.line("got it")
        happened.run.stop("seen")

    ran = execute(
        pipeline(
            processor("src", sh("echo only; exec sleep 1000"), writes="a"),
            processor(
                "mid",
                sh('read x; mkdir "$CONNECTOR_PARAM_DIR" 2>/dev/null && kill -9 $$; echo "got it"; exec cat'),
                reads="a",
                writes="b",
                contract=ONE,
                replicas=2,
                params={"dir": str(tmp_path / "once")},
                restart=RestartPolicy(backoff=NEVER),
            ),
            processor("out", sh("cat >&2"), reads="b"),
            drain_s=2.0,
        ),
        steps,
        deadline_s=15.0,
    )
    assert ran.account("a", "mid").acknowledged == 1


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


def test_a_ring_is_found_though_stall_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "RING_SURE_S", 1.0)
    ran = execute(
        pipeline(
            processor(
                "src",
                sh("yes | head -n 3000000 | tee /dev/stderr"),
                writes={"stdout": "a", "stderr": "b"},
                stall_s=600.0,
            ),
            processor("left", ("cat",), reads="a", writes="c", stall_s=600.0),
            processor(
                "join",
                sh('cat "$CONNECTOR_READER_SECOND" >/dev/null; cat >/dev/null'),
                reads={"stdin": "c", "second": "d"},
                stall_s=600.0,
            ),
            processor("right", sh("sort"), reads="b", writes="d", stall_s=600.0),
            channels={name: {"capacity_bytes": 4096} for name in "abcd"},
            drain_s=1.0,
        ),
        deadline_s=20.0,
    )
    assert ran.report.status == "failed"
    assert "ring of waits" in (ran.report.cause or "")


def _slow_input(monkeypatch: pytest.MonkeyPatch, join: str, late: str, gate: Path) -> None:
    """A join that waits for a slow source, while another writer is held up: no ring, as the slow source will write."""
    monkeypatch.setattr(monitor, "RING_SURE_S", 0.6)

    async def steps(happened: Happened) -> None:
        await happened.until(
            lambda: any(isinstance(event, WaitChanged) and event.processor == "both" for event in happened.events)
        )
        open_gate(gate)

    ran = execute(
        pipeline(
            processor(
                "both",
                sh('yes | head -c 16000000; echo end > "$CONNECTOR_WRITER_B"'),
                writes={"stdout": "a", "b": "b"},
            ),
            processor("late", sh(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo go"), writes=late),
            processor("join", sh(join), reads={"stdin": "a", "b": "b", **({"c": "c"} if late == "c" else {})}),
            channels={"a": {"capacity_bytes": 4096}},
            drain_s=1.0,
        ),
        steps,
        deadline_s=20.0,
    )
    assert ran.report.status == "completed", ran.report.cause


def test_no_ring_where_another_port_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    join = 'cat "$CONNECTOR_READER_C" >/dev/null; cat >/dev/null; cat "$CONNECTOR_READER_B" > /dev/null'
    _slow_input(monkeypatch, join, "c", tmp_path / "gate")


def test_no_ring_where_another_writer_may_still_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    join = 'exec 5<"$CONNECTOR_READER_B"; read x <&5; cat >/dev/null; cat <&5 >/dev/null'
    _slow_input(monkeypatch, join, "b", tmp_path / "gate")


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


def test_the_end_of_a_failing_ring_does_not_take_the_whole_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a ring can drain, so waiting for it is in vain."""
    monkeypatch.setattr(monitor, "RING_SURE_S", 1.0)
    ran = execute(
        pipeline(
            processor("src", sh("yes | head -n 3000000 | tee /dev/stderr"), writes={"stdout": "a", "stderr": "b"}),
            processor("left", ("cat",), reads="a", writes="c"),
            processor(
                "join",
                sh('cat "$CONNECTOR_READER_SECOND" >/dev/null; cat >/dev/null'),
                reads={"stdin": "c", "second": "d"},
            ),
            processor("right", sh("sort"), reads="b", writes="d"),
            channels={name: {"capacity_bytes": 4096} for name in "abcd"},
            drain_s=1000.0,
        ),
        deadline_s=20.0,
    )
    assert ran.report.status == "failed"
    assert "ring of waits" in (ran.report.cause or "")


def test_a_drain_waits_for_who_is_held_up_by_a_slow_reader() -> None:
    """Its grace starts with its end of input, which comes after the last message; until then it only waits for room."""

    async def steps(happened: Happened) -> None:
        await soon(lambda: happened.run.channels and happened.run.channels["a"].written == 400)
        happened.run.stop("enough")

    ran = execute(
        pipeline(
            processor("src", sh("seq -f %010000.0f 400; exec sleep 1000"), writes="a"),
            processor(
                "mid",
                ("cat",),
                reads="a",
                writes="b",
                in_flight=InFlight(4096),
                stop=StopPolicy(grace_s=0.3),
            ),
            processor(
                "out",
                sh("sleep 1.5; exec cat >/dev/null"),
                reads="b",
                in_flight=InFlight(4096),
                stop=StopPolicy(grace_s=5.0),
            ),
            channels={"a": {"capacity_bytes": 8 << 20}, "b": {"capacity_bytes": 4096}},
        ),
        steps,
    )
    assert ran.account("a", "mid").unread == 0
    assert ran.account("b", "out").acknowledged == 400
