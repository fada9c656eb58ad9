"""A run that is ended while its containers are being made ends at once, and leaves none."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.conftest import need_image
from tests.e2e.connector import PYTHON_IMAGE, Connector, chain, until

pytestmark = pytest.mark.engine


def containers(run: str) -> list[str]:
    """Those of one run, whatever their state."""
    asked = ["docker", "ps", "--all", "--quiet", "--filter", f"label=connector.run={run}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("signals", [1, 2])
def test_ended_while_it_starts(connector: Connector, engine: str, signals: int) -> None:
    del engine
    need_image(PYTHON_IMAGE)
    wall = {"image": PYTHON_IMAGE, "pull": "never", "network": "none"}
    endless = {**wall, "command": ["python3", "-c", "import time; time.sleep(1000)"], "stop": {"grace": "1s"}}
    reader = {**wall, "command": ["cat"], "replicas": 6, "stop": {"grace": "1s"}}
    with connector.start(chain(source=endless, sink=reader)) as running:
        until(lambda: "pipeline test started" in running.output(), "the run to begin")
        for _ in range(signals):
            running.signal(signal.SIGINT)
        result = running.finish(30)
    assert result.code == 130, str(result)
    assert result.report is not None
    assert result.report["status"] == "stopped"
    assert not containers(result.report["run"])
    result.expect_no_traceback()
