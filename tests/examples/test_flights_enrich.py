"""enrich.py answers each line with exactly one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load, Start

FLIGHT: dict[str, Any] = {
    "year": 2013,
    "month": 1,
    "day": 1,
    "dep_delay": 2,
    "air_time": 227,
    "distance": 1400,
    "hour": 5,
    "minute": 15,
    "carrier": "UA",
    "tailnum": "N14228",
}


def line(**changes: Any) -> bytes:
    return json.dumps(FLIGHT | changes).encode() + b"\n"


@pytest.fixture
def command(flights: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it would hide a missing flush
    return [sys.executable, str(flights / "processors/enrich/enrich.py")]


@pytest.fixture
def enrich(load: Load) -> ModuleType:
    return load("enrich")


def test_what_it_adds(enrich: ModuleType) -> None:
    added = enrich.enrich(FLIGHT)
    assert {name: added[name] for name in added if name not in FLIGHT} == {
        "scheduled_departure": "2013-01-01T05:15:00",
        "departed_at": "2013-01-01T05:17:00",
        "delay_class": "on time",
        "distance_km": 2253.1,
        "speed_mph": 370.0,
    }
    assert {name: added[name] for name in FLIGHT} == FLIGHT


def test_a_cancelled_flight(enrich: ModuleType) -> None:
    added = enrich.enrich(FLIGHT | {"dep_delay": None, "air_time": None})
    assert (added["departed_at"], added["delay_class"], added["speed_mph"]) == (None, "cancelled", None)


def test_a_departure_after_midnight(enrich: ModuleType) -> None:
    assert enrich.enrich(FLIGHT | {"hour": 23, "minute": 59})["departed_at"] == "2013-01-02T00:01:00"


@pytest.mark.parametrize(
    ("minutes", "name"), [(-1, "early"), (0, "on time"), (15, "late"), (59, "late"), (60, "very late")]
)
def test_delay_classes(enrich: ModuleType, minutes: int, name: str) -> None:
    assert enrich.delay_class(minutes) == name


@pytest.mark.parametrize("ending", [b"\n", b""], ids=["whole", "without the last newline"])
def test_one_answer_a_line_in_order(command: list[str], ending: bytes) -> None:
    lines = b"".join(line(flight=n, tailnum="N" + "é" * (n % 50)) for n in range(5000))
    done = subprocess.run(command, input=lines[:-1] + ending, capture_output=True, check=True)
    answers = done.stdout.splitlines()
    assert done.stdout.endswith(b"\n")
    assert [json.loads(answer)["flight"] for answer in answers] == list(range(5000))
    assert done.stderr == b""


def test_an_answer_comes_while_the_input_stays_open(command: list[str], start: Start) -> None:
    process = start(command)
    assert process.stdin is not None
    assert process.stdout is not None
    for n in range(3):
        whole = line(flight=n)
        process.stdin.write(whole[:10])  # a line may come in pieces
        process.stdin.write(whole[10:])
        assert json.loads(process.stdout.readline())["flight"] == n


def test_what_is_no_flight_ends_it(command: list[str]) -> None:
    done = subprocess.run(command, input=b"{}\n", capture_output=True, check=False)
    assert done.returncode != 0
    assert b"KeyError" in done.stderr
