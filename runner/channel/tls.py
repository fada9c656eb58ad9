"""The two sides of TLS, from a channel's certificates."""

from __future__ import annotations

import contextlib
import socket
import ssl
from contextvars import ContextVar
from typing import Any

from runner.errors import RunnerError
from runner.spec.model import Tls

_OURS = (
    "unknown ca",
    "bad certificate",
    "unsupported certificate",
    "certificate revoked",
    "certificate expired",
    "certificate unknown",
    "decrypt error",
    "access denied",
)
"""What a server that looked at our certificate says of it (RFC 8446, 6.2)."""
accepted: ContextVar[socket.socket | None] = ContextVar("accepted", default=None)
"""The connection on which a handshake of ours as a server goes on."""


class _Server(ssl.SSLObject):
    """asyncio closes a connection whose handshake has failed without having sent the alert that says why."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        """See `ssl`."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if (connection := accepted.get()) is not None:
                with contextlib.suppress(OSError):
                    connection.send(self.outgoing.read())
            raise


class _ServerContext(ssl.SSLContext):
    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *more: Any, **named: Any) -> ssl.SSLObject:
        """See `ssl`."""
        made = super().wrap_bio(incoming, outgoing, *more, **named)
        if isinstance(made, _Server):
            made.outgoing = outgoing
        return made


def listening(tls: Tls) -> ssl.SSLContext:
    """For who listens; with a `ca`, whoever comes must show a certificate of it. Raises RunnerError."""
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Server
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
    if (alert := next((each for each in _OURS if f"alert {each}" in reason), None)) is not None:
        return f"it does not accept the certificate that is shown here ({alert})"
    return f"TLS: {reason}"
