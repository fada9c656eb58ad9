"""A server that wants a certificate: who connects is told so, and by whom it is not accepted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.channel import tls
from runner.channel.plain.bounds import Bounds
from runner.spec.model import Tls
from tests.certificates import authority
from tests.channel.plain_end import End, run
from tests.waiting import until

QUICK = Bounds(first_wait_s=0.01, longest_wait_s=0.05)
KINDS = [("tcp", "reader"), ("tcp", "writer"), ("websocket", "reader"), ("websocket", "writer"), ("http", "writer")]
WANTED = {
    False: "it wants a certificate to be shown",
    True: "it does not accept the certificate that is shown here",
}


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


@contextlib.contextmanager
def _other_server(shown: Tls, version: ssl.TLSVersion) -> Iterator[int]:
    """A server of somebody else that lets nobody in; its port."""
    context = tls.listening(shown)
    context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), client, context.wrap_socket(client, server_side=True) as wrapped:
                    wrapped.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


async def _told(kind: str, side: str, port: int, client: Tls, text: str) -> None:
    end = End(side, kind, listens=False, port=port, tls=client, bounds=QUICK)
    async with end.alive():
        if side == "writer":
            end.write(b"one")
        await until(lambda: text in end.said, text)


@pytest.mark.parametrize(
    ("kind", "side", "shows"), [*((*each, False) for each in KINDS), ("tcp", "writer", True), ("http", "writer", True)]
)
def test_the_cause_is_told_where_a_listener_of_ours_wants_a_certificate(
    kind: str, side: str, shows: bool, tmp_path: Path
) -> None:
    async def act() -> None:
        made, other = authority(_folder(tmp_path, "made")), authority(_folder(tmp_path, "other"))
        client = Tls(ca=made.client.ca, cert=other.server.cert, key=other.server.key) if shows else made.client
        server = End("writer" if side == "reader" else "reader", kind, tls=made.asking)
        async with server.alive():
            await server.connected()
            await _told(kind, side, server.port, client, WANTED[shows])
            assert "cannot be let in" in server.said

    run(act)


@pytest.mark.parametrize(
    ("kind", "side", "version"),
    [("http", "writer", ssl.TLSVersion.TLSv1_2), *((*each, ssl.TLSVersion.TLSv1_3) for each in KINDS)],
)
def test_the_cause_is_told_where_any_server_wants_a_certificate(
    kind: str, side: str, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    async def act() -> None:
        made = authority(tmp_path)
        with _other_server(made.asking, version) as port:
            await _told(kind, side, port, made.client, WANTED[False])

    run(act)
