"""Answers that are refused, and what dead replicas leave: the ledger balances, and somebody goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from runner.spec.model import InFlight, RestartPolicy
from tests.supervise.running import (
    AT_ONCE,
    MANY,
    NEVER,
    Happened,
    Ran,
    execute,
    pipeline,
    processor,
    python,
    sh,
)
from tests.supervise.test_found import ONE, open_gate, soon


def _refused_answer(count: int, **of_mid: Any) -> Ran:
    """So many messages for a program with one good answer and one that its reader's framing cannot carry."""
    return execute(
        pipeline(
            processor("src", sh(f"seq {count}"), writes="a"),
            processor(
                "mid",
                sh("read a; read b; printf '1\\0two\\nlines\\0'; cat >/dev/null"),
                reads="a",
                writes="b",
                codec={"stdin": "lines", "stdout": "null"},
                contract=ONE,
                **of_mid,
            ),
            processor("out", sh("cat >&2"), reads="b"),
        )
    )


def test_a_refused_answer_is_a_clean_failure_with_a_balanced_ledger() -> None:
    """One read with a good answer and one that is refused."""
    ran = _refused_answer(4)
    assert ran.report.status == "failed"
    assert "message 2 of channel `b` is refused" in ran.cause("mid")
    assert ran.happened.logged() == ["1"]
    assert ran.account("a", "mid").acknowledged == 1
    assert ran.account("a", "mid").unread == 3
    assert ran.report.channels["b"].refused == 1


def test_a_refused_answer_behind_the_sequencer_balances() -> None:
    """The same with replicas and order = "keep": what waits behind the bad answer is accounted for too."""
    ran = _refused_answer(200, replicas=2, in_flight=InFlight(4096, 4))
    assert ran.report.status == "failed"
    assert ran.report.channels["b"].refused


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
