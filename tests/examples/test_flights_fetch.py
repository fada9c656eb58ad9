"""fetch.mjs writes every row once, in order, tries failed pages again, and waits for a slow reader."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .conftest import Start


class Pages(ThreadingHTTPServer):
    """Pages 0 to `pages` - 1 of ten rows each; page 2 answers with what is left in `failures` first."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.pages = 5
        self.padding = ""
        self.failures: list[bytes | int] = []
        self.asked: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/0"


class PageHandler(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        page = int(self.path[1:])
        self.server.asked.append(page)
        following = page + 1 if page + 1 < self.server.pages else None
        rows = [{"n": 10 * page + i, "text": f"{self.server.padding}é\n"} for i in range(10)]
        # The link is relative on every other page.
        link = following and (f"/{following}" if page % 2 else self.server.url[:-1] + str(following))
        status, body = 200, json.dumps({"rows": rows, "next": link}).encode()
        if page == 2 and self.server.failures:
            failure = self.server.failures.pop(0)
            status, body = (failure, b"no") if isinstance(failure, int) else (200, failure)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + (body == b"cut")))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Pages]:
    with Pages() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def command(node: Path, flights: Path, api: Pages) -> list[str]:
    return [str(node), str(flights / "processors/fetch/fetch.mjs"), api.url]


def fetch(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


def numbers(output: str) -> list[int]:
    return [json.loads(row)["n"] for row in output.splitlines()]


def test_every_row_once_and_in_order(command: list[str]) -> None:
    done = fetch(command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith('{"n":0,"text":"é\\n"}\n')
    assert numbers(done.stdout) == list(range(50))


def test_a_failed_page_is_tried_again(command: list[str], api: Pages) -> None:
    api.failures = [500, 429, b"cut", b"{"]
    done = fetch(command)
    assert done.returncode == 0
    assert numbers(done.stdout) == list(range(50))
    assert done.stderr.count("trying again") == 4
    assert api.asked.count(2) == 5


@pytest.mark.parametrize(
    ("failures", "tries", "why"),
    [
        ([503] * 5, 5, "503 Service Unavailable: no (tried 5 times)"),
        ([404], 1, "404 Not Found: no (tried 1 times)"),
        ([b"{}"], 1, "no list of rows"),
    ],
)
def test_a_page_that_cannot_be_had_ends_it(
    command: list[str], api: Pages, failures: list[bytes | int], tries: int, why: str
) -> None:
    api.failures = list(failures)
    done = fetch(command)
    assert done.returncode == 1
    assert numbers(done.stdout) == list(range(20))
    assert api.asked.count(2) == tries
    assert f"fetch.mjs: {api.url[:-1]}2: " in done.stderr
    assert why in done.stderr


def test_it_waits_for_a_slow_reader(command: list[str], api: Pages, start: Start) -> None:
    api.pages, api.padding = 200, "x" * 10_000  # 100 kB a page, 20 MB in all
    process = start(command)
    assert process.stdout is not None
    first = process.stdout.read(1)
    seen = -1
    while seen != len(api.asked):  # until it has asked for nothing more for a while
        seen = len(api.asked)
        time.sleep(0.3)
    assert seen < 30  # what pipes and buffers hold
    assert numbers((first + process.stdout.read()).decode()) == list(range(2000))
    assert process.wait(10) == 0


def test_a_reader_that_leaves_is_no_error(command: list[str], api: Pages, start: Start) -> None:
    api.pages, api.padding = 200, "x" * 10_000
    process = start(command)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(10) == 0
    assert process.stderr.read() == b""


def test_usage(command: list[str]) -> None:
    done = fetch(command[:2])
    assert done.returncode == 2
    assert done.stderr == "usage: node fetch.mjs URL\n"
