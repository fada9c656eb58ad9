"""`connector check`, `schema` and `graph` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runner.cli.check import command as check
from runner.cli.graph import command as graph
from runner.cli.schema import command as schema
from tests.spec.marked import middle

GOOD = middle("")
BAD = middle('replicas = 0\nmax_message = "1MB"\n')
WARNED = middle('network = "outbound"')


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(text: str, *arguments: str) -> Result:
    Path("pipeline.toml").write_text(text)
    return CliRunner().invoke(check, arguments)


def test_a_good_file() -> None:
    result = run(GOOD)
    assert result.exit_code == 0
    assert result.stdout == (
        "pipeline.toml: pipeline p is good: 3 processors, 2 channels; "
        "keys, values, channels, folders and programs checked\n"
    )
    assert result.stderr == ""


def test_all_problems_at_once() -> None:
    result = run(BAD)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "pipeline.toml:9:12: error: processors.m.replicas: 0 is too small; at least 1\n" in result.stderr
    assert 'pipeline.toml:10:15: error: processors.m.max_message: "1MB" is not a size; write "1MiB"' in result.stderr
    assert result.stderr.endswith("pipeline.toml: 2 errors\n")


def test_warnings_leave_zero() -> None:
    result = run(WARNED)
    assert result.exit_code == 0
    assert "warning: processors.m.network" in result.stderr
    assert result.stdout.endswith("programs checked, 1 warning\n")


def test_json() -> None:
    result = run(BAD, "--format", "json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert (answer["ok"], answer["pipeline"], len(answer["problems"])) == (False, None, 2)
    assert answer["problems"][0] == {
        "severity": "error",
        "message": "0 is too small; at least 1",
        "key": "processors.m.replicas",
        "remedy": None,
        "file": "pipeline.toml",
        "line": 9,
        "column": 12,
    }
    answer = json.loads(run(WARNED, "--format", "json").stdout)
    assert (answer["ok"], answer["pipeline"], answer["processors"]) == (True, "p", ["a", "m", "b"])
    assert [problem["severity"] for problem in answer["problems"]] == ["warning"]


def test_another_file_and_one_that_is_not_there(folder: Path) -> None:
    (folder / "other.toml").write_text(GOOD)
    assert CliRunner().invoke(check, ["other.toml"]).stdout.startswith("other.toml: pipeline p is good")
    result = CliRunner().invoke(check, ["gone.toml"])
    assert result.exit_code == 2
    assert result.stderr == "gone.toml: error: cannot be read: no such file or directory\ngone.toml: 1 error\n"


def test_what_a_file_holds_cannot_command_the_terminal() -> None:
    result = run(
        middle("").replace('"cat"', '"\\u001b[31mred"', 1).replace("[processors.m]", '[processors."\\u001b[2J"]')
    )
    assert result.exit_code == 2
    assert "\x1b" not in result.output


def test_schemas() -> None:
    pipeline, processor = (
        json.loads(CliRunner().invoke(schema, arguments).stdout) for arguments in ([], ["--processor"])
    )
    assert "processors" in pipeline["properties"]
    assert "params" in processor["properties"]


def test_graphs() -> None:
    Path("pipeline.toml").write_text(GOOD)
    assert CliRunner().invoke(graph, []).stdout.startswith("flowchart LR\n")
    assert CliRunner().invoke(graph, ["pipeline.toml", "--format", "dot"]).stdout.startswith('digraph "p" {\n')
    Path("pipeline.toml").write_text(BAD)
    result = CliRunner().invoke(graph, [])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: processors.m.replicas" in result.stderr
