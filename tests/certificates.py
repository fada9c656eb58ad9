"""Certificates and keys for tests, made afresh."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import zmq
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runner.spec.model import Tls


@dataclass(frozen=True)
class Authority:
    server: Tls
    client: Tls

    @property
    def asking(self) -> Tls:
        """A server that wants a certificate of this authority to be shown."""
        return Tls(ca=self.client.ca, cert=self.server.cert, key=self.server.key)


def authority(folder: Path, host: str = "127.0.0.1") -> Authority:
    """A certificate authority, and a certificate of it for `host`; made once for each folder."""
    ca, cert, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    if not ca.exists():
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        own = _signed(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=None), None)
        host_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)), x509.DNSName("localhost")])
        signed = _signed(name, ca_name, host_key, ca_key, x509.BasicConstraints(ca=False, path_length=None), names)
        ca.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            host_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return Authority(Tls(cert=cert, key=key), Tls(ca=ca))


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    constraints: x509.BasicConstraints,
    names: x509.SubjectAlternativeName | None,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(constraints, critical=True)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(by, hashes.SHA256())


def curve_keys(folder: Path) -> Path:
    """A folder with CURVE keys of both sides; made once for each folder."""
    keys = folder / "curve"
    if not keys.exists():
        keys.mkdir()
        for name in ("curve.server", "curve.client"):
            public, secret = zmq.curve_keypair()
            (keys / f"{name}.public").write_bytes(public + b"\n")
            (keys / f"{name}.secret").write_bytes(secret + b"\n")
    return keys
