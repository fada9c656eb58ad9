"""What protects a network channel: asked of whoever listens where others can come, not of those who go there.

Who goes there shows a certificate only where the listener asks for one: where both are in one file, that is where its
`tls` has a `ca`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runner.spec import scanner
from runner.spec.findings import Scope
from runner.spec.listeners import Meeting, host_at, is_loopback
from runner.spec.model import Channel, Network, Runner, Tls

CURVE_SERVER, CURVE_CLIENT = "curve.server", "curve.client"
"""In the folder of a channel's keys: each with `.public` and `.secret`, as text (Z85)."""


def tls_at(network: Network, meeting: Meeting, here: str) -> Tls | None:
    """The certificates that the runner `here` uses."""
    tls = network.tls
    if tls is None or here in meeting.listening or not meeting.listening or tls.ca is not None:
        return tls
    return replace(tls, cert=None, key=None)  # they are the listener's, and it asks for none


def curve_files(*, listens: bool) -> tuple[str, ...]:
    """The files with keys that one side needs: its own pair, and the other's public key."""
    own, other = (CURVE_SERVER, CURVE_CLIENT) if listens else (CURVE_CLIENT, CURVE_SERVER)
    return f"{own}.public", f"{own}.secret", f"{other}.public"


def check_protection(
    scope: Scope,
    channel: Channel,
    table: Mapping[str, Any],
    meeting: Meeting,
    runners: Mapping[str, Runner],
    *,
    only: str | None,
) -> None:
    """What the runners need that have an end of `channel` (`only`: this one) is there. `table` is as it was written."""
    assert channel.network is not None
    for here in (*meeting.listening, *meeting.connecting):
        if only is not None and here != only:
            continue
        if here in meeting.listening:
            _check_listener(scope, channel.network, _place(table), host_at(channel.network, meeting, here, runners))
        _check_files(scope, channel.network, meeting, here)


def _check_listener(scope: Scope, network: Network, key: scanner.Path, host: str) -> None:
    tls = network.tls
    if tls is not None and (tls.cert is None or tls.key is None):
        scope.error(("tls",), "who listens shows a certificate", 'write cert = "FILE" and key = "FILE"', at="key")
    if network.servers or is_loopback(host) or network.insecure or tls is not None or network.keys is not None:
        return
    message = f"others can come to {host}, and nothing that is sent there is protected"
    if network.token is not None:
        message += ", the token neither"
    scope.error(
        key, message, 'write tls = { … } (keys = "…" for zeromq; connector keys makes both), or insecure = true'
    )


def _place(table: Mapping[str, Any]) -> scanner.Path:
    return next(((key,) for key in ("url", "address") if key in table), ("kind",))


def _check_files(scope: Scope, network: Network, meeting: Meeting, here: str) -> None:
    for key, path in _certificates(tls_at(network, meeting, here)):
        if not path.is_file():
            scope.error(("tls", key), f"the file {path} is not there", "connector keys makes one")
    if network.keys is None or not network.keys.is_dir():
        return
    for name in curve_files(listens=here in meeting.listening):
        if not (network.keys / name).is_file():
            scope.error(("keys",), f"the file {network.keys / name} is not there", "connector keys makes it")


def _certificates(tls: Tls | None) -> Iterator[tuple[str, Path]]:
    if tls is not None:
        for key in ("ca", "cert", "key"):
            path: Path | None = getattr(tls, key)
            if path is not None:
                yield key, path
