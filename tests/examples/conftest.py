"""Fixtures for the programs of `examples/flights`."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parent
FLIGHTS = Path(__file__).resolve().parents[2] / "examples" / "flights"
Load = Callable[[str], ModuleType]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that fills the demo's cache runs in one process."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.xdist_group("flights"))


@pytest.fixture(scope="session")
def flights() -> Path:
    """The example's folder."""
    return FLIGHTS


@pytest.fixture(scope="session")
def load() -> Iterator[Load]:
    """Import a module of the example as its programs do: from their own folder."""
    folders = [str(FLIGHTS), str(FLIGHTS / "processors/enrich")]
    sys.path[:0] = folders
    yield importlib.import_module
    for folder in folders:
        sys.path.remove(folder)


@pytest.fixture(scope="session")
def prepare(load: Load) -> ModuleType:
    """The module that finds or installs Node, Java and the driver."""
    return load("prepare")


@pytest.fixture(scope="session")
def node(prepare: ModuleType) -> Any:
    """The path of Node, as the demo gets it."""
    return _had(lambda: prepare.find_node(_cache(prepare), print))


@pytest.fixture(scope="session")
def java(prepare: ModuleType) -> Any:
    """Java and what it can do, as the demo gets it."""
    return _had(lambda: prepare.find_java(_cache(prepare), print))


def _cache(prepare: ModuleType) -> Path:
    """The demo's own cache, so that nothing is downloaded twice."""
    cache: Path = prepare.CACHE
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _had(get: Callable[[], Any]) -> Any:
    """What `get` finds or installs; a machine that has it not and cannot fetch it skips, saying so."""
    try:
        return get()
    except Exception as error:
        if type(error).__name__ != "SetupError":
            raise
        pytest.skip(str(error))


Sink = Callable[[Path], list[str]]


@pytest.fixture(scope="session")
def sink(prepare: ModuleType, java: Any, tmp_path_factory: pytest.TempPathFactory) -> Sink:
    """The command of the Java sink for a database, compiled where that is possible here."""
    return _sink(prepare, java, prepare.find_store(java, tmp_path_factory.mktemp("store"), print))


@pytest.fixture(scope="session")
def shipped_sink(prepare: ModuleType, java: Any) -> Sink:
    """The same from the jar that is shipped for a Java without a compiler."""
    return _sink(prepare, java, prepare.STORE_JAR)


def _sink(prepare: ModuleType, java: Any, classes: Path) -> Sink:
    options = _had(lambda: prepare.find_driver(java, classes, _cache(prepare), print))
    return lambda database: [str(java.program), *options, "Store", str(database)]


Start = Callable[[list[str]], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start programs with pipes; those that still run when the test ends are killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(command: list[str]) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()
