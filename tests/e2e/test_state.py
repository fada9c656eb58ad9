"""Durable channels as a user sees them: a run that goes on, its state, and `connector state`."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner import Pipeline
from tests.children.build import misbehave, sink, source
from tests.e2e.connector import Connector, Result, Running, chain, steady, until
from tests.e2e.disks import on_small_disk
from tests.e2e.test_run import sent

DURABLE = {"kind": "durable", "durability": "process"}
ANSWERS = {"command": ["cat"], "contract": "one-to-one"}


def durable(channels: tuple[str, ...] = ("c1", "c2"), /, **processors: Any) -> dict[str, Any]:
    """A chain over durable channels."""
    return chain(dict.fromkeys(channels, DURABLE), **processors)


def state(tmp_path: Path) -> Path:
    return tmp_path / ".connector" / "test"


def held(tmp_path: Path, count: int, **more: Any) -> dict[str, Any]:
    """A pipeline that stores so many messages and hands out none, until the file `go` is there."""
    waiting = {"command": sink(tmp_path / "out", "--ack", "--until", tmp_path / "go"), "contract": "one-to-one"}
    return durable(("c1",), source={"command": source(count), **more}, sink=waiting | {"in_flight": {"messages": 1}})


def cut_short(connector: Connector, pipeline: dict[str, Any], tmp_path: Path, *options: str) -> None:
    """Start it, wait until all that the source wrote is stored, kill the runner."""
    with connector.start(pipeline, "--log-format", "json", *options) as running:
        ended = '"processor":"source","replica":1,"attempt":1,"old":"running","new":"exited"'
        until(lambda: ended in running.output(), f"the source to end:\n{running.output()}")
        data = (state(tmp_path) if not options else Path(options[1])) / "data.mdb"
        steady(lambda: data.stat().st_mtime_ns, "the store to have it all", 0.2)
        running.process.kill()
        running.process.wait()


def told(connector: Connector, *arguments: str, code: int = 0) -> Result:
    result = connector.command("state", *arguments)
    assert result.code == code, str(result)
    result.expect_no_traceback()
    return result


# -- the run


def test_a_completed_run_leaves_nothing(connector: Connector, tmp_path: Path) -> None:
    pipeline = durable(source=source(1000), middle=ANSWERS, sink=sink(tmp_path / "out"))
    for runs in (1, 2):
        result = connector.run(pipeline)
        result.completed()
        assert (tmp_path / "out").read_bytes() == sent(1000) * runs
        assert result.account("c2", "sink") == {"written": 1000, "acknowledged": 1000}
    shown = json.loads(told(connector, "show", "--format", "json").stdout)
    assert [(each["last"], each["readers"]) for each in shown["channels"].values()] == [(0, {}), (0, {})]


def test_no_state_where_nothing_is_durable(connector: Connector, tmp_path: Path) -> None:
    connector.run(chain(source=source(10), sink=sink(tmp_path / "out"))).completed()
    assert not (tmp_path / ".connector").exists()
    assert "there is no state here" in told(connector, "show", code=3).stderr


def test_a_killed_run_goes_on(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 1000)
    cut_short(connector, pipeline, tmp_path)
    (tmp_path / "go").touch()
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "out").read_bytes() == sent(1000)
    assert result.account("c1", "sink") == {"written": 0, "carried": 1000, "acknowledged": 1000}
    assert result.processor("source")["instances"] == [], "it had ended"
    assert result.processor("source")["cause"] == "it had ended before the run was cut short"


def test_a_stopped_run_goes_on(connector: Connector, tmp_path: Path) -> None:
    writing = {"command": source(None, "--rate", 2000, "--start", "written", "--graceful"), "resume": "self"}
    pipeline = durable(source=writing, middle=ANSWERS, sink=sink(tmp_path / "out"))
    came = 0
    for stops in range(3):
        with connector.start(pipeline) as running:
            until(partial(_more_than, tmp_path / "out", came + 100), "messages")
            running.signal(signal.SIGTERM)
            result = running.finish()
        result.expect(143, "stopped")
        came = _lines(tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == sent(came), f"stop {stops}"


def test_a_failed_run_goes_on(connector: Connector, tmp_path: Path) -> None:
    failing = {"command": misbehave("says-and-exits", 4, "no luck"), "restart": "never", "contract": "one-to-one"}
    result = connector.run(durable(("c1",), source={"command": source(1000), "resume": "skip"}, sink=failing))
    result.failed()
    mended = {"command": sink(tmp_path / "out", "--ack"), "contract": "one-to-one"}
    result = connector.run(durable(("c1",), source={"command": source(1000), "resume": "skip"}, sink=mended))
    result.completed()
    assert (tmp_path / "out").read_bytes() == sent(1000)
    account = result.account("c1", "sink")
    assert account["acknowledged"] == 1000
    assert account["written"] + account.get("carried", 0) == 1000


def test_a_reader_that_failed_for_good_does_not_hold_up_the_end(connector: Connector, tmp_path: Path) -> None:
    small = {**DURABLE, "capacity": "64KiB"}
    failing = {"command": misbehave("says-and-exits", 4, "no luck"), "restart": "never", "contract": "one-to-one"}
    writing = {"command": source(None), "resume": "skip"}
    result = connector.run(chain({"c1": small, "c2": small}, source=writing, middle=ANSWERS, sink=failing), limit_s=25)
    result.failed()


def test_a_reader_that_left_does_not_come_back(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 1000)
    pipeline["processors"]["head"] = {"command": ["sh", "-c", f"head -n 5 >> {tmp_path}/head"], "reads": "c1"}
    with connector.start(pipeline, "--log-format", "json") as running:
        left = '"processor":"head","replica":1,"attempt":1,"old":"running","new":"exited"'
        until(lambda: left in running.output() or '"draining","new":"exited"' in running.output(), "head to leave")
        steady(lambda: (state(tmp_path) / "data.mdb").stat().st_mtime_ns, "the store to have it", 0.2)
        running.process.kill()
        running.process.wait()
    (tmp_path / "go").touch()
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "head").read_bytes() == sent(5)
    assert result.processor("head")["instances"] == []
    assert (tmp_path / "out").read_bytes() == sent(1000)


def test_a_source_that_nobody_can_go_on_with_is_refused(connector: Connector, tmp_path: Path) -> None:
    pipeline = durable(("c1",), source=source(None, "--rate", 1000), sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running:
        until(lambda: _lines(tmp_path / "out") > 100, "messages")
        running.process.kill()
        running.process.wait()
    refused = connector.run(pipeline)
    assert refused.code == 1, str(refused)
    refused.expect_no_traceback()
    for word in ("source", 'resume = "none"', "--fresh", '"skip"'):
        assert word in refused.stderr
    pipeline["processors"]["source"]["command"] = source(1000)
    (tmp_path / "out").unlink()
    connector.run(pipeline, "--fresh").completed()
    assert (tmp_path / "out").read_bytes() == sent(1000)


def test_a_program_that_writes_nothing_begins_anew(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 300)
    pipeline["processors"]["beside"] = {"command": ["true"]}
    cut_short(connector, pipeline, tmp_path)
    (tmp_path / "go").touch()
    connector.run(pipeline).completed()


def test_fresh_starts_over(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 1000)
    cut_short(connector, pipeline, tmp_path)
    (tmp_path / "go").touch()
    pipeline["processors"]["source"]["command"] = source(10)
    result = connector.run(pipeline, "--fresh")
    result.completed()
    assert (tmp_path / "out").read_bytes() == sent(10)
    assert result.account("c1", "sink") == {"written": 10, "acknowledged": 10}


def test_state_dir(connector: Connector, tmp_path: Path) -> None:
    pipeline, elsewhere = held(tmp_path, 1000), tmp_path / "else" / "where"
    cut_short(connector, pipeline, tmp_path, "--state-dir", str(elsewhere))
    assert not (tmp_path / ".connector").exists()
    assert "1,000 messages stored" in told(connector, "show", "--state-dir", str(elsewhere)).stdout
    (tmp_path / "go").touch()
    result = connector.run(pipeline, "--state-dir", str(elsewhere))
    result.completed()
    assert result.account("c1", "sink")["carried"] == 1000


def test_a_second_runner_is_refused(connector: Connector, tmp_path: Path) -> None:
    with connector.start(held(tmp_path, 10)) as running:
        until((state(tmp_path) / "version").exists, "the state")
        second = Connector(tmp_path).command("run", str(tmp_path / "pipeline.toml"), "--quiet")
        assert second.code == 3, str(second)
        second.expect_no_traceback()
        assert f"process {running.pid}" in second.stderr
        assert "--state-dir" in second.stderr
        assert f"process {running.pid}" in told(connector, "show", code=3).stderr
        (tmp_path / "go").touch()
        running.finish()
    assert (tmp_path / "out").read_bytes() == sent(10)


def test_a_pipeline_in_python(tmp_path: Path) -> None:
    pipeline = held(tmp_path, 100)
    (tmp_path / "go").touch()
    made = Pipeline(name="python", processors=pipeline["processors"], channels=pipeline["channels"], folder=tmp_path)
    report = made.run(state_dir=tmp_path / "state")
    assert (report.status, report.balanced) == ("completed", True)
    assert (tmp_path / "state" / "version").exists()
    assert asyncio.run(made.execute(fresh=True)).status == "completed"
    assert (tmp_path / ".connector" / "python" / "version").exists()


# -- a changed pipeline


def test_a_reader_more_gets_what_is_stored(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 1000)
    cut_short(connector, pipeline, tmp_path)
    (tmp_path / "go").touch()
    pipeline["processors"]["more"] = {"command": sink(tmp_path / "more"), "reads": "c1"}
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "more").read_bytes() == (tmp_path / "out").read_bytes() == sent(1000)
    assert result.account("c1", "more") == {"written": 0, "carried": 1000, "acknowledged": 1000}


def test_a_reader_less_is_refused_while_messages_wait(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 1000)
    cut_short(connector, pipeline, tmp_path)
    other = json.loads(json.dumps(pipeline))
    other["processors"]["another"] = other["processors"].pop("sink")
    renamed = json.loads(json.dumps(pipeline).replace('"c1"', '"c9"'))
    memory = json.loads(json.dumps(pipeline))
    memory["channels"]["c1"] = {}
    memory["channels"]["c2"] = DURABLE
    memory["processors"]["sink"]["writes"] = "c2"
    memory["processors"]["last"] = {"command": ["cat"], "reads": "c2"}
    for changed in (other, renamed, memory):
        refused = connector.run(changed)
        assert refused.code == 1, str(refused)
        refused.expect_no_traceback()
        assert "1,000 messages of channel `c1` for `sink`" in refused.stderr
        assert "--fresh" in refused.stderr
    (tmp_path / "go").touch()
    connector.run(pipeline).completed()
    assert (tmp_path / "out").read_bytes() == sent(1000), "nothing was dropped by the refusals"


def test_another_contract_takes_the_messages_as_they_are(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 1000)
    cut_short(connector, pipeline, tmp_path)
    pipeline["processors"]["sink"] = {"command": sink(tmp_path / "out"), "reads": "c1"}
    connector.run(pipeline).completed()
    assert (tmp_path / "out").read_bytes() == sent(1000)


# -- faults


@pytest.fixture
def full_disk(tmp_path: Path) -> tuple[str, ...]:
    """A wrapper that puts a small disk where the state is; the file `room` gives it room."""
    folder = state(tmp_path)
    folder.mkdir(parents=True)
    return on_small_disk(folder, tmp_path)


def waits(running: Running) -> bool:
    return "waiting until it can be stored: no room on the disk" in running.output()


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_full_disk_makes_writers_wait(
    connector: Connector, tmp_path: Path, full_disk: tuple[str, ...], durability: str
) -> None:
    kind = {"kind": "durable", "durability": durability}
    answering = {"command": sink(tmp_path / "out", "--ack"), "contract": "one-to-one"}
    pipeline = chain({"c1": kind, "c2": kind}, source=source(40_000), middle=ANSWERS, sink=answering)
    pipeline["processors"]["sink"]["command"] = sink(tmp_path / "out", "--ack", "--until", tmp_path / "room")
    with connector.start(pipeline, "--log-format", "json", wrapper=full_disk) as running:
        until(lambda: waits(running) or running.process.poll() is not None, "a writer to wait", 30)
        assert running.process.poll() is None, str(running.finish())
        (tmp_path / "room").touch()
        result = running.finish()
    result.completed()
    assert (tmp_path / "out").read_bytes() == sent(40_000)
    assert result.output.count("nothing can be stored for now") >= 1
    assert "writers go on" in result.output


def test_a_full_disk_does_not_hold_up_the_end_for_ever(
    connector: Connector, tmp_path: Path, full_disk: tuple[str, ...]
) -> None:
    pipeline = durable(
        source={"command": source(None), "resume": "skip"},
        middle=ANSWERS,
        sink=sink(tmp_path / "out", "--delay", 0.1, "--read", 1000),
    )
    pipeline["drain"] = "2s"
    with connector.start(pipeline, "--log-format", "json", wrapper=full_disk) as running:
        until(lambda: waits(running) or running.process.poll() is not None, "a writer to wait", 30)
        running.wrapped().send_signal(signal.SIGTERM)
        result = running.finish(25)
    assert result.code == 1, str(result)
    result.expect_no_traceback()
    assert "what the run did last could not be stored" in result.output


# -- connector state


def test_state_of_a_run_that_was_cut_short(connector: Connector, tmp_path: Path) -> None:
    cut_short(connector, held(tmp_path, 1000), tmp_path)
    assert "sound, 1,000 messages stored" in told(connector, "check").stdout
    assert json.loads(told(connector, "check", "--format", "json").stdout)["sound"] is True
    shown = told(connector, "show").stdout
    assert "channel c1: 1,000 messages stored (1 to 1,000), 99 KiB" in shown
    assert "sink: 1,000 waiting" in shown
    (found,) = json.loads(told(connector, "show", "--format", "json").stdout)["channels"].values()
    assert (found["first"], found["last"], found["stored"], found["stored_bytes"]) == (1, 1000, 1000, 101_000)
    assert found["readers"]["sink"]["waiting"] == 1000
    assert told(connector, "export").stdout.encode() == sent(1000)
    lines = [json.loads(line) for line in told(connector, "export", "--format", "json").stdout.splitlines()]
    assert [each["number"] for each in lines] == list(range(1, 1001))
    assert "".join(each["payload"] + "\n" for each in lines).encode() == sent(1000)
    assert "there is no channel `c7`" in told(connector, "show", "--channel", "c7", code=1).stderr
    assert "given up: 1,000 messages stored of channel `c1`" in told(connector, "reset", "--channel", "c1").stdout
    assert "0 messages stored" in told(connector, "check").stdout


def test_export_of_bytes_that_are_no_text(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 3)
    for name in ("source", "sink"):
        pipeline["processors"][name]["codec"] = "length-prefixed"
    pipeline["processors"]["source"]["command"] = source(3, "--codec", "length-prefixed")
    cut_short(connector, pipeline, tmp_path)
    lines = [json.loads(line) for line in told(connector, "export", "--format", "json").stdout.splitlines()]
    assert [base64.b64decode(each["base64"])[:10] for each in lines] == [b"%010d" % number for number in (1, 2, 3)]


def test_a_damaged_state_is_said_and_given_up(connector: Connector, tmp_path: Path) -> None:
    pipeline = held(tmp_path, 20_000)
    cut_short(connector, pipeline, tmp_path)
    data = bytearray((state(tmp_path) / "data.mdb").read_bytes())
    at = data.index(b"%010d xxx" % 15_000)
    data[at + 50] ^= 1
    (state(tmp_path) / "data.mdb").write_bytes(data)
    checked = told(connector, "check", code=1).stdout
    assert "of channel `c1`: the record is damaged" in checked
    (damage,) = json.loads(told(connector, "check", "--format", "json", code=1).stdout)["damages"]
    assert damage["channel"] == "c1"
    assert damage["first"] <= 15_000 <= damage["last"]
    exported = told(connector, "export", code=1)
    assert "left out: messages" in exported.stderr
    whole = sent(20_000)
    assert exported.stdout.encode() == whole[: (damage["first"] - 1) * 101] + whole[damage["last"] * 101 :]
    (tmp_path / "go").touch()
    failed = connector.run(pipeline)
    assert failed.code == 1, str(failed)
    failed.expect_no_traceback()
    assert "c1" in failed.output
    assert f"{damage['first']:,}" in failed.output
    told(connector, "reset")
    (tmp_path / "out").unlink()
    connector.run(pipeline).completed()
    assert (tmp_path / "out").read_bytes() == whole


def _more_than(file: Path, lines: int) -> bool:
    return _lines(file) > lines


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0
