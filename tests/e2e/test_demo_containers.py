"""`make demo-containers` on the first 20,000 flights: every processor in a container, and nothing lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need_image
from tests.e2e.connector import PROJECT
from tests.engine import docker

pytestmark = [pytest.mark.xdist_group("flights"), pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(400)]
ROWS = 20_000


def test_demo_containers(engine: str, tmp_path: Path) -> None:
    for image in ("python:3.13-slim-trixie", "node:20-trixie-slim", "eclipse-temurin:21-jre"):
        need_image(image)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(PROJECT / "examples/flights/demo.py"), "--containers", "--rows", str(ROWS),
         "--keep", "--work", str(tmp_path)],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=380,
    )  # fmt: skip
    shown = f"{done.stdout}\n--- stderr\n{done.stderr}"
    assert done.returncode == 0, shown
    assert len(re.findall(r"connector/\w+:[0-9a-f]{12} (built|up to date)", done.stdout)) == 3, shown
    assert f"\nrows in flights: {ROWS}\n" in done.stdout, shown
    assert "restarts of enrich: 1\n" in done.stdout, shown
    assert "nothing lost or doubled: 20,000 rows" in done.stdout, shown
    report = json.loads((tmp_path / "containers/report.json").read_text())
    assert (report["status"], report["balanced"]) == ("completed", True)
    assert not docker("ps", "--all", "--quiet", "--filter", f"label=connector.run={report['run']}")
