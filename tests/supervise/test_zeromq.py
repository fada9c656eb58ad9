"""Contract `stream` over plain ZeroMQ sockets, from inside: what arrives, what a death costs, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from runner.spec.model import MIB, InFlight, Processor, Resume, StopPolicy
from tests.children.build import script, sink, source
from tests.supervise.running import Happened, Ran, execute, pipeline, processor, sh

ENDS: Sequence[Literal["empty", "signal"]] = ("empty", "signal")


def speaks(
    what: str, *arguments: object, name: str = "m", end: Literal["empty", "signal"] = "empty", **more: Any
) -> Processor:
    more.setdefault("reads", "a")
    more.setdefault("writes", "b")
    more.setdefault("stop", StopPolicy(grace_s=20.0))
    codec = {"stdin": "zeromq-no-empty" if end == "empty" else "zeromq"}
    for table in (more["reads"], more["writes"]):
        for port in table if isinstance(table, dict) else ():
            codec.setdefault(port, "zeromq")
    codec.setdefault("stdout", "zeromq")
    more["env"] = {"TEST_END": end}
    command = tuple(script("sockets", what, *arguments))
    return processor(name, command, bridge="zeromq", end=end, codec=codec, **more)


def through(tmp_path: Path, middle: Processor, count: int = 500, size: int = 20, **more: Any) -> Ran:
    """So many messages through `middle` into a file."""
    return execute(
        pipeline(
            processor("s", tuple(source(count, size=size)), writes="a"),
            middle,
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        ),
        **more,
    )


def numbers(tmp_path: Path) -> list[int]:
    file = tmp_path / "out"
    return [int(line[:10]) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("end", ENDS)
def test_all_arrives_in_order_and_the_end_is_told(tmp_path: Path, end: Literal["empty", "signal"]) -> None:
    ran = through(tmp_path, speaks("echo", end=end), count=5000)
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 5001))
    assert ran.account("a", "m").acknowledged == 5000
    assert ran.cause("m") == ("exit 0" if end == "empty" else "stopped (exit 0)")
    assert "its input has ended" in ran.happened.causes("m")


def test_who_is_told_its_end_by_a_signal_may_wait_for_its_readers(tmp_path: Path) -> None:
    """Longer than the grace period, which is for whoever does nothing any more."""
    go = tmp_path / "go"

    async def steps(happened: Happened) -> None:
        await happened.until(lambda: "stopping" in happened.states("m"))
        await asyncio.sleep(1.0)  # several grace periods
        go.touch()

    ran = execute(
        pipeline(
            processor("s", tuple(source(1500, size=1000)), writes="a"),  # which its queues can hold
            speaks("echo", end="signal", stop=StopPolicy(grace_s=0.3)),
            processor("t", sh(f"until test -e {go}; do sleep 0.05; done; cut -c 1-10 > {tmp_path / 'out'}"), reads="b"),
            channels={"b": {"capacity_bytes": 100_000}},
        ),
        steps,
    )
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 1501))
    assert ran.account("a", "m").acknowledged == 1500


def test_messages_of_every_length(tmp_path: Path) -> None:
    payloads = [b"x" * size for size in (1, 254, 255, 256, 257, 65_535, 65_536, 3 * MIB)]
    (tmp_path / "in").write_bytes(b"".join(payload + b"\n" for payload in payloads))
    ran = execute(
        pipeline(
            processor("s", ("cat", str(tmp_path / "in")), writes="a"),
            speaks("echo", in_flight=InFlight(1000)),
            processor("t", sh(f"cat > {tmp_path / 'out'}"), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_from_socket_to_socket_and_named_ports(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            speaks("numbers", 100, 20, name="s", reads=None, writes="a"),
            speaks("numbers", 100, 20, name="s2", reads=None, writes="a2"),
            speaks("ports", reads={"stdin": "a", "more": "a2"}, writes={"odd": "b", "even": "c"}),
            speaks("store", tmp_path / "odd", name="t", reads="b", writes=None),
            speaks("store", tmp_path / "even", name="u", reads="c", writes=None, end="signal"),
        )
    )
    assert ran.report.status == "completed"
    for name, rest in (("odd", 1), ("even", 0)):
        found = [line.split() for line in (tmp_path / name).read_text().splitlines()]
        due = [number for number in range(1, 101) if number % 2 == rest]
        assert [int(number[:10]) for port, number in found if port == "STDIN"] == due
        assert [int(number[:10]) for port, number in found if port == "MORE"] == due


def test_a_death_costs_what_was_sent_and_nothing_else(tmp_path: Path) -> None:
    """Killed again and again: each message came out once at most, and the account says how many did not."""
    ran = through(
        tmp_path, speaks("echo", 300, tmp_path / "died", in_flight=InFlight(2000)), count=30_000, deadline_s=60
    )
    assert ran.report.status == "completed"
    found = numbers(tmp_path)
    assert found == sorted(set(found)), "none doubled, none out of order"
    account = ran.account("a", "m")
    assert account.unread == 0
    assert (account.acknowledged or 0) + (account.indeterminate or 0) == 30_000
    lost = 30_000 - len(found)
    assert 0 <= lost <= (account.indeterminate or 0) <= 30_000 - 100, "whoever came next was given the rest"
    assert ran.report.processors["m"].restarts == 1


def test_what_was_never_sent_is_unread(tmp_path: Path) -> None:
    """It never connects: nothing leaves the channel, and nothing is indeterminate."""

    async def steps(happened: Happened) -> None:
        await happened.until(lambda: "exited" in happened.states("s"))
        happened.run.stop("enough")
        happened.run.kill()

    ran = through(tmp_path, speaks("never-connects"), count=50, steps=steps)
    account = ran.account("a", "m")
    assert (account.acknowledged, account.indeterminate, account.unread) == (0, 0, 50)


def test_a_program_that_never_reads_holds_up_its_writer_within_bounds(tmp_path: Path) -> None:
    async def steps(happened: Happened) -> None:
        await happened.until(lambda: happened.run.processors["m"].read)
        await happened.until(lambda: happened.run.processors["s"].row().waiting is not None)
        assert happened.run.processors["m"].read < 5 * MIB // 1000
        happened.run.kill()

    middle = speaks("never-reads", in_flight=InFlight(100_000))
    ran = through(tmp_path, middle, count=100_000, size=1000, steps=steps)
    account = ran.account("a", "m")
    assert 0 < (account.indeterminate or 0) < 5 * MIB // 1000
    assert account.unread


def test_a_full_channel_holds_up_the_program(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def steps(happened: Happened) -> None:
        await happened.until(lambda: happened.run.processors["m"].row().waiting is not None)
        go.touch()

    ran = execute(
        pipeline(
            speaks("numbers", 20_000, 1000, name="m", reads=None, writes="b"),
            processor("t", sh(f"until test -e {go}; do sleep 0.05; done; cut -c 1-10 > {tmp_path / 'out'}"), reads="b"),
            channels={"b": {"capacity_bytes": 100_000}},
        ),
        steps,
    )
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 20_001))


def test_what_a_dead_source_had_sent_is_all_there(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            speaks("numbers", 1000, 20, "die", name="s", reads=None, writes="b"),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "failed"
    assert numbers(tmp_path) == list(range(1, 1001))


def test_a_source_that_writes_the_same_again(tmp_path: Path) -> None:
    once = tmp_path / "once"
    twice = f"test -e {once} && exec $0 numbers 500 20; touch {once}; exec $0 numbers 200 20 die"
    command = ("sh", "-c", twice.replace("$0", " ".join(script("sockets"))))
    ran = execute(
        pipeline(
            processor("s", command, writes="b", bridge="zeromq", codec="zeromq", resume=Resume.SKIP),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 501))


def test_several_parts_are_refused(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            speaks("numbers", 10, 20, "multipart", name="s", reads=None, writes="b"),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "failed"
    assert "message 11 on `stdout`: a message of several parts" in ran.cause("s")
    assert numbers(tmp_path) == list(range(1, 11)), "what came before it is good"


def test_a_message_over_the_bound_is_refused_before_it_is_read(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            speaks("numbers", 10, 2000, name="s", reads=None, writes="b", max_message_bytes=1000),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "failed"
    assert "a message of 2,000 bytes is longer than max_message" in ran.cause("s")


def test_an_empty_message_is_no_end_for_whoever_ends_by_a_signal(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            speaks("numbers", 3, 10, "empty", name="s", reads=None, writes="a"),
            speaks("echo", end="signal"),
            processor("t", sh(f"cat > {tmp_path / 'out'}"), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert (tmp_path / "out").read_text() == "0000000001\n0000000002\n0000000003\n\n"


def test_an_empty_message_cannot_be_sent_to_whoever_ends_by_one(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            speaks("numbers", 3, 10, "empty", name="s", reads=None, writes="a"),
            speaks("echo", end="empty"),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "failed"
    assert 'end = "empty"' in ran.cause("s")


def test_readers_may_leave(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", tuple(source(None, size=20)), writes="a", stop=StopPolicy(grace_s=0.2)),
            speaks("echo", end="signal", stop=StopPolicy(grace_s=0.3)),
            speaks("head", 5, name="t", reads="b", writes=None),
            channels={"b": {"capacity_bytes": 1000}},
        )
    )
    assert ran.report.status == "completed"
    assert ran.cause("m").startswith("readers left")
    assert ran.cause("s").startswith("readers left")


def test_sockets_come_and_go_one_at_a_time(tmp_path: Path) -> None:
    ran = through(tmp_path, speaks("reconnects"), count=200)
    assert ran.report.status == "completed"
    assert sorted(numbers(tmp_path)) == list(range(1, 201))


def test_a_second_socket_waits_and_the_log_says_so(tmp_path: Path) -> None:
    ran = through(tmp_path, speaks("second"), count=200)
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 201))
    assert "zeromq: stdin: another socket wants to connect, and waits: there is one at a time" in ran.happened.logged()


def test_a_socket_of_the_wrong_type_is_refused_and_the_log_says_so(tmp_path: Path) -> None:
    ran = through(tmp_path, speaks("wrong-type"), count=50)
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == list(range(1, 51))
    said = [line for line in ran.happened.logged() if "a connection was refused" in line]
    assert any("its socket is of type 'SUB', and PULL is due here" in line for line in said)


def test_heartbeats_of_the_library_are_answered(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", sh("for i in 1 2 3; do printf '%010d\\n' $i; sleep 0.7; done"), writes="a"),
            speaks("heartbeats"),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == [1, 2, 3]
    assert "hung up" not in ran.happened.logged()


def test_replicas_share_and_each_is_told_its_end(tmp_path: Path) -> None:
    ran = through(tmp_path, speaks("echo", replicas=3, end="signal"), count=3000)
    assert ran.report.status == "completed"
    assert sorted(numbers(tmp_path)) == list(range(1, 3001))
    exits = [(item.exit.code, item.exit.signal) for item in ran.report.processors["m"].instances]
    assert len(exits) == 3
    assert set(exits) <= {(0, None), (None, 15)}, "who came too late for any message may have no handler yet"
    assert ran.account("a", "m").acknowledged == 3000


def test_what_a_program_holds_that_the_stop_signal_ends_is_indeterminate(tmp_path: Path) -> None:
    """It should have seen to the signal before it had a socket; nobody can know what was in its queue."""
    ran = through(tmp_path, speaks("careless", end="signal"), count=300)
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == []
    account = ran.account("a", "m")
    assert (account.acknowledged, account.indeterminate) == (0, 300)


def test_no_input_at_all_is_an_end_too(tmp_path: Path) -> None:
    for end in ENDS:
        ran = execute(
            pipeline(
                processor("s", ("true",), writes="a"),
                speaks("echo", end=end),
                processor("t", tuple(sink(tmp_path / "out")), reads="b"),
            )
        )
        assert ran.report.status == "completed"
    ran = execute(
        pipeline(
            processor("s", ("true",), writes="a"),
            speaks("never-connects", end="signal"),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert ran.report.status == "completed"
    assert ran.cause("m") == "stopped (killed by SIGTERM)"
