"""What is found out about an engine, whatever answers in its place."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.launch.machine import engine as engines
from tests.launch.machines import GATHER, HERE, SOCKET, gathered, listener, look


def answering(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.0 {status}\r\nApi-Version: 1.45\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


def info(**given: Any) -> bytes:
    return json.dumps({"ServerVersion": "26.1", "KernelVersion": HERE.kernel, "Architecture": "amd64"} | given).encode()


def test_an_engine_that_never_answers_is_left_in_time(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as address:
        began = time.monotonic()
        found = look(address, within_s=0.3)
        took_s = time.monotonic() - began
    assert found.trouble == "silent"
    assert found.problem is not None
    assert "does not answer within 0.3 s" in found.problem
    assert 0.3 <= took_s < 30


def test_an_engine_that_never_ends_its_answer_is_left_in_time(tmp_path: Path) -> None:
    """A limit for each read would never be reached."""

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        gone = threading.Event()
        while not gone.wait(0.02):
            connection.sendall(b" ")

    with listener(tmp_path / "s", trickle) as address:
        began = time.monotonic()
        assert look(address, within_s=0.4).trouble == "silent"
        assert time.monotonic() - began < 30


def test_a_full_queue_of_connections_is_no_hang(tmp_path: Path) -> None:
    with listener(tmp_path / "s", backlog=0) as address, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            filler.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                filler.connect(str(tmp_path / "s"))
        assert look(address, within_s=0.3).trouble == "silent"


def test_an_answer_without_end_is_bounded_in_bytes(tmp_path: Path) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while sent < 64 << 20:
            connection.sendall(b" " * (1 << 20))
            sent += 1 << 20

    with listener(tmp_path / "s", flood) as address:
        assert look(address, within_s=3).trouble == "strange"
    assert sent < 16 << 20


@pytest.mark.parametrize(
    "serve",
    [
        answering(b"hello"),
        answering(b"[]"),
        answering(b"{}"),
        answering(b'{"ServerVersion": 7}'),
        answering(b"[" * 200_000),
        answering(b'{"ServerVersion": "\xff"}'),
        answering(info(), status="500 Internal Server Error"),
        answering(info(), status="404"),
        lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
        lambda connection: connection.sendall(b"\r\n\r\n"),
        lambda connection: connection.close(),
    ],
)
def test_what_is_no_engine_is_strange(serve: Callable[[socket.socket], None], tmp_path: Path) -> None:
    with listener(tmp_path / "s", serve) as address:
        found = look(address)
    assert found.trouble == "strange"
    assert found.problem is not None
    assert "does not answer as an engine does" in found.problem


def test_what_an_engine_says(tmp_path: Path) -> None:
    options = ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]
    said = info(SecurityOptions=options, CgroupVersion="2", MemoryLimit=True, Driver="btrfs")
    with listener(tmp_path / "s", answering(said)) as address:
        found = look(address)
    assert found.trouble is None
    assert (found.version, found.api, found.arch, found.storage) == ("26.1", "1.45", "x86_64", "btrfs")
    assert (found.seccomp, found.rootless, found.remapped) == (True, True, False)
    assert (found.hierarchy, found.memory, found.pids) == ("v2", True, False)


def test_an_engine_on_another_kernel_is_elsewhere(tmp_path: Path) -> None:
    with listener(tmp_path / "s", answering(info(KernelVersion="5.15.49-linuxkit"))) as address:
        found = look(address)
    assert found.trouble == "elsewhere"
    assert "5.15.49-linuxkit" in str(found.problem)


def test_an_engine_outside_of_our_container_is_elsewhere(bubblewrap: str, tmp_path: Path) -> None:
    """Whoever listens is in another PID namespace: files that we name are not there for it."""
    code = GATHER.replace("gather(surroundings=True)", "gather()")
    words = (bubblewrap, "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc")
    with listener(tmp_path / "s", answering(info())) as address:
        inside = gathered(*words, code=code, DOCKER_HOST=address, container="test")
    assert inside["engine"]["trouble"] == "elsewhere"
    assert "is in a container" in inside["engine"]["problem"]


@pytest.mark.parametrize(
    ("address", "trouble", "words"),
    [
        ("unix:///nowhere/at/all.sock", "absent", "there is no socket /nowhere/at/all.sock"),
        ("tcp://127.0.0.1:2375", "remote", "not known to be on this one"),
        ("ssh://somebody@example.org", "remote", "ssh://somebody@example.org"),
        ("http://127.0.0.1:2375", "remote", "pipes do not reach"),
        ("nonsense", "address", "names no address"),
        ("unix://relative.sock", "address", "no absolute path"),
        ("unix:///" + "x" * 200, "address", "too long"),
        ("unix:///etc/passwd", "refused", "nobody listens"),
        ("unix:///etc/passwd/docker.sock", "address", "Not a directory"),
    ],
)
def test_addresses_that_lead_to_no_engine(address: str, trouble: str, words: str) -> None:
    found = look(address)
    assert (found.trouble, found.chosen_by) == (trouble, "DOCKER_HOST")
    assert words in str(found.problem)
    assert found.version == ""


def test_a_socket_that_nobody_listens_at_any_more(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as address:
        pass
    found = look(address)
    assert found.trouble == "refused"
    assert "not running" in str(found.problem)


def test_the_address_is_found_as_the_docker_command_finds_it(tmp_path: Path) -> None:
    contexts = tmp_path / "docker" / "contexts" / "meta"
    digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # sha256 of "foo"
    (contexts / digest).mkdir(parents=True)
    meta = {"Name": "foo", "Endpoints": {"docker": {"Host": "unix:///foo.sock"}}}
    (contexts / digest / "meta.json").write_text(json.dumps(meta))
    environ = {"DOCKER_CONFIG": str(tmp_path / "docker"), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert engines.engine_address({**environ, "DOCKER_CONTEXT": "foo"}) == (
        "unix:///foo.sock",
        "the docker context foo",
    )
    assert engines.engine_address({**environ, "DOCKER_CONTEXT": "foo", "DOCKER_HOST": "unix:///x"})[0] == "unix:///x"
    gone = engines.look(HERE, {**environ, "DOCKER_CONTEXT": "gone"})
    assert (gone.trouble, gone.chosen_by) == ("address", "the docker context gone")
    (tmp_path / "docker" / "config.json").write_text('{"currentContext": "foo"}')
    assert engines.engine_address(environ)[0] == "unix:///foo.sock"
    for text in ('{"currentContext": "default"}', "no json", "[]", '{"currentContext": 5}'):
        (tmp_path / "docker" / "config.json").write_text(text)
        assert engines.engine_address(environ)[0] in {f"unix://{SOCKET}", f"unix://{tmp_path}/docker.sock"}
