"""Contract `acknowledged` between durable channels, in every home."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.children.build import script, sink, source
from tests.e2e.connector import PROJECT, Connector, chain
from tests.e2e.test_ends import numbers

SWIFT = {"backoff": "0s", "limit": "1000 in 60s"}
DURABLE = {name: {"kind": "durable", "durability": "process"} for name in ("c1", "c2")}


@pytest.fixture
def connector(in_each_home: Connector) -> Connector:
    """What a contract says holds in all homes."""
    return in_each_home


def acknowledged(command: list[str], **more: Any) -> dict[str, Any]:
    """An acknowledged processor that is restarted at once."""
    return {"command": command, "contract": "acknowledged", "restart": SWIFT} | more


def through(folder: Path, middle: dict[str, Any], count: int = 1000) -> dict[str, Any]:
    """So many numbered messages through `middle`."""
    first = {"command": source(count), "resume": "skip"}
    return chain(DURABLE, source=first, middle=middle, sink=sink(folder / "out"))


def test_deaths_lose_and_double_nothing(connector: Connector, tmp_path: Path) -> None:
    middle = acknowledged(script("acknowledges", "echo", 1, 150))
    result = connector.run(through(tmp_path, middle))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.account("c1", "middle") == {"written": 1000, "acknowledged": 1000}
    assert result.account("c2", "sink") == {"written": 1000, "acknowledged": 1000}
    assert result.processor("middle")["restarts"] == 6


def test_a_stateful_program_is_given_its_state(connector: Connector, tmp_path: Path) -> None:
    middle = acknowledged(script("acknowledges", "sums", 40))
    result = connector.run(through(tmp_path, middle, 200))
    result.completed()
    kept = (tmp_path / "out").read_text().split("\n")
    assert kept[:200] == [str(number * (number + 1) // 2) for number in range(1, 201)]
    assert kept[200] == "total 20100"


def test_a_long_state_is_a_file_in_every_home(connector: Connector, tmp_path: Path) -> None:
    middle = acknowledged(script("acknowledges", "large-state", 200_000, tmp_path))
    result = connector.run(through(tmp_path, middle, 3))
    result.completed()
    assert "given state=file 200000 True" in result.output


def test_a_program_on_the_sdk(connector: Connector, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "sdk" / "python" / "connector_processor.py", tmp_path)
    program = tmp_path / "program.py"
    program.write_text(
        "from connector_processor import Processor\n"
        "def handle(message):\n"
        "    if message.attempt == 1 and message.number % 100 == 0:\n"
        "        raise ValueError(f'not message {message.number}')\n"
        "    return message.payload\n"
        "Processor().run(handle)\n"
    )
    result = connector.run(through(tmp_path, acknowledged([sys.executable, str(program)])))
    result.completed()
    assert sorted(numbers(tmp_path / "out")) == list(range(1, 1001))
    assert "ValueError: not message 300" in result.output


def test_garbage_is_named(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(through(tmp_path, acknowledged(script("acknowledges", "garbage", 7))))
    result.failed()
    assert "unknown-kind" in result.processor("middle")["cause"]
    assert "message 8 of channel `c1`" in result.processor("middle")["cause"]
    assert result.processor("middle")["restarts"] == 0
