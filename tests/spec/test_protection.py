"""What protects a channel: asked of who listens where others can come, not of who goes there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import SpecError
from runner.plan.part import part
from runner.spec.load import load_text
from runner.spec.model import Network
from tests.spec.marked import Case, case, check_case, parametrized
from tests.spec.test_listeners import spread, table
from tests.spec.test_network import alone

TWO = spread("a +x", "b x")
"""a goes to b, which is at 10.0.0.2."""
FILES = ("ca.pem", "cert.pem", "key.pem")
MUTUAL = 'tls = { ca = "ca.pem", cert = "cert.pem", key = "key.pem" }\n'
ONE_SIDED = 'tls = { cert = "cert.pem", key = "key.pem" }\n'
CURVE = [f"curve.{side}.{kind}" for side in ("server", "client") for kind in ("public", "secret")]


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")


def of(text: str, folder: Path, runner: str | None) -> Network:
    network = part(load_text(text, folder=folder, runner=runner).pipeline, runner).channels["x"].network
    assert network is not None
    return network


WRONG = [
    case("open", TWO + table(more="", address="¶:7400"), "others can come to 10.0.0.2"),
    case(
        "a token is read by everybody on the way",
        (TWO + table(more='token = "env:PATH"\n', address="¶:7400")).replace("tcp", "websocket"),
        "nothing that is sent there is protected, the token neither",
    ),
    case("no certificate", TWO + table(more="¶tls = {}\n"), 'write cert = "FILE" and key = "FILE"'),
    case(
        "no certificate to listen with, plain",
        alone(table(more='peer = "plain"\n¶tls = {}\n', address="127.0.0.1:1")),
        "who listens shows a certificate",
    ),
    case(
        "a key of its own that is not there",
        alone('[channels.x]\nkind = "http"\nurl = "https://a/b"\ntls = { cert = ¶"c", key = ¶"k" }\n', "writes"),
        "c is not there",
        "k is not there",
    ),
]


@parametrized(WRONG)
def test_what_is_missing_is_said(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


@pytest.mark.parametrize(
    ("more", "address"),
    [
        ("", "127.0.0.1:7400"),
        ("", "localhost:7400"),
        ("", "[::1]:7400"),
        ("insecure = true\n", "0.0.0.0:7400"),
        (MUTUAL, "0.0.0.0:7400"),
        (ONE_SIDED, ":7400"),
    ],
)
def test_what_is_enough(more: str, address: str, tmp_path: Path) -> None:
    put(tmp_path, *FILES)
    assert of(spread("a +x", "b x", hosts="127" not in address) + table(more=more, address=address), tmp_path, "b").port


def test_who_connects_to_a_runner_of_another_file_needs_nothing(tmp_path: Path) -> None:
    text = alone(table(more="tls = {}\n", address="10.0.0.9:7400"), "writes")
    network = of(text, tmp_path, None)
    assert network.tls is not None
    assert (network.host, network.tls.cert) == ("10.0.0.9", None)


@pytest.mark.parametrize(
    ("more", "files", "needs"),
    [
        (ONE_SIDED, {"b": ["cert.pem", "key.pem"]}, "the certificate is the listener's alone"),
        (MUTUAL, {"a": FILES, "b": FILES}, "with a ca the listener asks for one"),
        (
            'keys = "k"\n',
            {"a": [f"k/{CURVE[each]}" for each in (0, 2, 3)], "b": [f"k/{each}" for each in CURVE[:3]]},
            "",
        ),
    ],
)
def test_each_runner_needs_what_it_uses(more: str, files: dict[str, Any], needs: str, tmp_path: Path) -> None:
    """With exactly its files there each part loads; with one less it does not."""
    text = TWO + table(more=more)
    text = text.replace("tcp", "zeromq") if "keys" in more else text
    for runner in "ab":
        wanted = files.get(runner, ())
        folder = tmp_path / runner
        (folder / "k").mkdir(parents=True)
        put(folder, *wanted)
        tls = of(text, folder, runner).tls
        assert tls is None or (tls.cert is not None) == bool(wanted), needs
        for name in wanted:
            (folder / name).unlink()
            with pytest.raises(SpecError, match=r"is not there"):
                of(text, folder, runner)
            put(folder, name)
