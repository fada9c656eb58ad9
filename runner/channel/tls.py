"""The two sides of TLS, from a channel's certificates."""

from __future__ import annotations

import ssl

from runner.errors import RunnerError
from runner.spec.model import Tls


def listening(tls: Tls) -> ssl.SSLContext:
    """For who listens; with a `ca`, whoever comes must show a certificate of it. Raises RunnerError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def connecting(tls: Tls) -> ssl.SSLContext:
    """For who connects: the other side's certificate is looked at, and must be for its name. Raises RunnerError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca is None:
        context.load_default_certs()
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (tls.ca, tls.cert, tls.key) if path is not None)
        raise RunnerError(f"the certificates {files} cannot be used: {error}") from error


def why_not(error: BaseException) -> str:
    """What went wrong with TLS, in words that end a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = str(getattr(error, "reason", None) or error).replace("_", " ").lower()
    if "wrong version number" in reason or "http request" in reason:
        return "one side speaks TLS and the other does not"
    if "certificate required" in reason or "handshake failure" in reason:
        return "it wants a certificate to be shown"
    return f"TLS: {reason}"
