"""`connector keys`: what it makes protects channels, and is not written over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.connector import Connector
from tests.e2e.test_run import sent
from tests.e2e.test_runners import COUNT, two


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
