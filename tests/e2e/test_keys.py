"""`connector keys`: what it makes protects channels, and is not written over."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.channel import tls
from runner.spec.model import Tls
from tests.children.build import HERE
from tests.conftest import need_program
from tests.e2e.connector import Connector
from tests.e2e.test_run import sent
from tests.e2e.test_runners import COUNT, agreed, two


@pytest.mark.parametrize("kind", ["tcp", "websocket", "zeromq"])
def test_two_runners_with_what_it_made(connector: Connector, tmp_path: Path, kind: str) -> None:
    made = connector.command("keys", "keys", "--host", "edge.example")
    assert made.code == 0, str(made)
    assert "edge.example" in made.stdout
    tls = {"ca": "keys/ca.pem", "cert": "keys/runner.pem", "key": "keys/runner.key"}
    how: dict[str, Any] = {"keys": "keys"} if kind == "zeromq" else {"tls": tls}
    result = connector.run(two(tmp_path, kind, **how))
    assert result.code == 0, str(result)
    assert (tmp_path / "out").read_bytes() == sent(COUNT)
    for name in ("runner.key", "curve.server.secret", "curve.client.secret"):
        assert (connector.folder / "keys" / name).stat().st_mode & 0o777 == 0o600


TLS_FILES = {"edge": ("ca.pem",), "store": ("runner.pem", "runner.key")}
CURVE_FILES = {
    "edge": ("curve.client.public", "curve.client.secret", "curve.server.public"),
    "store": ("curve.server.public", "curve.server.secret", "curve.client.public"),
}


@pytest.mark.parametrize("kind", ["tcp", "websocket", "zeromq"])
def test_each_runner_has_what_it_needs_and_no_more(connector: Connector, tmp_path: Path, kind: str) -> None:
    """Who connects has no certificate, and trusts the authority as its machine does."""
    assert connector.command("keys", "keys").code == 0
    files = CURVE_FILES if kind == "zeromq" else TLS_FILES
    tls = {"cert": "keys/runner.pem", "key": "keys/runner.key"}
    how: dict[str, Any] = {"keys": "keys"} if kind == "zeromq" else {"tls": tls}
    pipeline = two(tmp_path, kind, count=1000, **how)
    trust = {"SSL_CERT_FILE": "keys/ca.pem"}
    with contextlib.ExitStack() as stack:
        running = []
        for name in ("edge", "store"):
            (tmp_path / name / "keys").mkdir(parents=True)
            for file in files[name]:
                shutil.copy(connector.folder / "keys" / file, tmp_path / name / "keys" / file)
            begun = Connector(tmp_path / name).start(pipeline, "--runner", name, environment=trust)
            running.append(stack.enter_context(begun))
        agreed(running[0].finish(), running[1].finish(), 1000)


def test_nothing_is_written_over(connector: Connector) -> None:
    assert connector.command("keys", "keys").code == 0
    before = (connector.folder / "keys" / "runner.key").read_bytes()
    again = connector.command("keys", "keys")
    assert again.code == 1
    assert "already" in again.stderr
    assert (connector.folder / "keys" / "runner.key").read_bytes() == before
    assert connector.command("keys", "keys", "--force").code == 0
    assert (connector.folder / "keys" / "runner.key").read_bytes() != before


def test_a_folder_that_cannot_be_is_said(connector: Connector) -> None:
    (connector.folder / "file").write_text("")
    refused = connector.command("keys", "file/keys")
    assert refused.code == 1
    refused.expect_no_traceback()


@pytest.mark.parametrize("host", ["", "a b", "ü.example", "http://a", "a:1", "-a", "a" * 64, "a." * 127 + "a"])
def test_what_is_no_host_is_said(connector: Connector, host: str) -> None:
    refused = connector.command("keys", "keys", "--host", host)
    assert refused.code == 2
    assert "is no host" in refused.stderr
    assert not (connector.folder / "keys").exists()


# -- what others think of the certificates


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """What listens with the certificates, as our listeners do, and looks strictly at those that are shown to it."""
    context = tls.listening(Tls(folder / "ca.pem", folder / "runner.pem", folder / "runner.key"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.server_port}/"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


IN_NODE = """
const { readFileSync } = require("fs");
const [url, folder] = process.argv.slice(1);
const read = (name) => readFileSync(`${folder}/${name}`);
const options = { ca: read("ca.pem"), cert: read("runner.pem"), key: read("runner.key") };
require("https").get(url, options, (answer) => answer.pipe(process.stdout));
"""
IN_PYTHON = """
import ssl, sys, urllib.request
url, folder = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
context.load_cert_chain(f"{folder}/runner.pem", f"{folder}/runner.key")
print(urllib.request.urlopen(url, context=context).read().decode(), end="")
"""
OTHERS = {
    "python": ("python3", "-c", IN_PYTHON, "URL", "DIR"),
    "node": ("node", "-e", IN_NODE, "URL", "DIR"),
    "curl": ("curl", "-sS", "--cacert", "DIR/ca.pem", "--cert", "DIR/runner.pem", "--key", "DIR/runner.key", "URL"),
    "java": ("java", str(HERE / "Connects.java"), "URL", "DIR"),
}


@pytest.mark.parametrize("other", list(OTHERS))
def test_strict_programs_take_them(connector: Connector, other: str) -> None:
    command = OTHERS[other]
    need_program(command[0])
    assert connector.command("keys", "keys").code == 0
    folder = connector.folder / "keys"
    with server(folder) as url:
        words = [word.replace("URL", url).replace("DIR", str(folder)) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "hello", done.stderr


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
@pytest.mark.parametrize("host", [["-verify_hostname", "edge.example"], ["-verify_ip", "10.0.0.7"]])
def test_openssl_verifies_them_strictly(connector: Connector, purpose: str, host: list[str]) -> None:
    need_program("openssl")
    assert connector.command("keys", "keys", "--host", "edge.example", "--host", "10.0.0.7").code == 0
    folder = connector.folder / "keys"
    words = ["openssl", "verify", "-x509_strict", "-purpose", purpose, *host, "-CAfile", str(folder / "ca.pem")]
    done = subprocess.run([*words, str(folder / "runner.pem")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
