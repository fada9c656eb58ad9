"""`make demo` on the first 20,000 flights: real programs, a real crash, and nothing lost."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
ROWS = 20_000


@pytest.mark.xdist_group("flights")
@pytest.mark.slow
@pytest.mark.timeout(300)  # where Node, Java and the data have to be downloaded first
def test_demo(tmp_path: Path) -> None:
    command = [sys.executable, str(PROJECT / "examples/flights/demo.py")]
    done = subprocess.run(
        [*command, "--rows", str(ROWS), "--keep", "--work", str(tmp_path)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    shown = f"{done.stdout}\n--- stderr\n{done.stderr}"
    assert done.returncode == 0, shown
    assert f"\nrows in flights: {ROWS}\n" in done.stdout, shown
    assert "restarts of enrich: 1\n" in done.stdout, shown
    assert "was killed with SIGKILL" in done.stdout, shown
    assert "nothing lost or doubled: 20,000 rows" in done.stdout, shown
    assert re.search(r"UA +[\d,]+ +[\d.]+ ", done.stdout), shown
    assert re.search(r"rows +20,000 +enrich +20,000 +0 +0 +0 +0\n", done.stdout), shown
    assert re.search(r"enriched +20,000 +store +20,000 +0 +0 +0 +0\n", done.stdout), shown

    report = json.loads((tmp_path / "report.json").read_text())
    assert report["status"] == "completed"
    assert [run["exit"]["signal"] for run in report["processors"]["enrich"]["instances"]].count(9) == 1
    with closing(sqlite3.connect(tmp_path / "flights.db")) as connection:
        assert connection.execute("SELECT count(*), sum(deliveries) FROM flights").fetchall() == [(ROWS, ROWS)]
