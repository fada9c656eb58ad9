"""`connector keys DIR`: certificates and keys for channels that leave their machine."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.errors import RunnerError
from runner.spec.protection import CURVE_CLIENT, CURVE_SERVER

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

_DAYS = 825
_CA_DAYS = 3650


@click.command(name="keys")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--host", "hosts", multiple=True, help="A name or address that the listener is reached by; may be repeated."
)
@click.option("--force", is_flag=True, help="Write over what is there.")
def command(folder: Path, hosts: tuple[str, ...], *, force: bool) -> int:
    """Make in FOLDER what protects channels between runners: certificates for TLS, CURVE keys for ZeroMQ.

    Both sides of a channel get the whole folder; whoever has it may join. It is good for localhost, 127.0.0.1 and ::1,
    and for each --host.
    """
    names = list(dict.fromkeys(("localhost", "127.0.0.1", "::1", *hosts)))
    made = {**_certificates(names), **_curve()}
    taken = [name for name in made if (folder / name).exists()]
    if taken and not force:
        raise RunnerError(
            f"{folder} has {taken[0]} already", remedy="write another folder, or --force to write over it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            _write(folder / name, data, secret=name.endswith((".key", ".secret")))
    except OSError as error:
        raise RunnerError(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    click.echo(f"{folder}: certificates and keys for {', '.join(names)}, good for {_DAYS} days")
    click.echo(
        f'tls = {{ ca = "{folder}/ca.pem", cert = "{folder}/runner.pem", key = "{folder}/runner.key" }}'
        "   # tcp, websocket"
    )
    click.echo(f'keys = "{folder}"   # zeromq')
    return 0


def _write(path: Path, data: bytes, *, secret: bool) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _curve() -> dict[str, bytes]:
    """A pair of CURVE keys for each side."""
    import zmq

    made: dict[str, bytes] = {}
    for name in (CURVE_SERVER, CURVE_CLIENT):
        public, secret = zmq.curve_keypair()
        made |= {f"{name}.public": public + b"\n", f"{name}.secret": secret + b"\n"}
    return made


def _certificates(hosts: list[str]) -> dict[str, bytes]:
    """An authority of its own, and a certificate of it that both sides show; the authority's key is not kept."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("connector runner", hosts[-1][:64])
    )
    ca = _signed(ca_name, ca_name, ca_key, ca_key, days=_CA_DAYS, names=None)
    names = x509.SubjectAlternativeName([_name(each) for each in hosts])
    certificate = _signed(name, ca_name, key, ca_key, days=_DAYS, names=names)
    return {
        "ca.pem": ca.public_bytes(serialization.Encoding.PEM),
        "runner.pem": certificate.public_bytes(serialization.Encoding.PEM),
        "runner.key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }


def _name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    names: x509.SubjectAlternativeName | None,
) -> x509.Certificate:
    """A certificate; without `names` that of an authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(by, hashes.SHA256())
