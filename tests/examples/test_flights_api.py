"""The data set and the API that serves it: every row, typed, page by page."""

from __future__ import annotations

import csv
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Load

HEADER = "year,carrier,flight,dep_delay,tailnum"
LINES = [f'2013,UA,{n},{"NA" if n % 7 == 0 else n - 50},"N{n}"' for n in range(123)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "flights.csv"
    file.write_text("\n".join([HEADER, *LINES]) + "\n")
    return file


def expected(rows: int) -> list[dict[str, Any]]:
    return [
        {"year": 2013, "carrier": "UA", "flight": n, "dep_delay": None if n % 7 == 0 else n - 50, "tailnum": f"N{n}"}
        for n in range(rows)
    ]


@pytest.mark.parametrize("limit", [1, 7, 123, 1000])
@pytest.mark.parametrize("rows", [None, 0, 1, 50, 500])
def test_pages_together_are_the_table(load: Load, table: Path, rows: int | None, limit: int) -> None:
    flights = load("dataset").Flights(table, rows)
    total = min(123, 500 if rows is None else rows)
    assert len(flights) == total
    pages = [flights.page(offset, limit) for offset in range(0, total + limit, limit)]
    assert [row for page in pages for row in page] == expected(total)


@pytest.fixture
def api(load: Load, table: Path) -> Iterator[Any]:
    server = load("serve").Api(0, load("dataset").Flights(table))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def test_following_the_links_gives_every_row(api: Any) -> None:
    rows: list[Any] = []
    url = f"{api.url}?limit=10"
    while url:
        page = get(url)
        assert page["total"] == 123
        rows += page["rows"]
        url = page["next"]
    assert rows == expected(123)
    status = api.url.replace("/flights", "/status")
    assert get(status) == {"total": 123, "rows_served": 123}


def test_a_page_is_the_same_when_it_is_asked_for_again(api: Any) -> None:
    assert get(f"{api.url}?offset=7&limit=3") == get(f"{api.url}?offset=7&limit=3")
    assert get(api.url)["next"] is None  # 1,000 rows by default


@pytest.mark.parametrize(
    ("path", "status"),
    [("/flights?offset=x", 400), ("/flights?limit=0", 400), ("/flights?offset=-1", 400), ("/other", 404)],
)
def test_what_is_not_served(api: Any, path: str, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(api.url.replace("/flights", path))
    assert caught.value.code == status
    assert json.load(caught.value)["error"]
    caught.value.close()


@pytest.mark.slow
def test_the_real_table(load: Load) -> None:
    dataset, cache = load("dataset"), load("prepare").CACHE
    if not (cache / dataset.ARCHIVE).exists():
        pytest.skip("make demo has not downloaded the data yet")
    table = dataset.prepare(cache, print)
    flights = dataset.Flights(table)
    assert len(flights) == dataset.ROWS == 336_776
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    last = dict(zip(header, rows[-1], strict=True))
    key = [header.index(name) for name in ("time_hour", "carrier", "flight")]
    assert len({tuple(row[index] for index in key) for row in rows}) == dataset.ROWS, "it is a key"
    assert {name: "NA" if value is None else str(value) for name, value in flights.page(336_775, 10)[0].items()} == last


def test_an_archive_that_is_there_is_not_fetched_again_and_one_that_is_broken_is(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load("dataset")
    asked: list[list[str]] = []

    def no_network(arguments: list[str], *_: object) -> str:
        asked.append(arguments)
        return "no network"

    monkeypatch.setattr(dataset, "pip", no_network)
    (tmp_path / dataset.ARCHIVE).write_bytes(b"cut short")
    with pytest.raises(load("downloads").SetupError, match="no network"):
        dataset.prepare(tmp_path, print)
    assert len(asked) == 2
    archive = load("prepare").CACHE / dataset.ARCHIVE
    if archive.exists():
        (tmp_path / dataset.ARCHIVE).unlink()
        (tmp_path / dataset.ARCHIVE).symlink_to(archive)
        assert dataset.prepare(tmp_path, print).stat().st_size == 31_053_850
        assert len(asked) == 2
