"""Contract `acknowledged` over stdio, from inside: sessions, commits, states, and what breaks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.bridge.heartbeat import Beat
from runner.spec.model import Contract, InFlight, Processor, RestartPolicy, Resume, StopPolicy
from runner.supervise import sessions
from runner.units import Rate
from tests.children.build import script, sink, source
from tests.supervise.running import AT_ONCE, DEADLINE_S, Happened, execute, pipeline, processor, through

FEW = RestartPolicy(backoff=AT_ONCE, limit=Rate(2, 60.0))


def client(what: str, *arguments: object, name: str = "m", **more: Any) -> Processor:
    more.setdefault("reads", "a")
    more.setdefault("writes", "b")
    return processor(name, tuple(script("acknowledges", what, *arguments)), contract=Contract.ACKNOWLEDGED, **more)


def lines(tmp_path: Path) -> list[str]:
    file = tmp_path / "out"
    return file.read_text().splitlines() if file.exists() else []


def numbers(tmp_path: Path) -> list[int]:
    return [int(line[:10]) for line in lines(tmp_path)]


def test_each_message_is_answered_by_any_number_of_outputs(tmp_path: Path) -> None:
    ran = through(tmp_path, client("echo", 3))
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == [number for number in range(1, 501) for _ in range(3)]
    assert ran.account("a", "m").acknowledged == 500
    assert ran.cause("m") == "done (exit 0)"


def test_a_death_between_outputs_and_ack_leaves_neither(tmp_path: Path) -> None:
    ran = through(tmp_path, client("echo", 2, 50))
    assert numbers(tmp_path) == [number for number in range(1, 501) for _ in range(2)]
    assert ran.report.processors["m"].restarts == 10
    assert ran.account("a", "m").acknowledged == 500


def test_answers_in_any_order_appear_in_the_order_of_the_acks(tmp_path: Path) -> None:
    ran = through(tmp_path, client("backwards"), count=300)
    assert ran.report.status == "completed"
    assert sorted(numbers(tmp_path)) == [number for number in range(1, 301) for _ in range(number % 3)]
    assert numbers(tmp_path) != sorted(numbers(tmp_path))


def test_outputs_go_to_named_ports_and_inputs_come_from_them(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", tuple(source(100, size=20)), writes="a"),
            processor("s2", tuple(source(100, size=20)), writes="a2"),
            client("ports", reads={"stdin": "a", "more": "a2"}, writes={"odd": "b", "even": "c"}),
            processor("t", tuple(sink(tmp_path / "odd")), reads="b"),
            processor("u", tuple(sink(tmp_path / "even")), reads="c"),
        )
    )
    assert ran.report.status == "completed"
    for name, rest in (("odd", 1), ("even", 0)):
        found = [line.split() for line in (tmp_path / name).read_text().splitlines()]
        due = [number for number in range(1, 101) if number % 2 == rest]
        assert [int(number) for port, number, *_ in found if port == "stdin"] == due
        assert [int(number) for port, number, *_ in found if port == "more"] == due


def test_a_nacked_message_comes_again_and_holds_up_nobody(tmp_path: Path) -> None:
    ran = through(tmp_path, client("nacks", 100, 3, 50))
    found = numbers(tmp_path)
    assert sorted(found) == list(range(1, 501))
    assert found.index(100) > found.index(101)
    assert [each for each in found if each % 100] == [each for each in range(1, 501) if each % 100]
    nacked = [line for line in ran.happened.logged() if "nack of message 100 of channel `a`" in line]
    assert len(nacked) == 3
    assert nacked[-1].endswith("attempt 3: not yet")
    assert not any("never seen" in line for line in lines(tmp_path))


def test_a_nack_without_delay_is_no_hot_loop(tmp_path: Path) -> None:
    ran = through(tmp_path, client("nacks", 1, 6), count=20)
    assert sorted(numbers(tmp_path)) == list(range(1, 21))
    assert ran.account("a", "m").acknowledged == 20


def test_a_message_keeps_its_number_over_attempts_and_deaths(tmp_path: Path) -> None:
    through(tmp_path, client("identities"), count=60)
    found = sorted(tuple(line.split()[:4]) for line in lines(tmp_path))
    assert found == sorted(
        (str(number), "2" if number % 3 == 0 else "1", "a", f"{number:010d}") for number in range(1, 61)
    )


def test_replicas_share_the_work_and_each_gets_its_end(tmp_path: Path) -> None:
    ran = through(tmp_path, client("nacks", 50, 2, 20, replicas=3), count=1000)
    assert ran.report.status == "completed"
    assert sorted(numbers(tmp_path)) == list(range(1, 1001))
    assert [item.exit.code for item in ran.report.processors["m"].instances] == [0, 0, 0]


def test_replicas_that_die_leave_their_messages_to_the_others(tmp_path: Path) -> None:
    ran = through(tmp_path, client("echo", 1, 40, replicas=3), count=1000)
    assert sorted(numbers(tmp_path)) == list(range(1, 1001))
    assert ran.report.processors["m"].restarts >= 10


@pytest.mark.parametrize("window", [InFlight(1), InFlight(200), InFlight(messages=1), InFlight(messages=7)])
def test_no_more_is_in_flight_than_the_window_allows(tmp_path: Path, window: InFlight) -> None:
    ran = through(tmp_path, client("echo", in_flight=window), count=100)
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 101))


# -- state


def test_the_state_belongs_to_what_is_committed(tmp_path: Path) -> None:
    through(tmp_path, client("sums", 30), count=200)
    sums = [sum(range(1, number + 1)) for number in range(1, 201)]
    assert lines(tmp_path) == [*map(str, sums), f"total {sums[-1]}"]


@pytest.mark.parametrize("size", [0, 65_536, 65_537, 3_000_000])
def test_a_state_of_any_size_is_given_back(tmp_path: Path, size: int) -> None:
    ran = through(tmp_path, client("large-state", size, tmp_path), count=3)
    how = "state=file" if size > 65_536 else "state=here"
    given = [line for line in ran.happened.logged() if line.startswith("given")]
    assert given == ["given state=none 0 True", f"given {how} {size} True"]
    assert ran.account("a", "m").acknowledged == 3


def test_a_source_goes_on_from_its_state(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            client("source", 1000, 95, name="s", reads=None, writes="b", resume=Resume.SELF),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert numbers(tmp_path) == list(range(1, 1001))
    assert ran.report.processors["s"].restarts == 11
    assert ran.cause("s").startswith("done")


def test_state_is_refused_with_replicas_and_for_a_source_that_does_not_go_on(tmp_path: Path) -> None:
    ran = through(tmp_path, client("sums", replicas=2))
    assert ran.report.status == "failed"
    assert "may not: it has 2 replicas" in ran.cause("m")
    ran = execute(
        pipeline(
            client("source", 10, name="s", reads=None, writes="b", resume=Resume.LIVE),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert 'resume = "live"' in ran.cause("s")
    assert not lines(tmp_path)


# -- what goes wrong


def test_garbage_fails_at_once_and_names_the_message(tmp_path: Path) -> None:
    ran = through(tmp_path, client("garbage", 7))
    assert ran.report.status == "failed"
    cause = ran.cause("m")
    assert "unknown-kind" in cause
    assert '"hello, I am a debugging print"' in cause
    assert "message 8 of channel `a`" in cause
    assert ran.report.processors["m"].restarts == 0
    assert numbers(tmp_path) == list(range(1, 8)), "what was acknowledged before it counts"


def test_an_output_that_the_channel_cannot_carry_commits_nothing_of_its_message(tmp_path: Path) -> None:
    middle = client("echo", codec={"stdin": "length-prefixed", "stdout": "lines"})
    ran = execute(
        pipeline(
            processor(
                "s", tuple(source(1, "--codec", "length-prefixed", size=40)), writes="a", codec="length-prefixed"
            ),
            middle,
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "failed"
    assert "output 1 on `stdout`" in ran.cause("m")
    assert "message 1 of channel `a`" in ran.cause("m")
    assert ran.account("a", "m").acknowledged == 0
    assert not lines(tmp_path)


def test_a_program_that_does_not_open_its_session_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.supervise.attempt.READY_WITHIN_S", 0.3)
    never = client("never-ready", restart=FEW)
    ran = through(tmp_path, never)
    assert ran.cause("m").startswith("not ready within 0.3s: no `ready` frame came")


def test_a_silent_program_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "BEAT", Beat(0.1, 0.3))
    go = tmp_path / "go"

    async def steps(happened: Happened) -> None:
        await happened.until(lambda: any("silent" in cause for cause in happened.causes("m")))
        go.touch()

    ran = execute(
        pipeline(
            processor("s", ("sh", "-c", f"until test -e {go}; do sleep 0.05; done; echo 0000000001"), writes="a"),
            client("silent-once", tmp_path),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        ),
        steps,
    )
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == [1]
    assert any("silent: no answer to a ping for 300ms" in cause for cause in ran.happened.causes("m"))


def test_who_answers_pings_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "BEAT", Beat(0.02, 5.0))

    ran = execute(
        pipeline(
            processor("s", ("sh", "-c", "sleep 0.5; echo 0000000001"), writes="a"),
            client("echo"),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert ran.report.processors["m"].restarts == 0


def test_a_program_that_stalls_over_a_message_is_restarted(tmp_path: Path) -> None:
    ran = through(tmp_path, client("slow", 3600, stall_s=0.5, restart=FEW))
    assert ran.report.status == "failed"
    assert "stalled: input in flight and no answer" in ran.cause("m")


def test_outputs_without_an_ack_are_bounded(tmp_path: Path) -> None:
    ran = through(tmp_path, client("hoards", 65 << 20), count=1)
    assert ran.report.status == "failed"
    assert "more than 64 MiB of outputs that are not committed" in ran.cause("m")
    assert "message 1 of channel `a`" in ran.cause("m")


def test_a_program_may_leave(tmp_path: Path) -> None:
    ran = through(tmp_path, client("leaves", 10))
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 11))
    account = ran.account("a", "m")
    assert (account.acknowledged, account.unread) == (10, 490)
    assert ran.report.processors["m"].restarts == 0


def test_whoever_writes_to_nobody_is_ended(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", tuple(source(20_000, size=20)), writes="a"),
            client("echo"),
            processor("t", ("head", "-n", "5"), reads="b"),
            channels={"b": {"capacity_bytes": 1000}},
        )
    )
    assert ran.report.status == "completed"
    assert ran.cause("m").startswith("readers left")


def test_whoever_waits_for_more_when_its_readers_leave_is_ended(tmp_path: Path) -> None:
    """It has written all that it had to, so no write will tell it, and nobody takes its acks any more."""
    go = tmp_path / "go"

    async def steps(happened: Happened) -> None:
        await happened.line("so many")
        go.touch()

    waits = ("sh", "-c", f"until test -e {go}; do sleep 0.05; done")
    ran = execute(
        pipeline(
            processor("s", tuple(source(6000, size=20)), writes="a"),
            client("slow", 0, 6000),
            processor("t", waits, reads="b", in_flight=InFlight(1000)),
            channels={"b": {"capacity_bytes": 1000}},
        ),
        steps,
    )
    assert ran.report.status == "completed"
    assert ran.cause("m").startswith("readers left")


def test_the_end_is_committed_with_the_last_outputs_not_with_the_exit(tmp_path: Path) -> None:
    """The reader has its end of input, and is done, while the program that said `end` still lingers."""

    async def steps(happened: Happened) -> None:
        await happened.until(lambda: "exited" in happened.states("t"))
        assert "exited" not in happened.states("m")

    ran = through(tmp_path, client("lingers", stop=StopPolicy(grace_s=1.0)), count=10, steps=steps)
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 11))
    assert ran.report.processors["m"].restarts == 0
    assert not ran.cause("m").startswith("readers left"), "its reader went when it was told that nothing more comes"


def test_an_exit_without_a_word_is_a_death(tmp_path: Path) -> None:
    ran = through(tmp_path, client("forgets-end", restart=FEW), count=10)
    assert ran.report.status == "failed"
    assert "without saying `end`" in ran.cause("m")
    assert ran.account("a", "m").acknowledged == 10


def test_a_slow_program_gets_all_of_it(tmp_path: Path) -> None:
    ran = through(tmp_path, client("slow", 0.01), count=50)
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 51))


def test_log_frames_are_logged(tmp_path: Path) -> None:
    ran = through(tmp_path, client("logs"), count=1)
    logged = ran.happened.logged()
    assert {"all well", "really", "warning: it rains"} <= set(logged)


def test_a_stop_at_any_moment_splits_no_message_from_its_outputs(tmp_path: Path) -> None:
    async def steps(happened: Happened) -> None:
        await happened.line("so many")
        happened.run.stop("enough")

    ran = through(tmp_path, client("slow", 0.002, 21), count=20_000, steps=steps, drain_s=1.0)
    assert ran.report.status == "stopped"
    found = numbers(tmp_path)
    assert found == list(range(1, len(found) + 1))
    account = ran.account("a", "m")
    assert 20 < (account.acknowledged or 0) == ran.report.channels["b"].written, "each ack with its output, or neither"
    assert account.unread
    assert ran.report.duration_s < DEADLINE_S
