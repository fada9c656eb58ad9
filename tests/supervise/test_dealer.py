"""Contract `acknowledged` over a DEALER socket, from inside: the same sessions as over stdio, on another wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.bridge.heartbeat import Beat
from runner.bridge.zeromq import dealer
from runner.spec.model import Contract, InFlight, Processor, RestartPolicy, Resume, StopPolicy
from runner.supervise import sessions
from runner.units import Rate
from tests.children.build import script, sink, source
from tests.supervise.running import AT_ONCE, Happened, execute, pipeline, processor, python, through

FEW = RestartPolicy(backoff=AT_ONCE, limit=Rate(2, 60.0))


def client(what: str, *arguments: object, name: str = "m", **more: Any) -> Processor:
    more.setdefault("reads", "a")
    more.setdefault("writes", "b")
    command = tuple(script("acknowledges", what, *arguments))
    return processor(name, command, contract=Contract.ACKNOWLEDGED, bridge="zeromq", **more)


def numbers(tmp_path: Path) -> list[int]:
    file = tmp_path / "out"
    return [int(line[:10]) for line in file.read_text().splitlines()] if file.exists() else []


def test_deaths_lose_and_double_nothing(tmp_path: Path) -> None:
    ran = through(tmp_path, client("echo", 2, 60))
    assert ran.report.status == "completed"
    assert numbers(tmp_path) == [number for number in range(1, 501) for _ in range(2)]
    assert ran.report.processors["m"].restarts >= 8
    assert ran.account("a", "m").acknowledged == 500
    assert ran.cause("m") == "done (exit 0)"


def test_replicas_have_an_endpoint_each(tmp_path: Path) -> None:
    ran = through(tmp_path, client("echo", 1, 100, replicas=2), count=600)
    assert sorted(numbers(tmp_path)) == list(range(1, 601))
    assert ran.account("a", "m").acknowledged == 600


def test_the_state_belongs_to_what_is_committed(tmp_path: Path) -> None:
    through(tmp_path, client("sums", 30, in_flight=InFlight(messages=7)), count=100)
    sums = [sum(range(1, number + 1)) for number in range(1, 101)]
    assert (tmp_path / "out").read_text().splitlines() == [*map(str, sums), f"total {sums[-1]}"]


def test_nacks_and_named_ports(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", tuple(source(100, size=20)), writes="a"),
            processor("s2", tuple(source(100, size=20)), writes="a2"),
            client("nacks", 10, 2, 5, name="n", writes="b"),
            client("ports", name="p", reads={"stdin": "b", "more": "a2"}, writes={"odd": "c", "even": "d"}),
            processor("t", tuple(sink(tmp_path / "odd")), reads="c"),
            processor("u", tuple(sink(tmp_path / "even")), reads="d"),
        )
    )
    assert ran.report.status == "completed"
    for name, rest in (("odd", 1), ("even", 0)):
        found = [line.split() for line in (tmp_path / name).read_text().splitlines()]
        for port in ("stdin", "more"):
            due = [number for number in range(1, 101) if number % 2 == rest]
            assert sorted(int(number) for each, number, *_ in found if each == port) == due
    assert ran.account("b", "p").acknowledged == 100


def test_a_long_state_comes_as_a_file(tmp_path: Path) -> None:
    ran = through(tmp_path, client("large-state", 3_000_000, tmp_path), count=3)
    given = [line for line in ran.happened.logged() if line.startswith("given")]
    assert given == ["given state=none 0 True", "given state=file 3000000 True"]


def test_a_source_goes_on_from_its_state(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            client("source", 300, 95, name="s", reads=None, writes="b", resume=Resume.SELF),
            processor("t", tuple(sink(tmp_path / "out")), reads="b"),
        )
    )
    assert numbers(tmp_path) == list(range(1, 301))
    assert ran.cause("s").startswith("done")


def test_garbage_names_the_frame_and_the_message(tmp_path: Path) -> None:
    ran = through(tmp_path, client("garbage", 7), count=50)
    assert ran.report.status == "failed"
    cause = ran.cause("m")
    assert "unknown-kind" in cause
    assert "message 8 of channel `a`" in cause
    assert ran.report.processors["m"].restarts == 0
    assert numbers(tmp_path) == list(range(1, 8)), "what was acknowledged before it counts"


def test_a_program_that_never_connects_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.supervise.attempt.READY_WITHIN_S", 0.3)
    ran = through(tmp_path, client("never-ready", restart=FEW), count=10)
    assert ran.cause("m").startswith("not ready within 0.3s: no `ready` frame came")
    assert ran.report.processors["m"].restarts == 2


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


HANGS_UP = """
import os, time, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(os.environ["CONNECTOR_ENDPOINT"])
socket.send(b"ready 0 1")
socket.recv_multipart()
socket.recv_multipart()
socket.close()
time.sleep(3600)
"""


def test_a_program_that_hangs_up_in_the_middle_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealer, "GONE_AFTER_S", 0.1)
    command = (python("")[0], "-c", HANGS_UP)
    middle = processor(
        "m", command, reads="a", writes="b", contract=Contract.ACKNOWLEDGED, bridge="zeromq", restart=FEW
    )
    ran = through(tmp_path, middle, count=10)
    assert ran.report.status == "failed"
    assert "closed its socket before its `end`" in ran.cause("m")
    assert ran.account("a", "m").unread == 10


def test_a_program_may_leave_or_linger(tmp_path: Path) -> None:
    ran = through(tmp_path, client("leaves", 10), count=100)
    assert ran.report.status == "completed"
    account = ran.account("a", "m")
    assert (account.acknowledged, account.unread) == (10, 90)
    ran = through(tmp_path, client("lingers", stop=StopPolicy(grace_s=0.2)), count=10)
    assert ran.report.status == "completed"
    assert ran.report.processors["m"].restarts == 0


def test_whoever_writes_to_nobody_is_ended(tmp_path: Path) -> None:
    ran = execute(
        pipeline(
            processor("s", tuple(source(5000, size=20)), writes="a"),
            client("echo"),
            processor("t", ("head", "-n", "5"), reads="b"),
            channels={"b": {"capacity_bytes": 1000}},
        )
    )
    assert ran.report.status == "completed"
    assert ran.cause("m").startswith("readers left")


def test_a_stop_splits_no_message_from_its_outputs(tmp_path: Path) -> None:
    async def steps(happened: Happened) -> None:
        await happened.until(lambda: happened.run.processors["m"].written > 20)
        happened.run.stop("enough")

    ran = through(tmp_path, client("slow", 0.001), count=20_000, steps=steps, drain_s=1.0)
    assert ran.report.status == "stopped"
    found = numbers(tmp_path)
    assert found == list(range(1, len(found) + 1))
    account = ran.account("a", "m")
    assert 20 < (account.acknowledged or 0) == ran.report.channels["b"].written
