"""`connector doctor` as a user calls it: on this machine, and where something is missing."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.plan.tiers import RESOURCES
from tests.e2e.connector import PROJECT, RUNNER, TRACEBACK
from tests.nobody import as_nobody

PARTS = {"homes", "untrusted", "limits", "findings", "facts", "pipeline", "version", "runner", "best_tier"}
SILENT_S = 3.0
NOWHERE = "unix:///nowhere/docker.sock"


def doctor(
    *arguments: str, before: tuple[str, ...] = (), environment: Mapping[str, str] | None = None, cwd: str = "/"
) -> subprocess.CompletedProcess[str]:
    """Run it; no traceback, whatever it finds."""
    done = subprocess.run(
        [*before, *RUNNER, "doctor", *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert not TRACEBACK.search(done.stdout + done.stderr), done.stderr
    return done


def said(*arguments: str, code: int = 0, **given: Any) -> dict[str, Any]:
    """Its JSON."""
    done = doctor(*arguments, "--format", "json", **given)
    assert done.returncode == code, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# -- what it says


def test_json_has_a_version_and_the_same_parts_always() -> None:
    answer = said()
    assert answer["version"] == 1
    assert answer.keys() == PARTS
    assert answer["best_tier"] in set("ABCD")
    assert answer["homes"].keys() == answer["limits"].keys() == {"process", "sandbox", "container"}
    for home in answer["homes"].values():
        assert home.keys() == {"works", "tier", "cause", "remedy"}
    for limits in answer["limits"].values():
        assert tuple(limits) == RESOURCES
        assert all(held["by"] in {"cgroup", "rlimit", "tmpfs", "nothing"} for held in limits.values())
    for found in answer["untrusted"].values():
        assert found.keys() == {"runs", "home", "tier", "means"}
    for finding in answer["findings"]:
        assert finding.keys() == {"group", "name", "mark", "said", "source", "remedy"}
        assert finding["mark"] in {"good", "note", "bad"}
        assert finding["mark"] != "bad" or finding["remedy"]
    assert answer["pipeline"] is None


def test_text_says_the_same_as_json() -> None:
    answer, text = said(), doctor().stdout
    for finding in answer["findings"]:
        if finding["name"] not in {"memory", "terminal"}:
            mark = {"good": "✓", "note": "!", "bad": "✗"}[finding["mark"]]
            assert f"  {mark} {finding['name']:<12} {finding['said']}\n" in text
    for name, home in answer["homes"].items():
        assert re.search(rf"^  . {name} .*{re.escape(home['cause'])}$", text, re.MULTILINE)
    for remedy in (each["remedy"] for each in answer["findings"] if each["remedy"]):
        assert f"→ {remedy}" in text
    assert "an untrusted command" in text
    assert "an untrusted image" in text


@pytest.mark.engine
def test_with_an_engine_and_bubblewrap_every_home_works(engine: str, bubblewrap: str) -> None:
    answer = said()
    assert all(home["works"] for home in answer["homes"].values()), answer["homes"]
    assert answer["facts"]["engine"]["version"] == engine
    assert answer["facts"]["bubblewrap"]["path"] == bubblewrap


@pytest.mark.engine
def test_it_is_quick(engine: str) -> None:
    """Below a second of CPU with all that it starts, so that others may use the machine too; the best of three."""
    del engine
    assert min(_cpu_s(), _cpu_s(), _cpu_s()) < 1.0


def _cpu_s() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert doctor().returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# -- what is missing


def test_an_engine_that_does_not_answer_does_not_hold_it_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        began = time.monotonic()
        answer = said(environment={"DOCKER_HOST": f"unix://{tmp_path}/s"})
        assert SILENT_S <= time.monotonic() - began < 30
    assert "does not answer within 3 s" in answer["homes"]["container"]["cause"]
    assert answer["homes"]["process"]["works"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (NOWHERE, "there is no socket"),
        ("tcp://127.0.0.1:2375", "another machine"),
        ("ssh://host", "another machine"),
        ("what", "no address"),
    ],
)
def test_without_an_engine(address: str, words: str) -> None:
    done = doctor(environment={"DOCKER_HOST": address})
    assert done.returncode == 0
    assert words in done.stdout
    assert "✗ container" in done.stdout
    assert "✗ an untrusted image is refused" in done.stdout
    assert "DOCKER_HOST" in done.stdout


def test_the_docker_package_may_be_missing(tmp_path: Path) -> None:
    """The doctor itself does without it."""
    code = "import sys; from importlib import metadata as m; v = m.version\n"
    code += "def version(name):\n    if name == 'docker': raise m.PackageNotFoundError(name)\n    return v(name)\n"
    code += "m.version = version; sys.modules['docker'] = None; from runner.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--format", "json"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    home = json.loads(done.stdout)["homes"]["container"]
    assert (home["works"], home["remedy"]) == (False, "pip install docker")


def test_nobody_gets_an_answer_too() -> None:
    before = as_nobody("runner")
    answer = said(before=before, environment={"HOME": "/nonexistent"})
    assert answer["facts"]["system"]["user"] == "nobody"
    assert answer["homes"]["process"]["works"]
    assert answer["homes"]["sandbox"]["tier"] in {"C", "D"}
    assert doctor("--require", "B", before=before, environment={"DOCKER_HOST": NOWHERE}).returncode == 3


def test_without_bubblewrap(bubblewrap: str) -> None:
    if Path(bubblewrap).resolve().parent != Path("/usr/bin"):
        pytest.skip(f"{bubblewrap} is not where it usually is")
    hidden = (bubblewrap, "--dev-bind", "/", "/", "--ro-bind", "/dev/null", bubblewrap)
    answer = said(before=hidden, environment={"PATH": "/usr/bin:/bin"})
    assert answer["homes"]["sandbox"]["cause"] == "bubblewrap is not installed"
    assert "bubblewrap" in answer["homes"]["sandbox"]["remedy"]
    assert answer["untrusted"]["command"]["runs"] is False


def test_a_shim_that_is_not_there_stops_every_home(tmp_path: Path) -> None:
    answer = said(environment={"CONNECTOR_SHIM": str(tmp_path / "gone")})
    assert not any(home["works"] for home in answer["homes"].values())
    assert {home["remedy"] for home in answer["homes"].values()} == {
        "CONNECTOR_SHIM names it; correct or unset that variable"
    }


# -- exit codes


def test_require(bubblewrap: str) -> None:
    del bubblewrap
    missing = {"DOCKER_HOST": NOWHERE}
    best = said(environment=missing)["best_tier"]
    for tier in "ABC":
        done = doctor("--require", tier, environment=missing)
        assert done.returncode == (3 if tier < best else 0)
        assert (f"tier {tier} is required, tier {best} is the best here" in done.stderr) == (tier < best)
    assert doctor("--require", "D").returncode == 2
    assert doctor("--format", "yaml").returncode == 2


def pipeline(folder: Path, extra: str = "", what: str = 'command = ["cat"]') -> str:
    file = folder / "pipeline.toml"
    source = f'[processors.a]\n{what}\nwrites = "c"\n{extra}\n'
    file.write_text(f'name = "p"\n{source}[processors.b]\ncommand = ["cat"]\nreads = "c"\n')
    return str(file)


def test_a_pipeline_that_can_run_here(tmp_path: Path) -> None:
    answer = said(pipeline(tmp_path))["pipeline"]
    assert (answer["name"], answer["runs"]) == ("p", True)
    assert answer["processors"]["a"] == {
        "runs": True,
        "home": "process",
        "trust": "trusted",
        "tier": "D",
        "cause": None,
        "remedy": None,
        "unenforced": [],
    }
    assert "✓ a            process: runs here" in doctor(pipeline(tmp_path)).stdout


def test_it_judges_the_home_that_is_asked_for(tmp_path: Path) -> None:
    code = 0 if said()["homes"]["sandbox"]["works"] else 3
    answer = said(pipeline(tmp_path), "--home", "sandbox", code=code)
    assert {each["home"] for each in answer["pipeline"]["processors"].values()} == {"sandbox"}


def test_an_untrusted_processor_that_cannot_be_walled_off_is_named(tmp_path: Path) -> None:
    file = pipeline(tmp_path, 'trust = "untrusted"', 'image = "example"')
    missing = {"DOCKER_HOST": NOWHERE}
    answer = said(file, code=3, environment=missing)["pipeline"]
    assert answer["runs"] is False
    assert answer["processors"]["b"]["runs"] is True
    refused = answer["processors"]["a"]
    assert (refused["runs"], refused["home"], refused["trust"]) == (False, "container", "untrusted")
    assert "no socket" in refused["cause"]
    assert refused["remedy"]
    text = doctor(file, environment=missing)
    assert text.returncode == 3
    assert "✗ a            container, untrusted:" in text.stdout


def test_limits_that_do_not_hold_are_named() -> None:
    before = as_nobody("runner")
    with tempfile.TemporaryDirectory() as folder:  # those of pytest are closed to others
        Path(folder).chmod(0o755)
        answer = said(pipeline(Path(folder), "resources = { cpus = 0.5 }"), before=before)
    held = answer["limits"]["process"]["cpus"]["by"] != "nothing"
    sentences = answer["pipeline"]["processors"]["a"]["unenforced"]
    assert bool(sentences) != held
    assert all("resources.cpus is not held here" in sentence for sentence in sentences)
    assert answer["pipeline"]["runs"] is True


def test_a_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text("name = 5\n")
    assert doctor(str(tmp_path / "pipeline.toml")).returncode == 2
    gone = doctor(str(tmp_path / "gone.toml"))
    assert gone.returncode == 2
    assert "gone.toml" in gone.stderr


# -- terminals


def on_a_terminal(**environment: str) -> str:
    """What it writes to a terminal."""
    ours, theirs = pty.openpty()
    given = {"TERM": "xterm", **os.environ, "PYTHONPATH": str(PROJECT), **environment}
    given = {name: value for name, value in given.items() if value}
    with subprocess.Popen([*RUNNER, "doctor"], env=given, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = b""
        while select.select([ours], [], [], 20)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not piece:
                break
            text += piece
        assert process.wait(20) == 0
    os.close(ours)
    return text.decode()


def test_colours_only_where_they_are_wanted() -> None:
    assert "\x1b[32m✓\x1b[0m" in on_a_terminal(NO_COLOR="", TERM="xterm")
    assert "\x1b" not in on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(TERM="dumb", NO_COLOR="")
    assert "\x1b" not in doctor(environment={"TERM": "xterm"}).stdout


def test_an_output_that_takes_no_more_than_ascii() -> None:
    done = doctor(environment={"PYTHONIOENCODING": "ascii", "DOCKER_HOST": NOWHERE})
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "no container" in done.stdout
    assert "-> " in done.stdout


def test_escapes_from_outside_are_shown_and_not_obeyed() -> None:
    done = doctor(environment={"DOCKER_HOST": "unix:///\x1b[2Jwiped"})
    assert "\x1b" not in done.stdout
    assert r"\x1b[2Jwiped" in done.stdout


def test_the_page_has_a_row_for_everything() -> None:
    page = (PROJECT / "docs" / "doctor.md").read_text()
    answer = said()
    rows = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    assert {finding["name"] for finding in answer["findings"]} <= rows
    assert answer.keys() <= rows
    named = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)))
    parts = [answer["facts"], answer["homes"]["process"], answer["untrusted"]["image"], answer["findings"][0]]
    for part in parts:
        assert part.keys() <= named
