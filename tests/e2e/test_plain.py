"""Any other program at the far end of a channel: `nc`, `curl`, a browser's websocket, pyzmq."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import psutil
import pytest
import zmq

from tests.addresses import free_port, listens
from tests.certificates import authority, curve_keys
from tests.children.build import sink, source
from tests.e2e import connector as driver
from tests.e2e.connector import Connector, Running, steady
from tests.e2e.test_run import sent

COUNT = 3000
PATIENCE_S = 60.0
"""Runners and their programs take long to start where much else runs."""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for the event that makes `condition` true."""
    return driver.until(condition, what, PATIENCE_S)


def reads(tmp_path: Path, kind: str, port: int, **more: Any) -> dict[str, Any]:
    """A sink that takes what comes from outside."""
    return {
        "processors": {"sink": {"command": sink(tmp_path / "out"), "reads": "x"}},
        "channels": {"x": {"kind": kind, "address": f"127.0.0.1:{port}", "peer": "plain", **more}},
    }


def writes(kind: str, port: int, count: int = COUNT, **more: Any) -> dict[str, Any]:
    """A source whose messages go to whoever is outside."""
    return {
        "processors": {"source": {"command": source(count), "writes": "x"}},
        "channels": {"x": {"kind": kind, "address": f"127.0.0.1:{port}", "peer": "plain", **more}},
    }


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def out(tmp_path: Path) -> bytes:
    file = tmp_path / "out"
    return file.read_bytes() if file.exists() else b""


def _lines(tmp_path: Path, count: int) -> bool:
    return out(tmp_path).count(b"\n") == count


def stopped(running: Running) -> None:
    running.signal(signal.SIGTERM)
    running.finish().expect(143, "stopped")


# -- TCP


def test_a_raw_client_sends_and_its_end_is_that_of_the_channel(connector: Connector, tmp_path: Path) -> None:
    port = free_port()
    with connector.start(reads(tmp_path, "tcp", port, end="close")) as running:
        until(lambda: listens(port), "the listener")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(sent(COUNT) + b"no newline")
        running.finish().completed()
    assert out(tmp_path) == sent(COUNT) + b"no newline\n"


def test_a_port_that_is_free_is_told_and_reported(connector: Connector, tmp_path: Path) -> None:
    with connector.start(reads(tmp_path, "tcp", 0, end="close")) as running:
        told = until(
            lambda: re.search(r"channel `x`: listens at (tcp://127\.0\.0\.1:(\d+))$", running.output(), re.MULTILINE),
            "it",
        )
        with socket.create_connection(("127.0.0.1", int(told[2]))) as client:
            client.sendall(sent(3))
        report = running.finish().completed()
    assert out(tmp_path) == sent(3)
    assert report["channels"]["x"]["listens"] == told[1]


def test_many_clients_are_merged_whole_messages_only(connector: Connector, tmp_path: Path) -> None:
    port = free_port()
    with connector.start(reads(tmp_path, "tcp", port)) as running:
        until(lambda: listens(port), "the listener")
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for number in range(100):
            for index, client in enumerate(clients):
                client.sendall(b"%d %d" % (index, number))
        for number, client in enumerate(clients):
            client.sendall(b"\nlast %d\n" % number)
        until(lambda: out(tmp_path).count(b"last") == 5, "all of it")
        clients[0].sendall(b"half a mess")
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()  # a reset: what was half is no message
        stopped(running)
    lines = out(tmp_path).splitlines()
    assert len(lines) == 10
    assert not any(b"half" in line for line in lines)


def test_netcat_gets_what_is_written(connector: Connector) -> None:
    netcat, port = tool("nc"), free_port()
    with connector.start(writes("tcp", port)) as running:
        until(lambda: listens(port), "the listener")
        taken = subprocess.run(
            [netcat, "127.0.0.1", str(port)], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
        report = running.finish().completed()
    assert taken.stdout.endswith(sent(COUNT)[-1000:])
    assert report["channels"]["x"]["readers"]["far end"]["acknowledged"] == COUNT


def test_as_a_client_it_comes_back(connector: Connector, tmp_path: Path) -> None:
    port = free_port()
    with connector.start(reads(tmp_path, "tcp", port, listen=False)) as running:
        until(lambda: "connection refused" in running.output(), "the cause")
        for number in range(3):
            with socket.create_server(("127.0.0.1", port)) as server:
                client, _ = server.accept()
                client.sendall(b"%d\n" % number)
                client.close()
            until(partial(_lines, tmp_path, number + 1), "the message")
        stopped(running)
    assert out(tmp_path) == b"0\n1\n2\n"


def test_nobody_is_there_makes_the_writer_wait(connector: Connector) -> None:
    port = free_port()
    with connector.start(writes("tcp", port, count=100_000, listen=False, capacity="64KiB")) as running:
        until(lambda: "nobody is there at tcp://" in running.output(), "the cause")
        with socket.create_server(("127.0.0.1", port)) as server:
            client, _ = server.accept()
            data = b""
            with client:
                while more := client.recv(1 << 16):
                    data += more
        running.finish().completed()
    assert data == sent(100_000)


def test_a_message_that_is_too_long_ends_its_connection_only(connector: Connector, tmp_path: Path) -> None:
    port = free_port()
    with connector.start(reads(tmp_path, "tcp", port, max_message="1KiB")) as running:
        until(lambda: listens(port), "the listener")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"good\n" + b"x" * 2000)
            assert client.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"again\n")
            until(lambda: b"again" in out(tmp_path), "the next one")
        until(lambda: "is let go" in running.output(), "the cause")
        stopped(running)


def test_a_durable_channel_goes_on_where_it_was_acknowledged_after_a_kill(connector: Connector) -> None:
    port, count = free_port(), 400_000  # several times what the kernel holds of a connection
    pipeline = writes("tcp", port, count=count, durability="process", capacity="1MiB")
    pipeline["processors"]["source"]["resume"] = "skip"
    parts: list[bytes] = []
    for kills in range(3):
        with connector.start(pipeline) as running:
            until(partial(listens, port), "the listener")
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.settimeout(30)
                data = bytearray()
                while kills < 2 and len(data) < 1 << 20:
                    data += client.recv(1 << 16)
                if kills < 2:
                    steady(partial(_written, running.pid), "the kernel's buffers to be full")
                    running.process.kill()
                    running.process.wait()
                with contextlib.suppress(ConnectionResetError):
                    while more := client.recv(1 << 16):
                        data += more
            parts.append(bytes(data[: data.rindex(b"\n") + 1]))
            if kills == 2:
                report = running.finish().completed()
    due = sent(count).splitlines()
    got = [line for part in parts for line in part.splitlines()]
    known = set(got)
    assert len(known) == len(got), "none came twice"
    assert [line for line in due if line in known] == got, "whole, and in order"
    assert got[-1] == due[-1]
    account = report["channels"]["x"]["readers"]["far end"]
    assert account["carried"] > 0
    assert 0 < account["indeterminate"] <= account["carried"]
    assert count - len(got) < 6_000, "what was on its way at the two kills, and no more"


def _written(pid: int) -> int:
    chars: int = psutil.Process(pid).io_counters().write_chars
    return chars


# -- websockets


def test_a_browsers_websocket_both_ways(connector: Connector, tmp_path: Path) -> None:
    inward, outward = free_port(), free_port()
    pipeline = {
        "processors": {"echo": {"command": ["cat"], "contract": "one-to-one", "reads": "x", "writes": "y"}},
        "channels": {
            "x": {"kind": "websocket", "url": f"ws://127.0.0.1:{inward}/in", "peer": "plain", "listen": True},
            "y": {"kind": "websocket", "url": f"ws://127.0.0.1:{outward}/out", "peer": "plain", "listen": True},
        },
    }

    async def talk() -> list[str]:
        async with aiohttp.ClientSession() as session:
            taker = await session.ws_connect(f"http://127.0.0.1:{outward}/out")
            giver = await session.ws_connect(f"http://127.0.0.1:{inward}/in")
            for number in range(100):
                await giver.send_str(f"größe {number}")
            found = [(await taker.receive(timeout=20)).data for _ in range(100)]
            await giver.close()
            await taker.close()
            return found

    with connector.start(pipeline) as running:
        until(lambda: listens(inward) and listens(outward), "the listeners")
        assert asyncio.run(talk()) == [f"größe {number}" for number in range(100)]
        stopped(running)


NODE = """
const WebSocket = require('ws'); const socket = new WebSocket(process.argv[2]);
socket.on('open', () => { for (let n = 0; n < 50; n++) socket.send(`from node ${n}`); socket.close(1000); });
"""


def test_nodes_ws(connector: Connector, tmp_path: Path) -> None:
    node, npm, port = tool("node"), tool("npm"), free_port()
    installed = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "ws@8"], cwd=tmp_path, capture_output=True, timeout=50, check=False
    )
    if installed.returncode:
        pytest.skip("npm cannot install ws here")
    (tmp_path / "send.js").write_text(NODE)
    with connector.start(reads(tmp_path, "websocket", port, path="/in", end="close")) as running:
        until(lambda: listens(port), "the listener")
        subprocess.run([node, "send.js", f"ws://127.0.0.1:{port}/in"], cwd=tmp_path, timeout=20, check=True)
        running.finish().completed()
    assert out(tmp_path) == b"".join(b"from node %d\n" % number for number in range(50))


# -- HTTP


def curl(*arguments: str) -> str:
    return subprocess.run(
        [tool("curl"), "-sS", *arguments], capture_output=True, text=True, timeout=30, check=True
    ).stdout


@pytest.mark.parametrize("durability", ["memory", "process"])
def test_curl_posts(connector: Connector, tmp_path: Path, durability: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/in"
    with connector.start(reads(tmp_path, "http", port, path="/in", durability=durability)) as running:
        until(lambda: listens(port), "the listener")
        assert curl("-d", "one", url) == "1 taken\n"
        many = ("-H", "Content-Type: application/x-ndjson", "--data-binary", '{"a":1}\n{"a":2}\n{"a":3}')
        assert curl(*many, "-H", "Idempotency-Key: k1", url) == "3 taken\n"
        assert curl(*many, "-H", "Idempotency-Key: k1", url) == "3 taken before\n"
        assert "405" in curl("-o", "/dev/null", "-w", "%{http_code}", url)
        assert "400" in curl("-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "two\nlines", url)
        until(lambda: out(tmp_path).count(b"\n") == 4, "all of it")
        if durability == "process":
            running.process.kill()
            running.process.wait()
        else:
            stopped(running)
    assert out(tmp_path) == b'one\n{"a":1}\n{"a":2}\n{"a":3}\n'
    if durability == "process":
        with connector.start(reads(tmp_path, "http", port, path="/in", durability=durability)) as running:
            until(lambda: listens(port), "the listener")
            assert curl(*many, "-H", "Idempotency-Key: k1", url) == "3 taken before\n", "also after a kill"
            stopped(running)


def test_a_token_is_asked_for(connector: Connector, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    pipeline = reads(tmp_path, "http", port, token="env:TEST_TOKEN")
    with connector.start(pipeline, environment={"TEST_TOKEN": "open sesame"}) as running:
        until(lambda: listens(port), "the listener")
        assert curl("-o", "/dev/null", "-w", "%{http_code}", "-d", "x", url) == "401"
        assert curl("-H", "Authorization: Bearer open sesame", "-d", "x", url) == "1 taken\n"
        stopped(running)
        assert "sesame" not in running.output()


def test_curl_streams_lines_and_events(connector: Connector) -> None:
    for events in (False, True):
        port = free_port()
        with connector.start(writes("http", port, count=200)) as running:
            until(partial(listens, port), "the listener")
            header = ("-H", "Accept: text/event-stream") if events else ()
            said = curl("-N", *header, f"http://127.0.0.1:{port}/")
            running.finish().completed()
        if events:
            data = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: ")]
            assert "id: 200" in said
            said = "\n".join(data) + "\n"
        assert said.encode() == sent(200)


class Api(BaseHTTPRequestHandler):
    """A server of somebody else, which fails now and then."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[dict[str, bytes]] = {}
    fails = 3

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Api.seen[self.headers["Idempotency-Key"]] = body
        Api.fails -= 1
        self.send_response(503 if Api.fails >= 0 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        last = int(self.headers.get("Last-Event-ID", "0"))
        for number in range(last + 1, last + 11):
            self.wfile.write(b"id: %d\ndata: %s\n\n" % (number, json.dumps({"n": number}).encode()))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def api(handler: type[BaseHTTPRequestHandler] = Api) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_as_a_client_it_posts_until_it_is_taken(connector: Connector) -> None:
    Api.seen.clear()
    Api.fails = 3
    with api() as port:
        connector.run(writes("http", port, count=500, listen=False)).completed()
    assert b"".join(Api.seen.values()) == sent(500)


class Mute(BaseHTTPRequestHandler):
    """A server that takes what comes and does not answer the first requests in time."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[tuple[str, bytes]]] = []
    answers: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Mute.requests.append((self.headers["Idempotency-Key"], body))
        Mute.answers.wait(30)
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_what_was_posted_and_not_answered_is_posted_with_the_same_key_after_a_kill(connector: Connector) -> None:
    Mute.requests.clear()
    Mute.answers.clear()
    with api(Mute) as port:
        pipeline = writes("http", port, count=500, listen=False, durability="process")
        pipeline["processors"]["source"]["resume"] = "skip"
        for _ in range(2):
            with connector.start(pipeline) as running:
                until(partial(_asked, len(Mute.requests)), "a request")
                running.process.kill()
                running.process.wait()
        Mute.answers.set()
        report = connector.run(pipeline).completed()
    assert Mute.requests[0] == Mute.requests[1] == Mute.requests[2], "the same messages, with the same key"
    taken = dict(Mute.requests)
    assert b"".join(taken.values()) == sent(500), "once for each key"
    assert report["channels"]["x"]["readers"]["far end"]["indeterminate"] == 0


def _asked(before: int) -> bool:
    return len(Mute.requests) > before


def test_an_answer_that_refuses_is_named(connector: Connector) -> None:
    class No(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(403, "no", "you may not")

    with api(No) as port:
        result = connector.run(writes("http", port, count=5, listen=False))
    result.failed()
    assert "refuses message 1 to 5 with status 403" in result.output


def test_as_a_client_it_reads_a_stream_of_events_and_goes_on_where_it_was(connector: Connector, tmp_path: Path) -> None:
    with api() as port, connector.start(reads(tmp_path, "http", port, listen=False)) as running:
        until(lambda: out(tmp_path).count(b"\n") >= 30, "three answers")
        stopped(running)
    numbers = [json.loads(line)["n"] for line in out(tmp_path).splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))


# -- ZeroMQ


@pytest.mark.parametrize("protected", [False, True])
def test_pyzmq_pushes_and_pulls(connector: Connector, tmp_path: Path, protected: bool) -> None:
    inward, outward = free_port(), free_port()
    keys = {"keys": str(curve_keys(tmp_path))} if protected else {}
    pipeline = {
        "processors": {"echo": {"command": ["cat"], "contract": "one-to-one", "reads": "x", "writes": "y"}},
        "channels": {
            name: {"kind": "zeromq", "address": f"127.0.0.1:{port}", "peer": "plain", **keys}
            for name, port in (("x", inward), ("y", outward))
        },
    }
    context = zmq.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    for each in (push, pull):
        each.linger = 0
        if protected:
            public, secret = (
                (tmp_path / "curve" / f"curve.client.{kind}").read_bytes().strip() for kind in ("public", "secret")
            )
            each.curve_publickey, each.curve_secretkey = public, secret
            each.curve_serverkey = (tmp_path / "curve" / "curve.server.public").read_bytes().strip()
    try:
        with connector.start(pipeline) as running:
            until(lambda: listens(inward) and listens(outward), "the listeners")
            pull.connect(f"tcp://127.0.0.1:{outward}")
            push.connect(f"tcp://127.0.0.1:{inward}")
            for number in range(200):
                push.send(b"%d" % number)
            found: list[bytes] = []
            while len(found) < 200:
                assert pull.poll(20_000)
                found.append(pull.recv())
            assert found == [b"%d" % number for number in range(200)]
            stopped(running)
    finally:
        context.destroy(linger=0)


def test_curl_over_tls(connector: Connector, tmp_path: Path) -> None:
    made, port = authority(tmp_path), free_port()
    tls = {"cert": str(made.server.cert), "key": str(made.server.key)}
    with connector.start(reads(tmp_path, "http", port, tls=tls)) as running:
        until(lambda: listens(port), "the listener")
        assert curl("--cacert", str(made.client.ca), "-d", "x", f"https://127.0.0.1:{port}/") == "1 taken\n"
        until(lambda: out(tmp_path) == b"x\n", "the message")
        stopped(running)


def test_a_slow_client_holds_the_writer_at_a_bound(connector: Connector) -> None:
    port = free_port()
    with connector.start(writes("tcp", port, count=2_000_000, capacity="64KiB")) as running:
        until(lambda: listens(port), "the listener")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.recv(100)
            time.sleep(0.5)
            before = running.family()
            assert before, "the source waits"
            assert running.process.poll() is None
        running.process.kill()
