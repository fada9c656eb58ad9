"""Certificates and keys for tests, as `connector keys` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.cli.keys import command
from runner.spec.model import Tls


@dataclass(frozen=True)
class Authority:
    server: Tls
    client: Tls

    @property
    def asking(self) -> Tls:
        """A server that wants a certificate of this authority to be shown."""
        return Tls(ca=self.client.ca, cert=self.server.cert, key=self.server.key)


def authority(folder: Path) -> Authority:
    """A certificate authority, and a certificate of it for this machine; made once for each folder."""
    keys = curve_keys(folder)
    return Authority(Tls(cert=keys / "runner.pem", key=keys / "runner.key"), Tls(ca=keys / "ca.pem"))


def curve_keys(folder: Path) -> Path:
    """A folder with the keys of both sides, those for CURVE among them; made once for each folder."""
    keys = folder / "curve"
    if not keys.exists():
        assert command.callback is not None
        command.callback(keys, (), force=False)
    return keys
