"""Every example gives the same outputs, ledger and exit in every home; the first difference is shown."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.connector import PROJECT, RUNNER

EXAMPLES = ("squares", "crash", "untrusted")
_SAME = ("state", "restarts", "cause", "read", "written", "stray")


def run(example: str, home: str | None, folder: Path, examples: Path = PROJECT / "examples") -> dict[str, Any]:
    """What a run of an example gave: its exit, what its programs wrote to their logs, and its account."""
    report = folder / f"{example}-{home}.json"
    file = examples / example / "pipeline.toml"
    command = [*RUNNER, "run", str(file), "--report", str(report), "--log-format", "json"]
    done = subprocess.run(
        [*command, *(["--home", home] if home else [])],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert report.exists(), done.stderr
    account = json.loads(report.read_text())
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    return {
        "exit": done.returncode,
        "status": account["status"],
        "balanced": account["balanced"],
        "logs": {
            name: [line["text"] for line in lines if line["event"] == "log_line" and line["processor"] == name]
            for name in account["processors"]
        },
        "processors": {
            name: {key: processor[key] for key in _SAME} for name, processor in account["processors"].items()
        },
        "channels": account["channels"],
    }


def first_difference(one: Any, other: Any, path: str = "") -> str | None:
    """Where two runs differ first, and how; None where they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            found = first_difference(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(one, list) and isinstance(other, list):
        for index, (a, b) in enumerate(zip(one, other, strict=False)):
            if a != b:
                return f"{path}[{index}]: {a!r} and {b!r}"
        return None if len(one) == len(other) else f"{path}: {len(one)} and {len(other)} of them"
    return None if one == other else f"{path}: {one!r} and {other!r}"


@pytest.fixture(params=["process", "sandbox", pytest.param("container", marks=pytest.mark.engine)])
def home(request: pytest.FixtureRequest) -> str:
    """Each home, where it is there."""
    needs = {"process": [], "sandbox": ["bubblewrap"], "container": ["engine", "built"]}
    name: str = request.param
    for fixture in needs[name]:
        request.getfixturevalue(fixture)
    return name


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the examples give where they run by themselves."""
    folder = tmp_path_factory.mktemp("usual")
    return {example: run(example, None, folder) for example in EXAMPLES if example != "untrusted"}


@pytest.fixture(scope="module")
def built(engine: str) -> Iterator[None]:
    """The images of all examples."""
    del engine
    for example in EXAMPLES:
        command = [*RUNNER, "build", f"examples/{example}/pipeline.toml"]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
    yield


@pytest.mark.timeout(300)
@pytest.mark.parametrize("example", ["squares", "crash"])
def test_same(home: str, example: str, usual: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    there = usual[example]
    assert (there["exit"], there["status"], there["balanced"]) == (0, "completed", True)
    assert there["logs"]["sum"] == [str(sum(number**2 for number in range(1, 1001)))]
    assert there["processors"]["square"]["restarts"] == (1 if example == "crash" else 0)
    assert first_difference(there, run(example, home, tmp_path)) is None


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("bubblewrap")
def test_untrusted(home: str, open_folder: Path) -> None:
    """It is in a sandbox by itself, and `--home process` does not get it out."""
    shutil.copytree(PROJECT / "examples", open_folder / "examples")
    given = run("untrusted", home, open_folder, open_folder / "examples")
    assert (given["exit"], given["status"], given["balanced"]) == (0, "completed", True), given
    assert given["logs"]["show"] == [f"{word} (stole: nothing)" for word in ("ONE", "TWO", "THREE")]


def test_unconfined_it_steals_all(tmp_path: Path) -> None:
    """The example's attempts work where nothing walls them off."""
    shutil.copytree(PROJECT / "examples" / "untrusted", tmp_path / "it")
    file = tmp_path / "it" / "pipeline.toml"
    other = '[processors.other]\ncommand = ["sleep", "5"]\nenv = { TOKEN = "x" }\n'
    file.write_text(file.read_text().replace('trust  = "untrusted"', "") + other)
    done = subprocess.run([*RUNNER, "run", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert "stole: shadow, token" in done.stderr


def test_a_difference_is_found_and_shown() -> None:
    one = {"exit": 0, "logs": {"a": ["x", "y"]}, "channels": {"c": {"written": 5}}}
    assert first_difference(one, one) is None
    assert first_difference(one, {**one, "exit": 1}) == "exit: 0 and 1"
    assert first_difference(one, {**one, "logs": {"a": ["x", "z"]}}) == "logs.a[1]: 'y' and 'z'"
    assert first_difference(one, {**one, "logs": {"a": ["x"]}}) == "logs.a: 2 and 1 of them"
    assert first_difference(one, {**one, "channels": {}}) == "channels.c: {'written': 5} and None"
