"""`connector run FILE` of several runners: each part is told to stop once, and has state of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import runner
from runner.errors import RunnerError
from tests.e2e.connector import Connector, Running, steady, until
from tests.e2e.test_runners import begin, two
from tests.spec.test_listeners import spread, table

DRAINS = """
import signal, sys, time
here = sys.argv[1]
def drain(*_):
    open(f"{here}.draining", "w").close()
    import os
    while not os.path.exists(f"{here}.go"):
        time.sleep(0.01)
    open(f"{here}.done", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
open(f"{here}.ready", "w").close()
while True:
    signal.pause()
"""
"""Takes as long to end as it is let: until there is a file HERE.go."""


def three(folder: Path) -> dict[str, Any]:
    """Runner a ends with exit code 3 when it is let; b and c go on until they are told, and then until they are let."""
    waits = 'while [ ! -e "$0" ]; do sleep 0.02; done; exit 3'
    commands = {"a": ["sh", "-c", waits, str(folder / "a.go")]}
    commands |= {name: ["python3", "-c", DRAINS, str(folder / name)] for name in "bc"}
    return {
        "name": "three",
        "runners": {name: {} for name in "abc"},
        "processors": {
            name: {"command": command, "runner": name, "writes": name, "stop": {"grace": "30s"}}
            for name, command in commands.items()
        }
        | {f"{name}-sink": {"command": ["cat"], "runner": name, "reads": name} for name in "abc"},
    }


@pytest.fixture
def running(connector: Connector, tmp_path: Path) -> Any:
    with connector.start(three(tmp_path)) as running:
        for name in "bc":
            until((tmp_path / f"{name}.ready").exists, f"{name} to run")
        yield running


def part(running: Running, name: str) -> psutil.Process | None:
    """The runner that has this part, while it is there."""
    for process in running.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            if f"--runner={name}" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                return process
    return None


def draining(folder: Path, *names: str) -> None:
    for name in names:
        until((folder / f"{name}.draining").exists, f"{name} to drain")


def let(running: Running, folder: Path, name: str) -> None:
    """Let one part end, and give everything time that follows from its end."""
    (folder / f"{name}.go").touch()
    until(lambda: part(running, name) is None, f"the runner {name} to end")
    steady(lambda: len(running.output()), "all to be said")


def test_parts_that_end_one_after_the_other_are_told_once(running: Running, tmp_path: Path) -> None:
    (tmp_path / "a.go").touch()
    draining(tmp_path, "b", "c")
    let(running, tmp_path, "b")
    (tmp_path / "c.go").touch()
    result = running.finish()
    assert (tmp_path / "c.done").exists(), str(result)
    assert result.code == 1
    assert result.stderr.count("the others are stopped") == 1


def test_a_part_that_is_stopped_by_somebody_else_stops_the_others_once(running: Running, tmp_path: Path) -> None:
    stopped = part(running, "b")
    assert stopped is not None
    stopped.send_signal(signal.SIGTERM)
    draining(tmp_path, "b")
    assert not (tmp_path / "c.draining").exists()
    let(running, tmp_path, "b")
    draining(tmp_path, "c")
    let(running, tmp_path, "a")
    (tmp_path / "c.go").touch()
    result = running.finish()
    assert (tmp_path / "c.done").exists(), str(result)


def test_a_signal_after_a_failure_ends_no_drain(running: Running, tmp_path: Path) -> None:
    (tmp_path / "a.go").touch()
    draining(tmp_path, "b", "c")
    running.signal(signal.SIGINT)
    for name in "bc":
        let(running, tmp_path, name)
    result = running.finish()
    assert (tmp_path / "b.done").exists(), str(result)
    assert (tmp_path / "c.done").exists(), str(result)
    assert result.code == 1


def test_a_second_signal_ends_all_at_once(running: Running, tmp_path: Path) -> None:
    running.signal(signal.SIGTERM)
    draining(tmp_path, "b", "c")
    running.signal(signal.SIGTERM)
    result = running.finish()
    assert not list(tmp_path.glob("*.done"))
    assert result.code == 143, str(result)
    result.expect_no_traceback()


def test_a_file_whose_name_begins_with_a_dash(connector: Connector, tmp_path: Path) -> None:
    connector.write(two(tmp_path, count=10), "-p.toml")
    result = connector.command("run", "--quiet", "--", "-p.toml")
    assert result.code == 0, str(result)
    assert (tmp_path / "out").read_bytes().count(b"\n") == 10


def test_a_folder_that_is_called_runner_is_not_this_program(connector: Connector, tmp_path: Path) -> None:
    (connector.folder / "runner").mkdir()
    (connector.folder / "runner" / "__init__.py").write_text("raise SystemExit(99)")
    here = replace(connector, runner=(sys.executable, "-P", "-m", "runner"))
    result = here.run(two(tmp_path, count=10))
    assert result.code == 0, str(result)


@pytest.mark.parametrize(("runner", "code", "says"), [("a", 0, ""), ("b", 2, "cert.pem is not there"), ("d", 1, "`d`")])
def test_a_check_is_for_one_runner(connector: Connector, runner: str, code: int, says: str) -> None:
    connector.write(spread("a +x", "b x") + table(more='tls = { cert = "cert.pem", key = "key.pem" }\n'))
    result = connector.command("check", "--runner", runner)
    assert result.code == code, str(result)
    assert says in result.stderr


# -- where their state is


def test_each_part_has_state_of_its_own(connector: Connector, tmp_path: Path) -> None:
    pipeline = two(tmp_path, count=100, durability="process")
    state = tmp_path / "kept"
    for options, folder in (((), connector.folder / ".connector" / "two"), (("--state-dir", str(state)), state)):
        (tmp_path / "out").unlink(missing_ok=True)
        result = connector.run(pipeline, *options)
        assert result.code == 0, str(result)
        assert {each.name for each in folder.iterdir()} == {"edge", "store"}
        for name in ("edge", "store"):
            shown = connector.command("state", "show", "--runner", name, *options)
            assert shown.code == 0, str(shown)
            assert shown.stdout.startswith(f"{folder / name}\n"), str(shown)
            assert "channel far" in shown.stdout
            assert connector.command("dead-letters", "list", "--runner", name, *options).code == 0


@pytest.mark.parametrize("verb", [("state", "show"), ("dead-letters", "list")])
def test_whose_state_has_to_be_said(verb: tuple[str, ...], connector: Connector, tmp_path: Path) -> None:
    connector.write(two(tmp_path))
    several = connector.command(*verb)
    assert several.code == 1
    assert "several runners (say which: edge or store)" in " ".join(several.stderr.split())
    unknown = connector.command(*verb, "--runner", "stroe")
    assert unknown.code == 1
    assert "no runner `stroe`" in unknown.stderr


def test_a_part_alone_goes_on_where_one_command_was_cut_short(connector: Connector, tmp_path: Path) -> None:
    pipeline = two(tmp_path, count=3000, slow=True, durability="process")
    pipeline["channels"]["raw"] = {"kind": "durable", "durability": "process"}
    state, out = tmp_path / "kept", tmp_path / "out"
    with connector.start(pipeline, "--state-dir", str(state)) as all_of_it:
        until(lambda: out.exists() and out.stat().st_size > 2000, "something to arrive")
        all_of_it.signal(signal.SIGTERM)
        assert all_of_it.finish().code == 143
    with contextlib.ExitStack() as stack:
        options = ("--state-dir", str(state))
        edge, store = (stack.enter_context(begin(tmp_path, pipeline, name, *options)) for name in ("edge", "store"))
        ends = edge.finish(), store.finish()
    for end in ends:
        end.completed()
    assert [int(line[:10]) for line in out.read_text().splitlines()] == list(range(1, 3001))


# -- in Python


def test_parts_in_one_program(tmp_path: Path) -> None:
    keys = two(tmp_path, count=100, durability="process")
    pipeline = runner.Pipeline(**keys, folder=tmp_path)

    async def both() -> list[Any]:
        return await asyncio.gather(*(pipeline.execute(runner=name) for name in ("edge", "store")))

    reports = asyncio.run(both())
    assert [(each.runner, each.status, each.balanced) for each in reports] == [
        ("edge", "completed", True),
        ("store", "completed", True),
    ]
    assert reports[0].channels["far"].readers["runner store"].acknowledged == 100
    assert {each.name for each in (tmp_path / ".connector" / "two").iterdir()} == {"edge", "store"}
    with pytest.raises(RunnerError, match="several runners"):
        pipeline.run()
