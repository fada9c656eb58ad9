"""Contract `batch`: programs as they are (sort, awk, jq, sqlite3, psql) between durable channels, in every home."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.children.build import script, sink, source
from tests.conftest import need_image, need_program
from tests.e2e.connector import PYTHON_IMAGE, Connector, chain
from tests.e2e.postgres import Postgres, postgres
from tests.e2e.test_ends import numbers

__all__ = ["postgres"]

SWIFT = {"backoff": "0s", "limit": "1000 in 60s"}
DURABLE = {name: {"kind": "durable", "durability": "process"} for name in ("c1", "c2")}


def batch(command: list[str], messages: int = 100, **more: Any) -> dict[str, Any]:
    """A processor that is run for so many messages at a time, and restarted at once."""
    bounds = {"messages": messages, "wait": "30s"}
    return {"command": command, "contract": "batch", "batch": bounds, "restart": SWIFT} | more


def through(folder: Path, middle: dict[str, Any], count: int = 1000) -> dict[str, Any]:
    """So many numbered messages through `middle`, between durable channels."""
    first = {"command": source(count), "resume": "skip"}
    return chain(DURABLE, source=first, middle=middle, sink=sink(folder / "out"))


# -- in every home


@pytest.fixture(params=["process", "sandbox", pytest.param("container", marks=pytest.mark.engine)])
def home(request: pytest.FixtureRequest) -> str:
    """Where the program in the middle runs."""
    if request.param == "sandbox":
        request.getfixturevalue("bubblewrap")
    elif request.param == "container":
        request.getfixturevalue("engine")
        need_image(PYTHON_IMAGE)
    return str(request.param)


def test_deaths_lose_and_double_nothing(home: str, tmp_path: Path) -> None:
    """It kills itself in half of its runs: before it reads, in the middle of its output, behind all of it."""
    middle = batch(script("batches", "--mortal", 0.5))
    result = Connector(tmp_path, middle_home=home).run(through(tmp_path, middle))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.account("c1", "middle") == {"written": 1000, "acknowledged": 1000}
    assert result.account("c2", "sink") == {"written": 1000, "acknowledged": 1000}
    assert result.processor("middle")["restarts"] >= 3
    assert result.processor("middle")["batches"] == 10


@pytest.mark.parametrize("trust", ["trusted", "untrusted"])
@pytest.mark.usefixtures("bubblewrap")
def test_the_batch_as_a_file_in_a_sandbox(open_folder: Path, trust: str) -> None:
    """Also of another user's: it is read twice, by the shell's children, and died upon in between."""
    command = ["sh", "-c", "[ $CONNECTOR_ATTEMPT = 1 ] && { head -n 9 {batch}; kill -9 $$; }; sort -rn {batch}"]
    middle = batch(command, network="none", trust=trust)
    result = Connector(open_folder).run(through(open_folder, middle, 200))
    result.completed()
    assert numbers(open_folder / "out") == [*range(100, 0, -1), *range(200, 100, -1)]
    assert result.processor("middle")["restarts"] == 2


@pytest.mark.engine
@pytest.mark.usefixtures("engine")
def test_the_batch_as_a_file_in_a_container(tmp_path: Path) -> None:
    need_image(PYTHON_IMAGE)
    middle = batch(script("batches", "--fail-first", "--file", "{batch}"))
    result = Connector(tmp_path, middle_home="container").run(through(tmp_path, middle, 200))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 201))


# -- programs as they are


def test_sort_and_awk(connector: Connector, tmp_path: Path) -> None:
    """Each hundred is sorted backwards, then summed up."""
    sums = [need_program("awk"), "{ sum += $1 } NR == 1 { most = $1 } END { print most + 0, sum }"]
    result = connector.run(
        chain(
            DURABLE,
            source={"command": ["seq", "1000"], "resume": "skip"},
            sort=batch([need_program("sort"), "-rn"]),
            sum=batch(sums),
            sink=sink(tmp_path / "out"),
        )
    )
    result.completed()
    due = [f"{last} {sum(range(last - 99, last + 1))}" for last in range(100, 1001, 100)]
    assert (tmp_path / "out").read_text().splitlines() == due


def test_from_a_file_into_a_file(connector: Connector, tmp_path: Path) -> None:
    """Nothing but `sort`, which dies behind its output the first time; the runner reads and writes the files."""
    rows = tmp_path / "rows"
    rows.write_text("".join(f"{n}\n" for n in range(1, 251)))
    need_program("sort")
    dies = ["sh", "-c", "sort -rn; [ $CONNECTOR_ATTEMPT = 2 ] || kill -9 $$"]
    files = {name: {"kind": "file", "path": str(tmp_path / name)} for name in ("rows", "out")}
    pipeline = {"processors": {"sort": batch(dies) | {"reads": "rows", "writes": "out"}}, "channels": files}
    connector.run(pipeline).completed()
    due = [*range(100, 0, -1), *range(200, 100, -1), *range(250, 200, -1)]
    assert (tmp_path / "out").read_text().split() == [str(n) for n in due]


def test_jq(connector: Connector, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.write_text("".join(f'{{"n": {n}, "kind": "{"odd" if n % 2 else "even"}"}}\n' for n in range(1, 251)))
    command = [need_program("jq"), "-c", "-s", "group_by(.kind) | map({kind: .[0].kind, sum: map(.n) | add})[]"]
    result = connector.run(
        chain(source={"command": ["cat", str(rows)]}, group=batch(command), sink=sink(tmp_path / "out"))
    )
    result.completed()
    found = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert found == [
        {"kind": kind, "sum": sum(range(first + offset, last + 1, 2))}
        for first, last in ((1, 100), (101, 200), (201, 250))
        for kind, offset in (("even", 1), ("odd", 0))
    ]


def test_what_jq_cannot_read_is_set_aside_and_comes_back(connector: Connector, tmp_path: Path) -> None:
    """One line of 250 is no JSON. Once jq is told to let that pass, the replayed letter is a batch of its own."""
    rows, program, jq = tmp_path / "rows", tmp_path / "program.sh", need_program("jq")
    rows.write_text("".join(f'{{"n": {n}}}\n' if n != 123 else "no JSON\n" for n in range(1, 251)))
    program.write_text(f"exec {jq} .n")
    middle = batch(["sh", str(program)], restart={"backoff": "1ms..20ms"})
    source = {"command": ["cat", str(rows)], "resume": "skip"}
    pipeline = chain(DURABLE, source=source, middle=middle, sink=sink(tmp_path / "out"))
    result = connector.run(pipeline)
    result.completed()
    found = sorted(int(line) for line in (tmp_path / "out").read_text().splitlines())
    assert found == [n for n in range(1, 251) if n != 123]
    assert result.account("c1", "middle") == {"written": 250, "acknowledged": 249, "dead": 1}
    file = str(tmp_path / "pipeline.toml")
    (shown,) = connector.command("dead-letters", "show", file).stdout.splitlines()
    letter = json.loads(shown)
    assert (letter["number"], letter["payload"]) == (123, "no JSON")
    assert letter["exit"]["code"]
    assert letter["log"]

    program.write_text(r"""exec jq -R '"again, \(env.CONNECTOR_BATCH): \(.)"'""")
    connector.command("dead-letters", "replay", file)
    rows.write_text("")
    (tmp_path / "out").unlink()
    last = connector.run(pipeline)
    last.completed()
    assert last.account("c1", "middle") == {"written": 0, "replayed": 1, "acknowledged": 1}
    assert (tmp_path / "out").read_text() == '"again, 123-123: no JSON"\n'
    assert connector.command("dead-letters", "list", file).stdout == ""


def test_sqlite_imports_each_batch_in_one_transaction(connector: Connector, tmp_path: Path) -> None:
    database = tmp_path / "rows.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table rows(n integer primary key, text)")
    command = [need_program("sqlite3"), "-bail", "-csv", str(database), ".timeout 5000", ".import {batch} rows"]
    rows = tmp_path / "rows"
    rows.write_text("".join(f'{n},"row {n}, with a comma"\n' for n in range(1, 1001)))
    connector.run(chain(source={"command": ["cat", str(rows)]}, store=batch(command))).completed()
    with sqlite3.connect(database) as connection:
        found = connection.execute("select n, text from rows order by n").fetchall()
    assert found == [(n, f"row {n}, with a comma") for n in range(1, 1001)]


def test_psql_copies_each_batch(connector: Connector, tmp_path: Path, postgres: Postgres) -> None:
    """What is at an address is stored once, also where a run ends behind its COPY and is done again."""
    postgres.query("create table rows(n int primary key, text text)")
    postgres.query("create table batches(batch text primary key)")
    once = tmp_path / "once.sh"
    copy = "insert into batches values (:'batch'); copy rows from stdin with (format csv);"
    once.write_text(
        f'[ -n "$({" ".join(postgres.psql)} -A -t -c "select 1 from batches where batch = \'$CONNECTOR_BATCH\'")" ]'
        f" && exit 0\n(echo \"{copy}\"; cat; echo '\\.') |"
        f" {' '.join(postgres.psql)} -1 -v batch=$CONNECTOR_BATCH -f - || exit\n"
        "[ $CONNECTOR_ATTEMPT = 2 ] || exit 1\n"
    )
    rows = tmp_path / "rows"
    rows.write_text("".join(f'{n},"row {n}"\n' for n in range(1, 1001)))
    plain = [*postgres.psql, "-c", "copy plain from stdin with (format csv)"]
    postgres.query("create table plain(n int primary key, text text)")
    result = connector.run(chain(source={"command": ["cat", str(rows)]}, store=batch(plain, 300)))
    result.completed()
    assert postgres.query("select count(*), sum(n), min(text) from plain") == ["1000|500500|row 1"]
    result = connector.run(chain(source={"command": ["cat", str(rows)]}, store=batch(["sh", str(once)], 300)))
    result.completed()
    assert result.processor("store")["restarts"] == 4
    assert postgres.query("select count(*), sum(n) from rows") == ["1000|500500"]
    assert postgres.query("select batch from batches order by 1") == ["1-300", "301-600", "601-900", "901-1000"]
