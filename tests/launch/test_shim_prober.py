"""The checks that the shim makes by its own code, against real listeners and files."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.launch.shim.locate import shim_path
from tests.launch.shim_client import DEADLINE_S, KILLED, Pipe, Probed, Shim

BINARY = str(shim_path())
PASSES, FAILS, ASKED_WRONGLY = Probed(0, 0), Probed(1, 0), Probed(2, 0)
OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture(scope="module")
def shim() -> Iterator[Shim]:
    with Shim(BINARY) as running:
        yield running


def check(shim: Shim, *arguments: str, **job: str) -> Probed:
    return shim.probe(["connector-probe", *arguments], {}, env={}, **job)


def by_hand(*arguments: str) -> int:
    """The exit code of what a container's health check is."""
    return subprocess.run([BINARY, "connector-probe", *arguments], check=False, timeout=DEADLINE_S).returncode


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        try:
            listener.bind((host, 0))
        except OSError as error:
            pytest.skip(f"nothing can listen at {host} here: {error}")
        listener.listen(8)
        listener.settimeout(DEADLINE_S)
        yield listener


@contextmanager
def answering(*pieces: bytes, host: str = "127.0.0.1") -> Iterator[tuple[int, list[bytes]]]:
    """A server for one request; gives its port, and what it was asked once the block is left or the check is done."""
    asked: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE_S)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            asked.append(request)
            for piece in pieces:
                try:
                    connection.send(piece)
                except (BrokenPipeError, ConnectionResetError):
                    return

    with listening(host) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            thread.join(DEADLINE_S)


def closed_port() -> int:
    with listening() as listener:
        return int(listener.getsockname()[1])


# ---- tcp


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_tcp(shim: Shim, host: str) -> None:
    with listening() as listener:
        port = listener.getsockname()[1]
        assert check(shim, "tcp", f"{host}:{port}") == PASSES
    assert check(shim, "tcp", f"{host}:{port}") == FAILS


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_tcp_version_6(shim: Shim, host: str) -> None:
    with listening("::1") as listener:
        port = listener.getsockname()[1]
        assert check(shim, "tcp", f"{host}:{port}") == PASSES
        assert check(shim, "tcp", f"127.0.0.1:{port}") == FAILS


@pytest.mark.parametrize(
    "address",
    [
        *("", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:99999999999999999999"),
        *("127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1: 1", "127.0.0.1:1x", "127.0.0.1:0x50", "127.1:80", "1.2.3:80"),
        *("example.org:80", "LOCALHOST:80", "::1:80", "[::1]", "[::1]80", "[]:80", "[:80", "]:80", "[127.0.0.1]:80"),
        *("256.0.0.1:80", "127.0.0.1 :80", "x" * 63 + ":80", "x" * 64 + ":80", "x" * 10_000 + ":80", "[" * 64 + ":80"),
    ],
)
def test_addresses_that_are_none(shim: Shim, address: str) -> None:
    assert check(shim, "tcp", address) == ASKED_WRONGLY


# ---- http


@pytest.mark.parametrize("status", [100, 199, 200, 204, 301, 399, 400, 404, 500, 599, 999])
def test_http_status(shim: Shim, status: int) -> None:
    with answering(b"HTTP/1.1 %d Some words\r\nContent-Length: 0\r\n\r\n" % status) as (port, _):
        assert check(shim, "http", f"http://127.0.0.1:{port}/") == (PASSES if 200 <= status < 400 else FAILS)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"HTTP/1.0 200 OK\n"], PASSES),
        ([b"HTTP/1.1 200\r\n"], PASSES),
        ([b"HTTP/1.1 200 " + b"x" * 100_000], PASSES),
        ([bytes([byte]) for byte in OK], PASSES),
        ([b""], FAILS),
        ([b"HTTP/1.1 200"], FAILS),
        ([b"\r\n" + OK], FAILS),
        ([b"HTTP/2 200 OK\r\n"], FAILS),
        ([b"HTTP/1.1 2000 OK\r\n"], FAILS),
        ([b"HTTP/1.1 20 OK\r\n"], FAILS),
        ([b"HTTP/1.1 +200 OK\r\n"], FAILS),
        ([b"HTTP/1.1  200 OK\r\n"], FAILS),
        ([b"HTTP/1.1200 OK\r\n"], FAILS),
        ([b"SSH-2.0-OpenSSH\r\n"], FAILS),
        ([b"\0" * 100_000], FAILS),
        ([b"\xff" * 100_000], FAILS),
        ([b"HTTP/1.1 " + b"9" * 100_000 + b"\n"], FAILS),
        ([b"%n%s%n\n"], FAILS),
    ],
)
def test_answers(shim: Shim, pieces: list[bytes], expected: Probed) -> None:
    with answering(*pieces) as (port, _):
        assert check(shim, "http", f"http://127.0.0.1:{port}/") == expected


@pytest.mark.parametrize(
    ("host", "path", "asked_host", "asked_path"),
    [
        ("127.0.0.1", "", "127.0.0.1", "/"),
        ("localhost", "/health", "localhost", "/health"),
        ("", "/a/b?c=d%20e", "127.0.0.1", "/a/b?c=d%20e"),
        ("127.0.0.1", "?now", "127.0.0.1", "/?now"),
        ("127.0.0.1", "/a#part", "127.0.0.1", "/a"),
        ("127.0.0.1", "/" + "x" * 8000, "127.0.0.1", "/" + "x" * 8000),
    ],
)
def test_request(shim: Shim, host: str, path: str, asked_host: str, asked_path: str) -> None:
    with answering(OK) as (port, asked):
        assert check(shim, "http", f"http://{host}:{port}{path}") == PASSES
    lines = asked[0].decode().split("\r\n")
    assert lines[0] == f"GET {asked_path} HTTP/1.1"
    assert lines[1] == f"Host: {asked_host}:{port}"
    assert "Connection: close" in lines
    assert lines[-2:] == ["", ""]


def test_http_version_6(shim: Shim) -> None:
    with answering(OK, host="::1") as (port, asked):
        assert check(shim, "http", f"http://[::1]:{port}/") == PASSES
    assert f"\r\nHost: [::1]:{port}\r\n".encode() in asked[0]


def test_nothing_listens(shim: Shim) -> None:
    assert check(shim, "http", f"http://127.0.0.1:{closed_port()}/") == FAILS


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "http://",
            "http:/127.0.0.1/",
            "https://127.0.0.1/",
            "HTTP://127.0.0.1/",
            "127.0.0.1:80",
            "ftp://127.0.0.1",
        ),
        *("http://example.org/", "http://user@127.0.0.1/", "http://127.0.0.1:x/", "http://127.0.0.1:/", "http://::1/"),
        *("http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://127.0.0.1/\t", "http://127.0.0.1/ü"),
        "http://127.0.0.1/" + "x" * 10_000,
    ],
)
def test_urls_that_are_none(shim: Shim, url: str) -> None:
    expected = {"http://": {PASSES, FAILS}}.get(url, {ASKED_WRONGLY})  # an empty host, at port 80
    assert check(shim, "http", url) in expected


# ---- file


def test_file(shim: Shim, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    assert check(shim, "file", str(path)) == FAILS
    path.touch()
    assert check(shim, "file", str(path)) == PASSES
    assert check(shim, "file", "ready", folder=str(tmp_path)) == PASSES
    assert check(shim, "file", "ready") == FAILS
    assert check(shim, "file", str(tmp_path)) == PASSES
    path.unlink()
    path.symlink_to(tmp_path / "gone")
    assert check(shim, "file", str(path)) == FAILS
    assert check(shim, "file", "") == FAILS


# ---- how it is asked


@pytest.mark.parametrize(
    "arguments", [[], ["tcp"], ["file"], ["file", "/", "/"], ["", ""], ["udp", "127.0.0.1:1"], ["tcp", ":1", "x"]]
)
def test_asked_wrongly(shim: Shim, arguments: list[str]) -> None:
    assert check(shim, *arguments) == ASKED_WRONGLY


@pytest.mark.parametrize("name", ["connector-prober", "connector-prob", "/connector-probe", "Connector-probe"])
def test_other_names_are_programs(shim: Shim, name: str) -> None:
    assert shim.probe([name, "file", "/"]).stage == "x"


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_hangs_until_it_is_killed(shim: Shim, kind: str) -> None:
    """A listener that never answers; with a full backlog, not even to a connect."""
    with listening() as listener:
        port = listener.getsockname()[1]
        listener.listen(0)
        waiting: list[socket.socket] = []
        try:
            while kind == "tcp":
                connection = socket.socket()
                waiting.append(connection)
                connection.settimeout(0.2)
                try:
                    connection.connect(("127.0.0.1", port))
                except TimeoutError:
                    break
            shim.send_probe(["connector-probe", kind, f"{'http://' if kind == 'http' else ''}127.0.0.1:{port}"], {})
            if kind == "http":
                waiting.append(listener.accept()[0])
                waiting[0].settimeout(DEADLINE_S)
                assert waiting[0].recv(3) == b"GET"
            shim.send(b"k")
            assert shim.probed() == KILLED
        finally:
            for connection in waiting:
                connection.close()


def test_as_the_program_itself(shim: Shim) -> None:
    """It begins and ends like any other, with the limits of its job."""
    shim.start(["connector-probe", "file", "/"])
    assert shim.ended().code == 0
    shim.start(["connector-probe", "tcp", "127.0.0.1:x"])
    assert shim.ended().code == 2
    with listening() as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        shim.start(["connector-probe", "tcp", address], {}, limits={resource.RLIMIT_NOFILE: 0})
        assert shim.ended().code == 1  # it may open no socket


def test_holds_nothing_of_the_shims(shim: Shim) -> None:
    """As the fork of the shim that it is."""
    with listening() as listener, Pipe() as out:
        port = listener.getsockname()[1]
        shim.start(["connector-probe", "http", f"http://127.0.0.1:{port}/"], {7: out.writing}, env={})
        out.close_writing()
        with listener.accept()[0] as connection:
            assert connection.recv(3) == b"GET"
            pid = only_child_of(shim.process.pid)
            if os.geteuid() == 0:
                names = {link.name: str(link.readlink()).split(":")[0] for link in Path(f"/proc/{pid}/fd").iterdir()}
                assert names.pop("7") == "pipe"
                assert list(names.values()) == ["socket"]  # its own
        assert shim.ended().code == 1
        assert out.read_all() == b""


def only_child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


@pytest.mark.parametrize(("status", "code"), [(b"200 OK", 0), (b"503 Service Unavailable", 1)])
def test_a_container_asks_by_a_command_of_its_own(status: bytes, code: int) -> None:
    with answering(b"HTTP/1.1 " + status + b"\r\n\r\n") as (port, asked):
        assert by_hand("http", f"http://127.0.0.1:{port}/health") == code
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\n")
    assert by_hand("http", f"http://127.0.0.1:{port}/health") == 1
    assert by_hand("http") == 2


def test_a_command_of_its_own_does_not_wait_for_ever() -> None:
    with listening() as listener:
        assert by_hand("http", f"http://127.0.0.1:{listener.getsockname()[1]}/") == -signal.SIGALRM
