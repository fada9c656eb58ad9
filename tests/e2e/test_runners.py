"""A pipeline over several runners, as a user sees it: each part a command of its own, or all of them one."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.addresses import free_port
from tests.certificates import authority, curve_keys
from tests.children.build import sink, source
from tests.e2e.connector import Connector, Result, Running, steady, until, wait_gone
from tests.e2e.test_run import sent
from tests.nats_server import NatsServer

KINDS = ("tcp", "websocket", "zeromq", "nats")
COUNT = 20_000
PATIENCE_S = 60.0
"""Two runners and their programs take long to start where much else runs."""


def two(
    tmp_path: Path, kind: str = "tcp", *, count: int = COUNT, slow: bool = False, held: bool = False, **channel: Any
) -> dict[str, Any]:
    """A source and a `cat` that answers at the runner `edge`, a sink at the runner `store`.

    `held`: the source writes the second half when there is a file `go`, so no part can end before that.
    """
    hold = ("--hold", count // 2, tmp_path / "go") if held else ()
    place: dict[str, Any] = {} if "url" in channel else {"address": f"127.0.0.1:{free_port()}"}
    return {
        "name": "two",
        "runners": {"edge": {}, "store": {}},
        "processors": {
            "source": {"command": source(count, *hold), "writes": "raw", "runner": "edge", "resume": "skip"},
            "middle": {
                "command": ["cat"],
                "contract": "one-to-one",
                "reads": "raw",
                "writes": "far",
                "runner": "edge",
                **({"in_flight": {"messages": 50}} if slow else {}),
            },
            "sink": {
                "command": sink(tmp_path / "out", "--ack"),
                "contract": "one-to-one",
                "reads": "far",
                "runner": "store",
                **({"in_flight": {"messages": 50}} if slow else {}),
            },
        },
        "channels": {"far": {"kind": kind, **place, **channel}},
    }


@contextlib.contextmanager
def parts(tmp_path: Path, pipeline: dict[str, Any], *order: str) -> Iterator[dict[str, Running]]:
    """Each runner in a folder of its own, started in this order."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(begin(tmp_path, pipeline, name)) for name in order}


def begin(tmp_path: Path, pipeline: dict[str, Any], runner: str, *options: str) -> Running:
    (tmp_path / runner).mkdir(exist_ok=True)
    return Connector(tmp_path / runner).start(pipeline, "--runner", runner, *options)


def agreed(edge: Result, store: Result, count: int = COUNT) -> None:
    """Both ledgers, about the channel between them."""
    assert edge.completed()["runner"] == "edge"
    assert store.completed()["runner"] == "store"
    assert edge.account("far", "runner store") == {"written": count, "acknowledged": count}
    assert store.account("far", "sink") == {"written": count, "acknowledged": count}


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the channel needs to be told, of a server that is there."""
    if kind != "nats":
        return {}
    server: NatsServer = request.getfixturevalue("nats_server")
    return {"url": server.url}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [("edge", "store"), ("store", "edge")])
@pytest.mark.parametrize("listen", ["reader", "writer"])
def test_both_end_by_themselves_and_agree(
    kind: str, order: tuple[str, str], listen: str, tmp_path: Path, place: dict[str, Any]
) -> None:
    if kind == "nats" and listen == "writer":
        pytest.skip("nobody listens but the server")
    how = place or {"listen": listen}
    with parts(tmp_path, two(tmp_path, kind, **how), *order) as running:
        agreed(running["edge"].finish(), running["store"].finish())
    assert (tmp_path / "out").read_bytes() == sent(COUNT)


@pytest.mark.parametrize("kind", ["tcp", "websocket", "zeromq"])
def test_what_is_protected(kind: str, tmp_path: Path) -> None:
    made = authority(tmp_path)
    tls = {"cert": str(made.server.cert), "key": str(made.server.key), "ca": str(made.client.ca)}
    how: dict[str, Any] = {"keys": str(curve_keys(tmp_path))} if kind == "zeromq" else {"tls": tls}
    with parts(tmp_path, two(tmp_path, kind, **how), "edge", "store") as running:
        agreed(running["edge"].finish(), running["store"].finish())
    assert (tmp_path / "out").read_bytes() == sent(COUNT)


def test_one_command_runs_all(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(two(tmp_path))
    assert result.code == 0, str(result)
    assert (tmp_path / "out").read_bytes() == sent(COUNT)
    reports = [json.loads((connector.folder / f"report.{name}.json").read_text()) for name in ("edge", "store")]
    assert [(each["status"], each["balanced"]) for each in reports] == [("completed", True)] * 2
    assert "edge  | " in result.stderr
    assert "store | " in result.stderr


def test_who_is_missing_is_said(tmp_path: Path) -> None:
    pipeline = two(tmp_path)
    with parts(tmp_path, pipeline, "edge") as running:
        until(
            lambda: "runner `store` is not there: connection refused" in running["edge"].output(),
            "the cause",
            PATIENCE_S,
        )
        with begin(tmp_path, pipeline, "store") as store:
            agreed(running["edge"].finish(), store.finish())
        assert "runner `store` is there" in running["edge"].output()


@pytest.mark.parametrize("listen", ["reader", "writer"])
def test_readers_near_and_far_get_all_of_it(listen: str, tmp_path: Path) -> None:
    """Each runner has a host of its own: who connects has to go to the other's."""
    pipeline = two(tmp_path, address=f":{free_port()}", listen=listen)
    pipeline["runners"] = {"edge": {"host": "127.0.0.2"}, "store": {"host": "127.0.0.3"}}
    near = {"command": sink(tmp_path / "near"), "reads": "far", "runner": "edge"}
    pipeline["processors"] = {"near": near, **pipeline["processors"]}
    with parts(tmp_path, pipeline, "edge", "store") as running:
        agreed(running["edge"].finish(), running["store"].finish())
    for name in ("near", "out"):
        assert (tmp_path / name).read_bytes() == sent(COUNT)


@pytest.mark.parametrize("part", ["edge", "store"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_that_is_killed_goes_on_with_its_state(
    part: str, kind: str, tmp_path: Path, place: dict[str, Any]
) -> None:
    pipeline = two(tmp_path, kind, slow=True, held=True, durability="process", **place)
    pipeline["channels"]["raw"] = {"kind": "durable", "durability": "process"}
    out = tmp_path / "out"
    with parts(tmp_path, pipeline, "edge", "store") as running:
        until(lambda: out.exists() and out.stat().st_size > 2000, "something to arrive", PATIENCE_S)
        running[part].process.kill()
        running[part].process.wait()
        (tmp_path / "go").touch()
        with begin(tmp_path, pipeline, part) as again:
            ended = {**running, part: again}
            edge, store = ended["edge"].finish(), ended["store"].finish()
    edge.completed()
    store.completed()
    numbers = [int(line[:10]) for line in out.read_text().splitlines()]
    assert sorted(set(numbers)) == list(range(1, COUNT + 1)), "nothing is lost"
    if part == "edge":
        assert out.read_bytes() == sent(COUNT), "and nothing doubled"
    else:
        assert len(numbers) - COUNT < 2000, "a sink that dies with its runner gets again what was not on record"
    assert edge.channel("far")["readers"]["runner store"]["indeterminate"] == 0
    assert store.channel("far")["readers"]["sink"]["indeterminate"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_that_is_killed_when_the_other_has_all_waits_for_nobody(
    kind: str, tmp_path: Path, place: dict[str, Any]
) -> None:
    pipeline = two(tmp_path, kind, count=500, durability="process", **place)
    pipeline["processors"] |= {
        "other": {"command": source(10, "--hold", 5, tmp_path / "go"), "writes": "own", "runner": "edge"},
        "own-sink": {"command": sink(tmp_path / "own"), "reads": "own", "runner": "edge"},
    }
    pipeline["processors"]["other"]["resume"] = "skip"
    pipeline["channels"] |= {name: {"kind": "durable", "durability": "process"} for name in ("raw", "own")}
    with parts(tmp_path, pipeline, "edge", "store") as running:
        running["store"].finish().completed()
        running["edge"].process.kill()
        running["edge"].process.wait()
        (tmp_path / "go").touch()
        with begin(tmp_path, pipeline, "edge") as again:
            edge = again.finish()
    edge.completed()
    assert (tmp_path / "out").read_bytes() == sent(500)
    assert edge.channel("far")["readers"]["runner store"]["unread"] == 0


def test_a_part_is_stopped_and_started_again_while_the_other_goes_on(tmp_path: Path) -> None:
    pipeline = two(tmp_path, slow=True, held=True, durability="process")
    out = tmp_path / "out"
    with parts(tmp_path, pipeline, "edge", "store") as running:
        until(lambda: out.exists() and out.stat().st_size > 2000, "something to arrive", PATIENCE_S)
        running["store"].signal(signal.SIGTERM)
        stopped = running["store"].finish()
        assert stopped.code == 143, str(stopped)
        until(lambda: "runner `store` is not there" in running["edge"].output(), "the cause", PATIENCE_S)
        assert running["edge"].process.poll() is None
        (tmp_path / "go").touch()
        with begin(tmp_path, pipeline, "store") as again:
            edge, store = running["edge"].finish(), again.finish()
    edge.completed()
    store.completed()
    assert out.read_bytes() == sent(COUNT)


def test_readers_that_leave_let_the_other_runner_end(tmp_path: Path) -> None:
    pipeline = two(tmp_path)
    pipeline["processors"]["sink"] = {"command": ["head", "-n", "5"], "reads": "far", "runner": "store"}
    with parts(tmp_path, pipeline, "edge", "store") as running:
        running["edge"].finish().completed()
        running["store"].finish().completed()


def test_a_part_that_fails_stops_the_others(connector: Connector, tmp_path: Path) -> None:
    pipeline = two(tmp_path, slow=True)
    pipeline["processors"]["sink"]["command"] = ["sh", "-c", "exit 3"]
    pipeline["processors"]["sink"]["restart"] = "never"
    result = connector.run(pipeline)
    assert result.code == 1, str(result)
    assert "its runner ended with exit code 1: the others are stopped" in result.stderr


def test_a_signal_stops_all_in_order(connector: Connector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with connector.start(two(tmp_path, slow=True, count=10_000_000)) as running:
        until(lambda: out.exists() and out.stat().st_size > 2000, "something to arrive", PATIENCE_S)
        running.signal(signal.SIGTERM)
        result = running.finish()
    assert result.code == 143, str(result)
    result.expect_no_traceback()


def test_nothing_is_left_of_one_command_that_is_killed(connector: Connector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with connector.start(two(tmp_path, slow=True, count=10_000_000)) as running:
        until(lambda: out.exists() and out.stat().st_size > 2000, "something to arrive", PATIENCE_S)
        family = running.family()
        assert len(family) > 4
        running.process.kill()
        running.process.wait()
        until(lambda: not running.marked(), "all of it to be gone", 5.0)
        assert wait_gone([each.pid for each in family], 5.0) == []


def test_check_says_who_has_what(connector: Connector, tmp_path: Path) -> None:
    connector.write(two(tmp_path))
    result = connector.command("check")
    assert result.code == 0
    assert "runner edge: source, middle\n" in result.stdout
    assert "runner store: sink; listens for far at 127.0.0.1:" in result.stdout
    shown = json.loads(connector.command("check", "--format", "json").stdout)["runners"]
    assert list(shown) == ["edge", "store"]
    assert shown["edge"] == {"host": None, "processors": ["source", "middle"], "listens": {}}
    assert list(shown["store"]["listens"]) == ["far"]


def test_a_runner_that_is_not_there(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(two(tmp_path), "--runner", "stroe")
    assert result.code == 1
    assert "the pipeline has no runner `stroe`" in result.stderr


def test_readers_that_wait_use_nothing(tmp_path: Path) -> None:
    """A runner that waits for the other does not spin."""
    with parts(tmp_path, two(tmp_path), "store") as running:
        process = psutil.Process(running["store"].pid)
        until(lambda: "is not there" in running["store"].output(), "it to wait")
        steady(lambda: int(sum(process.cpu_times()[:2]) * 20), "it to be idle", 0.5)
