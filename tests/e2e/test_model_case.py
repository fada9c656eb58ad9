"""The model case: a JavaScript source at one runner, a Java sink at another, over every kind that joins two runners."""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.addresses import free_port
from tests.e2e.connector import PROJECT, RUNNER, Running
from tests.e2e.test_runners import KINDS
from tests.nats_server import NatsServer

EXAMPLE = PROJECT / "examples" / "two-runners"
FLIGHTS = PROJECT / "examples" / "flights"
ROWS = 12_345
pytestmark = [pytest.mark.xdist_group("flights"), pytest.mark.timeout(240)]  # Java may have to be downloaded first


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where Node and Java are, and what Java needs to run the sink."""
    folder = tmp_path_factory.mktemp("tools")
    sys.path.insert(0, str(FLIGHTS))
    try:
        prepare: Any = importlib.import_module("prepare")
    finally:
        sys.path.remove(str(FLIGHTS))
    try:
        found = prepare.prepare(prepare.CACHE, folder, print)
    except prepare.SetupError as error:
        pytest.skip(str(error))
    prepare.write_java_arguments(found.java_options, folder / "java.args")
    path = os.pathsep.join([*map(str, found.path), os.environ["PATH"]])
    return {"PATH": path, "FLIGHTS_OPTIONS": str(folder / "java.args")}


@pytest.fixture
def api() -> Iterator[str]:
    """The URL of the example's API."""
    command = [sys.executable, str(EXAMPLE / "serve.py"), "--port", "0", "--rows", str(ROWS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    """Where the two meet."""
    if kind == "nats":
        server: NatsServer = request.getfixturevalue("nats_server")
        return server.url
    scheme, path = ("ws", "/") if kind == "websocket" else ("tcp", "")
    return f"{scheme}://127.0.0.1:{free_port()}{path}"


def part(folder: Path, name: str, environment: Mapping[str, str]) -> Running:
    """One part of the pipeline as a command of its own."""
    (folder / name).mkdir()
    report = folder / name / "report.json"
    command = [*RUNNER, "run", str(EXAMPLE / "pipeline.toml"), "--runner", name, "--report", str(report)]
    return Running(command, folder / name, report, environment)


@pytest.mark.parametrize("kind", KINDS)
def test_from_an_api_into_a_database(kind: str, url: str, api: str, tools: dict[str, str], tmp_path: Path) -> None:
    environment = {**tools, "KIND": kind, "URL": url, "FLIGHTS_URL": api, "FLIGHTS_WORK": str(tmp_path)}
    with part(tmp_path, "runner-1", environment) as first, part(tmp_path, "runner-2", environment) as second:
        source, sink = first.finish(120), second.finish(120)
    assert (source.completed()["runner"], sink.completed()["runner"]) == ("runner-1", "runner-2")
    assert source.account("rows", "runner runner-2") == {"written": ROWS, "acknowledged": ROWS}
    assert sink.account("rows", "store") == {"written": ROWS, "acknowledged": ROWS}
    assert list(source.completed()["processors"]) == ["fetch"]
    assert list(sink.completed()["processors"]) == ["store"]

    flight = runpy.run_path(str(EXAMPLE / "serve.py"))["flight"]
    columns = list(flight(0))
    with contextlib.closing(sqlite3.connect(tmp_path / "flights.db")) as connection:
        stored = connection.execute(f"SELECT {', '.join(columns)} FROM flights ORDER BY flight").fetchall()
        assert connection.execute("SELECT max(deliveries) FROM flights").fetchone() == (1,)
    assert stored == [tuple(flight(number).values()) for number in range(ROWS)]


def test_the_picture_has_both_runners(tools: dict[str, str]) -> None:
    done = subprocess.run(
        [*RUNNER, "graph", str(EXAMPLE / "pipeline.toml")],
        cwd=PROJECT,
        env={**os.environ, **tools},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'subgraph r_runner_01["runner-1"]' in done.stdout
    assert 'p_fetch -->|"rows<br/>tcp"| p_store' in done.stdout
