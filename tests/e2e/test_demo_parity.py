"""The flights give the same table and the same account in every home, over a crash of one replica in each."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_image
from tests.e2e.connector import PROJECT
from tests.e2e.test_parity import first_difference

ROWS = 6_000
pytestmark = [pytest.mark.xdist_group("flights"), pytest.mark.slow, pytest.mark.timeout(400)]


def flights(work: Path, *options: str) -> dict[str, Any]:
    """What a run of the demo left: its table without when a row came, and its account."""
    work.mkdir()
    work.chmod(0o755)
    command = [sys.executable, str(PROJECT / "examples/flights/demo.py"), "--rows", str(ROWS), "--keep"]
    done = subprocess.run(
        [*command, "--work", str(work), *options], cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n--- stderr\n{done.stderr}"
    at = work / "containers" if "--containers" in options else work
    report = json.loads((at / "report.json").read_text())
    with closing(sqlite3.connect(at / "flights.db")) as connection:
        table = sorted(connection.execute("SELECT * FROM flights").fetchall(), key=repr)
    return {
        "status": report["status"],
        "balanced": report["balanced"],
        "restarts": {name: each["restarts"] for name, each in report["processors"].items()},
        "channels": report["channels"],
        "rows": [list(row) for row in table],
    }


def test_the_same_in_every_home(bubblewrap: str, engine: str, tmp_path: Path) -> None:
    del bubblewrap, engine
    for image in ("python:3.13-slim-trixie", "node:20-trixie-slim", "eclipse-temurin:21-jre"):
        need_image(image)
    tmp_path.chmod(0o755)
    bare = flights(tmp_path / "bare")
    assert (bare["status"], bare["balanced"], len(bare["rows"])) == ("completed", True, ROWS)
    assert bare["restarts"] == {"fetch": 0, "enrich": 1, "store": 0}
    assert first_difference(bare, flights(tmp_path / "sandboxed", "--sandboxes")) is None
    assert first_difference(bare, flights(tmp_path / "contained", "--containers")) is None
