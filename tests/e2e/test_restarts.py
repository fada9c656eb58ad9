"""Restarts: when, how often, what a source's restart means, readiness, liveness, stalls."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.addresses import free_port
from tests.children.build import misbehave, script, sink, source
from tests.children.messages import number_of, unframe
from tests.e2e.connector import Connector, chain, kill_exactly, until
from tests.e2e.test_contracts import SWIFT, one_to_one
from tests.e2e.test_ends import numbers


def test_exit_75_means_later(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("later", 4), restart={"backoff": "10ms..50ms", "limit": "1 in 60s"})
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 101))
    assert result.processor("middle")["restarts"] == 4
    codes = [each["exit"]["code"] for each in result.processor("middle")["instances"]]
    assert codes == [75, 75, 75, 75, 0]


def test_more_deaths_than_the_limit_fail_for_good(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("exit-at-once", 3), restart={"backoff": "0s", "limit": "4 in 60s"})
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    result.failed()
    assert result.processor("middle")["restarts"] == 4
    assert len(result.processor("middle")["instances"]) == 5
    assert result.account("c1", "middle") == {"written": 100, "unread": 100}


def test_a_restart_is_never_when_asked(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("exit-at-once", 3), restart="never")
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    result.failed()
    assert result.processor("middle")["restarts"] == 0


def test_default_backoff_takes_a_little_time(connector: Connector, tmp_path: Path) -> None:
    middle = {"command": misbehave("fails-first", 3, 1), "contract": "one-to-one"}
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert result.processor("middle")["restarts"] == 3
    assert numbers(tmp_path / "out") == list(range(1, 101))


def test_a_program_that_exits_0_with_input_to_come_is_restarted_by_always(connector: Connector, tmp_path: Path) -> None:
    restart = {"when": "always", "backoff": "0s", "limit": "1000 in 60s"}
    middle = {"command": ["head", "-n", "1"], "restart": restart}
    result = connector.run(chain(source=source(5000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert result.processor("middle")["restarts"] >= 1
    account = result.account("c1", "middle")
    assert account["written"] == 5000
    assert numbers(tmp_path / "out")[0] == 1


def test_a_source_is_not_restarted_by_default(connector: Connector, tmp_path: Path) -> None:
    dying = source(1000, "--die-after", 500, "--half")
    result = connector.run(chain(source=dying, middle=one_to_one(["cat"]), sink=sink(tmp_path / "out")))
    result.failed()
    assert numbers(tmp_path / "out") == list(range(1, 501)), "what it had written is delivered, the torn line is not"
    assert result.account("c2", "sink") == {"written": 500, "acknowledged": 500}
    assert result.processor("source")["restarts"] == 0
    assert "source" in result.stderr


def test_a_restart_of_a_source_without_resume_is_an_error_of_the_file(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source={"command": source(10), "restart": "always"}, sink=sink(tmp_path / "out"))
    result = connector.run(pipeline)
    assert result.code == 2, str(result)
    assert "resume" in result.stderr


@pytest.mark.parametrize("half", [(), ("--half",)])
def test_resume_skip(connector: Connector, tmp_path: Path, half: tuple[str, ...]) -> None:
    again = {"command": source(2000, "--die-after", 700, "--deaths", 3, *half), "resume": "skip", "restart": SWIFT}
    result = connector.run(chain(source=again, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 2001))
    assert result.processor("source")["restarts"] == 3
    assert result.account("c1", "sink") == {"written": 2000, "acknowledged": 2000}


@pytest.mark.parametrize("half", [(), ("--half",)])
def test_resume_self(connector: Connector, tmp_path: Path, half: tuple[str, ...]) -> None:
    command = source(2000, "--start", "written", "--die-after", 500, "--deaths", 3, *half)
    again = {"command": command, "resume": "self", "restart": SWIFT}
    result = connector.run(chain(source=again, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 2001))
    assert result.processor("source")["restarts"] == 3


def test_resume_self_of_a_named_port(connector: Connector, tmp_path: Path) -> None:
    shell = (
        'test "$CONNECTOR_ATTEMPT" = 1 && { seq 7 >"$CONNECTOR_WRITER_DATA"; exit 1; }; '
        'echo "$CONNECTOR_WRITTEN_DATA" >"$CONNECTOR_WRITER_DATA"'
    )
    command = ["sh", "-c", shell]
    pipeline = {
        "processors": {
            "source": {"command": command, "writes": {"data": "c"}, "resume": "self", "restart": SWIFT},
            "sink": {"command": sink(tmp_path / "out"), "reads": "c"},
        }
    }
    connector.run(pipeline).completed()
    assert (tmp_path / "out").read_text().split() == ["1", "2", "3", "4", "5", "6", "7", "7"]


def test_resume_live(connector: Connector, tmp_path: Path) -> None:
    again = {"command": source(600, "--die-after", 500, "--deaths", 2), "resume": "live", "restart": SWIFT}
    result = connector.run(chain(source=again, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == [*range(1, 501), *range(1, 501), *range(1, 601)]


def test_continue_on_error_lets_the_rest_go_on(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(50_000), sink=sink(tmp_path / "out"))
    pipeline["processors"]["fragile"] = {
        "command": misbehave("dies-every", 10),
        "reads": "c1",
        "writes": "side",
        "contract": "one-to-one",
        "continue_on_error": True,
        "restart": {"backoff": "0s", "limit": "2 in 60s"},
    }
    pipeline["processors"]["side-sink"] = {"command": sink(tmp_path / "side"), "reads": "side"}
    result = connector.run(pipeline)
    report = result.expect(result.code)
    assert result.code in (0, 1), str(result)
    assert report["processors"]["fragile"]["state"] == "failed"
    assert numbers(tmp_path / "out") == list(range(1, 50_001))
    assert numbers(tmp_path / "side") == list(range(1, 31))
    assert result.account("c1", "fragile") == {"written": 50_000, "acknowledged": 30, "unread": 49_970}


def test_a_source_whose_only_reader_failed_has_lost_its_readers(connector: Connector, tmp_path: Path) -> None:
    failing = {"command": misbehave("exit-at-once", 3), "restart": "never", "continue_on_error": True}
    result = connector.run(chain(source=source(None), middle=failing, sink=sink(tmp_path / "out")))
    result.expect(result.code)
    assert "readers left" in result.processor("source")["cause"]


@pytest.mark.parametrize("kind", ["line", "file", "tcp", "http", "command"])
def test_messages_flow_only_once_it_is_ready(connector: Connector, tmp_path: Path, kind: str) -> None:
    port, flag = free_port(), tmp_path / "flag"
    checks: dict[str, dict[str, Any]] = {
        "line": {"line": "now r.ady"},
        "file": {"file": str(flag), "every": "20ms"},
        "tcp": {"tcp": f"127.0.0.1:{port}", "every": "20ms"},
        "http": {"http": f"http://127.0.0.1:{port}/", "every": "20ms"},
        "command": {"command": ["test", "-e", str(flag)], "every": "20ms"},
    }
    target = flag if kind in ("file", "command", "line") else port
    becoming = script("health", "becomes-ready", "file" if kind == "command" else kind, target, 0.3)
    middle = one_to_one(becoming, ready=checks[kind], restart="never")
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.took_s > 0.3


def test_a_program_that_does_not_become_ready_fails(connector: Connector, tmp_path: Path) -> None:
    ready = {"file": str(tmp_path / "never"), "every": "20ms", "timeout": "100ms", "failures": 5}
    middle = one_to_one(["cat"], ready=ready, restart={"backoff": "0s", "limit": "2 in 60s"})
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    result.failed()
    assert "ready" in result.processor("middle")["cause"]
    assert result.account("c1", "middle") == {"written": 100, "unread": 100}


def test_a_program_that_is_ill_is_restarted(connector: Connector, tmp_path: Path) -> None:
    port = free_port()
    live = {"http": f"http://127.0.0.1:{port}/", "every": "50ms", "timeout": "2s", "failures": 3}
    ready = {"tcp": f"127.0.0.1:{port}", "every": "20ms"}  # on a busy machine it may take long to listen
    middle = one_to_one(script("health", "sick", port, 3), ready=ready, live=live)
    pipeline = chain(source=source(None, "--rate", 500, "--until", tmp_path / "stop"), middle=middle,
                     sink=sink(tmp_path / "out"))  # fmt: skip
    with connector.start(pipeline) as running:
        first = running.program(middle["command"]).pid
        until(lambda: [each for each in running.programs(middle["command"]) if each.pid != first], "a restart")
        (tmp_path / "stop").touch()
        result = running.finish()
    result.completed()
    got = numbers(tmp_path / "out")
    assert got == list(range(1, len(got) + 1))
    assert result.processor("middle")["restarts"] == 1
    assert "live" in result.processor("middle")["instances"][0]["cause"]


def test_a_stalled_program_is_restarted(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("stalls-once", 100), stall="1s")
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.processor("middle")["restarts"] == 1
    assert result.took_s < 15


def test_a_stopped_program_is_restarted_by_stall(connector: Connector, tmp_path: Path) -> None:
    middle = one_to_one(misbehave("stops-itself", 400), stall="1s")
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.processor("middle")["restarts"] == 2


def test_an_idle_program_is_not_stalled(connector: Connector, tmp_path: Path) -> None:
    late = ["sh", "-c", "echo one; sleep 1; echo two"]
    middle = one_to_one(["cat"], stall="200ms")
    result = connector.run(chain(source=late, middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert result.processor("middle")["restarts"] == 0


def test_a_sink_that_was_killed_goes_on_with_what_it_had_not_read(connector: Connector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = sink(out, "--read", 101)
    storing = {"command": command, "restart": SWIFT}
    pipeline = chain(source=source(None, "--rate", 2000, "--until", tmp_path / "stop"), sink=storing)

    def stored(count: int) -> bool:
        return out.exists() and out.stat().st_size > count * 101

    with connector.start(pipeline) as running:
        for count in (500, 1000, 1500):
            until(partial(stored, count), "messages at the sink")
            assert kill_exactly(running.program(command), command)
        until(partial(stored, 2500), "more messages at the sink")
        (tmp_path / "stop").touch()
        result = running.finish()
    result.completed()
    got = [number_of(each) for each in unframe(out.read_bytes(), "lines")[0]]
    account = result.account("c1", "sink")
    assert result.processor("sink")["restarts"] == 3
    assert got == sorted(set(got)), "nothing twice, in order"
    missing = account["written"] - len(got)
    assert 0 <= missing <= 3, "at most the one that each run had read and not yet stored"
    assert missing <= account.get("indeterminate", 0) <= len(got)
    assert account["acknowledged"] + account.get("indeterminate", 0) == account["written"]
