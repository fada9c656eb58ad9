"""`ready` and `live` look from inside of a sandbox or a container, where no program can help, and from here else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_image
from tests.e2e.connector import PYTHON_IMAGE, Connector, chain

SERVER = """
import http.server, sys, threading
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass  # from a daemon thread at the interpreter's end it would be fatal
server = http.server.HTTPServer(("127.0.0.1", {port}), Health)
threading.Thread(target=server.serve_forever, daemon=True).start()
open("/tmp/is-up", "w").close()
for line in sys.stdin:
    print(line, end="", flush=True)
"""
CHECKS: dict[str, dict[str, Any]] = {
    "tcp": {"tcp": "127.0.0.1:{port}"},
    "http": {"http": "http://127.0.0.1:{port}/ready"},
    "file": {"file": "/tmp/is-up"},
    "command": {"command": ["test", "-e", "/tmp/is-up"]},
}


@pytest.fixture(params=["sandbox", "untrusted", pytest.param("container", marks=pytest.mark.engine)])
def wall(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What puts a program behind each wall, with no network."""
    if request.param == "container":
        request.getfixturevalue("engine")
        need_image(PYTHON_IMAGE)
        return {"image": PYTHON_IMAGE, "pull": "never", "network": "none"}
    request.getfixturevalue("bubblewrap")
    return {"network": "none"} if request.param == "sandbox" else {"trust": "untrusted"}


def filled(check: dict[str, Any], port: int) -> dict[str, Any]:
    return {key: value.format(port=port) if isinstance(value, str) else value for key, value in check.items()}


@pytest.mark.parametrize("check", CHECKS)
def test_ready_and_live(connector: Connector, tmp_path: Path, wall: dict[str, Any], check: str) -> None:
    python = "python3" if "image" in wall else "/usr/bin/python3"
    looked_at = filled(CHECKS[check], 8123)
    middle = {
        "command": [python, "-c", SERVER.format(port=8123)],
        "contract": "one-to-one",
        "ready": {**looked_at, "every": "20ms", "timeout": "20s"},
        "live": {**looked_at, "every": "100ms", "failures": 30},  # a program that ends answers no more
        **wall,
    }
    source = [sys.executable, "-c", "import time\nfor n in range(20): print(n, flush=True); time.sleep(0.02)"]
    sink = [sys.executable, "-c", "import sys; print(len(sys.stdin.readlines()), 'came')"]
    result = connector.run(chain(source=source, middle=middle, sink=sink))
    result.completed()
    assert "| 20 came" in result.stderr
    assert result.processor("middle")["restarts"] == 0, str(result)
    assert not Path("/tmp/is-up").exists(), "it was inside"


def test_one_that_is_not_ready_is_told(connector: Connector, wall: dict[str, Any]) -> None:
    middle = {
        "command": ["cat"],
        "contract": "one-to-one",
        "restart": "never",
        "ready": {"tcp": "127.0.0.1:8124", "every": "50ms", "failures": 3},
        **wall,
    }
    result = connector.run(chain(source=["seq", "3"], middle=middle, sink=["cat"]))
    result.failed()
    assert "nothing listens at 127.0.0.1:8124" in result.processor("middle")["cause"]
