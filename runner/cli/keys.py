"""`connector keys DIR`: certificates and keys for channels that leave their machine."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import re
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
_LONGEST_HOST = 253
_LABEL = "[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"


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
    names = list(dict.fromkeys(("localhost", "127.0.0.1", "::1", *map(_checked, hosts))))
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
        "   # tcp, websocket, http"
    )
    click.echo(f'keys = "{folder}"   # zeromq')
    return 0


def _checked(host: str) -> str:
    """A host that a certificate can be for. Raises UsageError."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    if len(host) > _LONGEST_HOST or not re.fullmatch(rf"(\*\.)?{_LABEL}(\.{_LABEL})*", host):
        raise click.UsageError(f"--host {host!r} is no host: write a name such as runner.example, or an address")
    return host


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
    """A certificate; without `names` that of an authority.

    It has all that RFC 5280 asks for (4.2.1): strict programs, such as Python from 3.13 on, take no less.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(_constraints(authority=names is None), critical=True)
        .add_extension(_usage(authority=names is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if names is not None:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(by, hashes.SHA256())


def _constraints(*, authority: bool) -> x509.BasicConstraints:
    from cryptography import x509

    return x509.BasicConstraints(ca=authority, path_length=0 if authority else None)


def _usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
