"""A sidecar whose programs are ready late or fall ill, and what a program in a container may have."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.addresses import free_port
from tests.children.build import script, sink, source
from tests.e2e.connector import Connector, until
from tests.e2e.sidecar import Sidecar
from tests.e2e.test_run import sent
from tests.e2e.test_sidecar import COUNT, DEADLINE_S, NAMES, elsewhere, three

# -- health


def test_health_and_readiness(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, 10_000_000)) as sidecar:
        sidecar.begin()
        check = ["sidecar", "--check-health", "--health", f"127.0.0.1:{sidecar.port}"]
        assert elsewhere(tmp_path).command(*check).code == 0
        status, body = sidecar.ask("/ready")
        waits = {f"{name}: waiting for a container of `{name}`" for name in NAMES}
        assert status == 503
        until(lambda: set(sidecar.ask("/ready")[1]["waiting"]) == waits, "all to be waited for")
        sidecar.containers(*NAMES)
        until(lambda: sidecar.ask("/ready")[0] == 200, "all to run")
        status, body = sidecar.ask("/ready")
        assert (body["ok"], body["pipeline"], body["stopping"], body["waiting"]) == (True, "test", None, [])
        assert {name: each["state"] for name, each in body["processors"].items()} == dict.fromkeys(NAMES, "running")
        assert sidecar.ask("/anything")[0] == 404
        assert sidecar.running is not None
        sidecar.running.signal(signal.SIGTERM)
        sidecar.finish()
        result = elsewhere(tmp_path).command(*check)
        assert (result.code, "nobody answers at" in result.stderr) == (1, True)


def test_a_channel_whose_far_end_is_away_is_not_ready(tmp_path: Path) -> None:
    port = free_port()
    pipeline = {
        "processors": {"source": {"command": ["sleep", "1000"], "writes": "far"}},
        "channels": {"far": {"kind": "tcp", "address": f"127.0.0.1:{port}"}},
    }
    with Sidecar(tmp_path, pipeline) as sidecar:
        sidecar.begin()
        sidecar.containers("source")
        until(lambda: sidecar.ask("/ready")[1]["processors"]["source"]["ready"], "it to run")
        status, body = sidecar.ask("/ready")
        assert (status, list(body["channels"])) == (503, ["far"])
        assert "the other end is not there: connection refused" in body["channels"]["far"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", 200),
        (b"HEAD /health HTTP/1.1\r\nHost: me\r\n\r\n", 200),
        (b"GET /health?x=1 HTTP/1.0\r\n\r\n", 200),
        (b"POST /health HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000, 400),
    ],
)
def test_health_answers_requests_only(tmp_path: Path, request_: bytes, status: int) -> None:
    with Sidecar(tmp_path, three(tmp_path)) as sidecar:
        sidecar.begin()
        with socket.create_connection(("127.0.0.1", sidecar.port), timeout=DEADLINE_S) as asks:
            asks.sendall(request_)
            with asks.makefile("rb") as answer:
                assert answer.readline().startswith(f"HTTP/1.1 {status} ".encode())


def test_who_says_nothing_is_turned_away(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path)) as sidecar, contextlib.ExitStack() as stack:
        sidecar.begin()
        address = ("127.0.0.1", sidecar.port)
        silent = [stack.enter_context(socket.create_connection(address, DEADLINE_S)) for _ in range(16)]
        assert sidecar.ask("/health") == (0, {})  # there are as many as there may be
        assert [each.recv(100) for each in silent] == [b""] * 16
        assert sidecar.ask("/health")[0] == 200


@pytest.mark.parametrize("address", ["8099", "host:port", "host:99999", "on"])
def test_what_is_no_address_for_health(tmp_path: Path, address: str) -> None:
    Connector(tmp_path).write(three(tmp_path))
    result = Connector(tmp_path).command("sidecar", "--health", address)
    assert (result.code, f'"{address}" is no address for health' in result.stderr) == (2, True)


def test_an_address_for_health_that_is_taken(tmp_path: Path) -> None:
    Connector(tmp_path).write(three(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = Connector(tmp_path).command("sidecar", "--bridges", str(tmp_path), "--health", address)
    assert (result.code, f"health cannot be answered at {address}" in result.stderr) == (3, True)


# -- what a program in a container may have


def test_named_ports_go_through_pipes(tmp_path: Path) -> None:
    pipeline = {
        "processors": {
            "words": {"command": ["printf", r"a\nb\n"], "writes": "words"},
            "extra": {"command": ["printf", r"c\nd\n"], "writes": "extra"},
            "both": {
                "command": ["sh", "-c", 'cat; cat "$CONNECTOR_READER_MORE" > "$CONNECTOR_WRITER_COPY"'],
                "reads": {"stdin": "words", "more": "extra"},
                "writes": {"stdout": "one", "copy": "two"},
            },
            "left": {"command": sink(tmp_path / "left"), "reads": "one"},
            "right": {"command": sink(tmp_path / "right"), "reads": "two"},
        }
    }
    with Sidecar(tmp_path, pipeline) as sidecar:
        sidecar.begin()
        sidecar.containers("words", "extra", "both", "left", "right")
        sidecar.finish().completed()
    assert ((tmp_path / "left").read_text(), (tmp_path / "right").read_text()) == ("a\nb\n", "c\nd\n")


@pytest.mark.parametrize(
    "middle",
    [
        {"contract": "batch", "command": ["cat", "{batch}"]},
        {"contract": "batch", "command": ["cat"], "batch": {"messages": 700}},
        {"contract": "acknowledged", "command": script("acknowledges", "echo", 1, 0)},
        {"contract": "acknowledged", "command": script("acknowledges", "echo", 1, 0), "bridge": "zeromq"},
        {"bridge": "zeromq", "command": script("sockets", "echo"), "contract": "stream"},
    ],
    ids=["batch file", "batch", "acknowledged", "dealer", "sockets"],
)
def test_every_contract_and_bridge(tmp_path: Path, middle: dict[str, Any]) -> None:
    with Sidecar(tmp_path, three(tmp_path, 5000, **middle)) as sidecar:
        sidecar.begin()
        sidecar.containers(*NAMES)
        sidecar.finish().completed()
        assert (tmp_path / "out").read_bytes() == sent(5000)
        assert not list(sidecar.shims.path.glob("*/z*"))


def test_a_pipe_from_one_container_to_the_next(tmp_path: Path) -> None:
    pipeline = {
        "processors": {
            "source": {"command": source(COUNT), "writes": "raw"},
            "sink": {"command": sink(tmp_path / "out"), "reads": "raw", "restart": "never"},
        },
        "channels": {"raw": {"kind": "pipe"}},
    }
    with Sidecar(tmp_path, pipeline) as sidecar:
        sidecar.begin()
        sidecar.containers("source", "sink")
        result = sidecar.finish()
    assert result.code == 0, result
    assert (tmp_path / "out").read_bytes() == sent(COUNT)


def test_checks_are_made_in_the_container(tmp_path: Path) -> None:
    ready = {"command": ["sh", "-c", 'test "$WHERE" = container'], "every": "50ms"}
    with Sidecar(tmp_path, three(tmp_path, ready=ready)) as sidecar:
        sidecar.begin()
        sidecar.containers("source", "sink")
        sidecar.shims.start("middle", WHERE="container")
        sidecar.finish().completed()
        assert (tmp_path / "out").read_bytes() == sent(COUNT)


def test_what_a_program_logs_is_in_the_log_of_its_own_container(tmp_path: Path) -> None:
    loud = ["sh", "-c", "echo first >&2; cat; printf '\\033[31mlast\\n' >&2"]
    with Sidecar(tmp_path, three(tmp_path, 100, command=loud), "--logs", "containers") as sidecar:
        sidecar.begin()
        read, write = os.pipe()
        with open(read, "rb") as log:  # noqa: PTH123 - a descriptor
            sidecar.containers("source", "sink")
            sidecar.shims.start("middle", log=write)
            os.close(write)
            result = sidecar.finish()
            result.completed()
            assert log.read().splitlines()[-2:] == [b"first", b"\\x1b[31mlast"]
        assert "first" not in result.output
