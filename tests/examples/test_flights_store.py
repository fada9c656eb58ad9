"""Store.java answers each row when it is committed, and a repeat of a row changes nothing but its count."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import zipfile
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .conftest import Sink, Start

FLIGHT: dict[str, Any] = {
    "time_hour": "2013-01-01T10:00:00Z",
    "carrier": "UA",
    "flight": 1,
    "tailnum": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "scheduled_departure": "2013-01-01T05:15:00",
    "departed_at": None,
    "dep_delay": -3,
    "arr_delay": None,
    "delay_class": "early",
    "air_time": 227,
    "distance_km": 2253.1,
    "speed_mph": 370.0,
    "not_stored": True,
}


def line(**changes: Any) -> bytes:
    return json.dumps(FLIGHT | changes).encode() + b"\n"


def store(sink: Sink, database: Path, lines: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(sink(database), input=lines, capture_output=True, check=False, timeout=60)


def query(database: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def test_one_answer_a_row_and_a_repeat_is_harmless(sink: Sink, tmp_path: Path) -> None:
    database = tmp_path / "flights.db"
    lines = b"".join(line(flight=n) for n in range(12_345))  # two whole transactions and a part of one
    for _ in range(2):
        done = store(sink, database, lines)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"stored\n" * 12_345
    assert query(database, "SELECT count(*), min(deliveries), max(deliveries) FROM flights") == [(12_345, 2, 2)]


def test_the_shipped_jar_does_the_same(shipped_sink: Sink, tmp_path: Path) -> None:
    test_one_answer_a_row_and_a_repeat_is_harmless(shipped_sink, tmp_path)


def test_a_row_that_is_answered_is_committed(sink: Sink, tmp_path: Path, start: Start) -> None:
    database = tmp_path / "flights.db"
    process = start(sink(database))
    assert process.stdin is not None
    assert process.stdout is not None
    for n in range(1, 4):  # the input stays open: a pause is enough for the answer
        process.stdin.write(line(flight=n))
        assert process.stdout.read(7) == b"stored\n"
        assert query(database, "SELECT count(*) FROM flights") == [(n,)]
    process.kill()
    process.wait()
    assert query(database, "SELECT count(*) FROM flights") == [(3,)]


def test_values(sink: Sink, tmp_path: Path) -> None:
    database = tmp_path / "flights.db"
    assert store(sink, database, line(distance_km=1e3, speed_mph=-0.5, air_time=2**62)[:-1]).stdout == b"stored\n"
    assert query(database, "SELECT departed_at, dep_delay, distance_km, speed_mph, air_time FROM flights") == [
        (None, -3, 1000.0, -0.5, 2**62)
    ]


@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a try takes half a second: no time to shrink
)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=200, max_size=400))
def test_any_text_survives_escaped_or_not(sink: Sink, tmp_path: Path, texts: list[str]) -> None:
    database = tmp_path / "texts.db"
    database.unlink(missing_ok=True)
    rows = [FLIGHT | {"flight": n, "tailnum": text} for n, text in enumerate(texts)]
    lines = "".join(json.dumps(row, ensure_ascii=row["flight"] % 2 == 0) + "\n" for row in rows)
    done = store(sink, database, lines.encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert query(database, "SELECT tailnum FROM flights ORDER BY flight") == [(text,) for text in texts]


def test_space_is_allowed_and_the_other_escapes(sink: Sink, tmp_path: Path) -> None:
    database = tmp_path / "flights.db"
    spaced = json.dumps(FLIGHT, indent=1).replace("\n", " \t\r").replace('"N14228"', r'"\/\b\f\u00e9\ud83d\ude00"')
    assert store(sink, database, spaced.encode()).stdout == b"stored\n"
    assert query(database, "SELECT tailnum FROM flights") == [("/\b\fé😀",)]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (b"not json", "'{' expected"),
        (b"", "'{' expected"),
        (b'{"a":1', "'}' expected"),
        (b'{"a":1} x', "something after the object"),
        (b'{"a":[1]}', "a list or an object"),
        (b'{"a":01}', "'}' expected"),
        (b'{"a":.5}', "no value"),
        (b'{"a":NaN}', "no value"),
        (b'{"a":"\\x"}', "an unknown escape"),
        (b'{"a":"\\u12g4"}', "no four hexadecimal digits"),
        (b'{"a":"\x01"}', "a control character"),
        (b'{"a":"b', "a string without an end"),
        (b'{"a":1,}', "no string"),
        (b'{"carrier":"UA"}', "NOT NULL constraint failed"),
    ],
)
def test_a_line_that_cannot_be_stored_ends_it_by_name(sink: Sink, tmp_path: Path, wrong: bytes, why: str) -> None:
    database = tmp_path / "flights.db"
    done = store(sink, database, line() + wrong + b"\n")
    assert done.returncode == 1
    assert f"line 2: {'' if 'NULL' in why else 'no JSON'}" in done.stderr.decode()
    assert why in done.stderr.decode()
    answered = len(done.stdout.splitlines())
    assert query(database, "SELECT count(*) FROM flights") == [(answered,)]


def test_usage(sink: Sink, tmp_path: Path) -> None:
    assert subprocess.run([*sink(tmp_path / "x"), "y"], capture_output=True, check=False).returncode == 2
    assert subprocess.run(sink(tmp_path / "no/such/folder"), capture_output=True, check=False).returncode == 1


def test_the_shipped_jar_is_made_of_this_source(prepare: ModuleType, java: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(prepare.STORE_JAR) as shipped:
        assert shipped.read("Store.java") == prepare.STORE_SOURCE.read_bytes(), "run prepare.py --store-jar"
        if (
            not java.compiler
            or f"Compiler: javac {java.version}\r\n" not in shipped.read("META-INF/MANIFEST.MF").decode()
        ):
            pytest.skip("its classes are compared only by the version of javac that made them")
        prepare.make_store_jar(java, tmp_path / "store.jar")
        with zipfile.ZipFile(tmp_path / "store.jar") as made:
            assert {name: made.read(name) for name in made.namelist()} == {
                name: shipped.read(name) for name in shipped.namelist()
            }
