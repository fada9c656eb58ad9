"""Channels that leave their runner, as their tables say it. Who listens is `listeners`, what protects `protection`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import UNSET

from runner.spec import scanner
from runner.spec.channel_document import ChannelDocument, TlsDocument
from runner.spec.findings import Scope, listed, show
from runner.spec.model import Network, Tls
from runner.spec.ports import check_codec
from runner.spec.settings import secret_of
from runner.spec.values import size_bytes

KINDS = ("tcp", "websocket", "http", "zeromq", "nats")
JOINING = ("tcp", "websocket", "zeromq", "nats")
"""The kinds that can join two runners."""
_SCHEMES = {
    "tcp": ("tcp",),
    "websocket": ("ws", "wss"),
    "http": ("http", "https"),
    "zeromq": ("tcp",),
    "nats": ("nats",),
}
_ONLY = {
    "listen": ("tcp", "websocket", "http", "zeromq"),
    "address": ("tcp", "websocket", "http", "zeromq"),
    "url": KINDS,
    "peer": KINDS,
    "end": KINDS,
    "subject": ("nats",),
    "stream": ("nats",),
    "group": ("nats",),
    "tls": ("tcp", "websocket", "http", "nats"),
    "keys": ("zeromq",),
    "token": ("websocket", "http", "nats"),
    "insecure": ("tcp", "websocket", "http", "zeromq"),
}
_SHARED = {"path": ("file", "websocket", "http"), "codec": ("file", *KINDS), "max_message": ("file", *KINDS)}
_DEFAULT_PORT = {"ws": 80, "wss": 443, "http": 80, "https": 443}


def network_of(
    scope: Scope,
    document: ChannelDocument,
    table: Mapping[str, Any],
    codecs: Sequence[str],
    *,
    env: Mapping[str, str],
    folder: Path,
    reads_here: bool,
    whole: bool,
) -> Network | None:
    """The network of a channel, with errors for what is wrong with it; None where it has none.

    `codecs` are those of its processors, writers first; `table` holds the keys that were written. `reads_here`: with a
    plain peer, whether its processors read. Not `whole`: its token is another runner's to know.
    """
    kind = document.kind
    for key, kinds in {**_ONLY, **_SHARED}.items():
        if key in table and kind not in kinds and not (key in _SHARED and kind not in KINDS):
            scope.error((key,), f"is for {_kinds(kinds)}", f'write kind = "{kinds[0]}", or leave it out', at="key")
    if kind not in KINDS:
        return None
    plain = _plain(scope, document)
    place = _Place(scope, document)
    tls = _tls(scope, document, folder, place)
    keys = None if document.keys is UNSET or kind != "zeromq" else _folder(scope, folder / document.keys, document.keys)
    binds = _binds(scope, document, plain=plain, reads_here=reads_here)
    if place.any_port:
        _check_any_port(scope, place, plain=plain, listens=(binds == "reader") == reads_here)
    token = None
    if document.token is not UNSET and whole:
        token = secret_of(scope, ("token",), document.token, env, folder)
    return Network(
        codec=_codec(scope, document, codecs),
        host=place.host,
        port=place.port,
        path=place.path,
        binds=binds,
        plain=plain,
        max_message_bytes=size_bytes(document.max_message),
        tls=tls,
        keys=keys,
        token=token,
        insecure=document.insecure or not place.known,
        end=_end(scope, document, kind, listens=binds == "reader", reads_here=reads_here) if plain else "never",
        servers=place.servers,
        subject=None if document.subject is UNSET else document.subject,
        stream=None if document.stream is UNSET else document.stream,
        group=None if document.group is UNSET else document.group,
    )


def _check_any_port(scope: Scope, place: _Place, *, plain: bool, listens: bool) -> None:
    """Port 0 stands for one that is free, which only who listens finds out."""
    if not plain:
        message, remedy = "0 is no port at which two runners can meet", "write one from 1 to 65535"
    elif not listens:
        message, remedy = "0 is no port to connect to", "write that of the program which listens, from 1 to 65535"
    else:
        return
    scope.error(place.key, message, remedy)


def _kinds(kinds: Sequence[str]) -> str:
    quoted = [f'"{each}"' for each in kinds]
    return f"channels of kind {listed(quoted)}"


def _plain(scope: Scope, document: ChannelDocument) -> bool:
    if document.kind == "http" and document.peer == "runner":
        scope.error(("peer",), "http does not join two runners", f"{_kinds(JOINING)} do")
    plain = document.kind == "http" or document.peer == "plain"
    if not plain and document.end is not UNSET:
        scope.error(("end",), "another runner says itself when it has ended", 'leave it out, or write peer = "plain"')
    return plain


def _end(
    scope: Scope, document: ChannelDocument, kind: str, *, listens: bool, reads_here: bool
) -> Literal["never", "close"]:
    """What ends the channel: only who sends over a connection can end it."""
    if document.end is UNSET or document.end == "never":
        return "never"
    if not reads_here:
        scope.error(("end",), "is for a channel that is read here; its writers end this one", "leave it out", at="key")
    elif kind in {"zeromq", "nats"}:
        scope.error(("end",), f"nobody is told over {kind} that a peer has ended", 'write "never"')
    elif kind == "http" and listens:
        scope.error(("end",), "a request that has ended says nothing of those that come", 'write "never"')
    return document.end


def _binds(scope: Scope, document: ChannelDocument, *, plain: bool, reads_here: bool) -> Literal["reader", "writer"]:
    written = document.listen
    if not plain:
        if isinstance(written, bool):
            scope.error(("listen",), "says not which of the two runners", 'write "reader" or "writer"')
            return "reader"
        return "reader" if written is UNSET else written
    if isinstance(written, str):
        scope.error(("listen",), "with a plain peer there is one runner", "write true or false")
    listens = document.url is UNSET if written is UNSET else written is True
    return "reader" if listens == reads_here else "writer"


def _written(scope: Scope) -> set[str]:
    """The keys of the table as it was written, those with errors among them."""
    table: Any = scope.source.data
    for part in scope.prefix:
        table = table.get(part, {})
    return set(table)


class _Place:
    """Where the ends meet, of `address` and `path`, or of `url`. `key` is where it was written."""

    def __init__(self, scope: Scope, document: ChannelDocument) -> None:
        self.host: str | None = None
        self.port = 0
        self.known = document.address is not UNSET or document.url is not UNSET
        """Whether it is; where it is not, one error says so, and none that it is open to others."""
        self.any_port = False
        """Whether port 0 was written: one that is free."""
        self.path = "/"
        self.scheme = ""
        self.servers: tuple[str, ...] = ()
        self.key: scanner.Path = ("kind",)
        self._scope = scope
        if document.address is not UNSET and document.url is not UNSET:
            scope.error(("url",), "address says it already", "leave one of them out", at="key")
        if document.url is not UNSET:
            self.key = ("url",)
            self._of_url(document.kind, document.url)
        elif document.address is not UNSET:
            self.key = ("address",)
            self._of_address(document.address)
        elif not {"address", "url"} & _written(scope):
            needs = 'url = "nats://HOST:4222"' if document.kind == "nats" else 'address = "HOST:PORT" or ":PORT"'
            scope.error(("kind",), f"a {document.kind} channel needs to know where its ends meet", f"write {needs}")
        if document.path is not UNSET and document.kind in {"websocket", "http"}:
            self.path = document.path
            if document.url is not UNSET:
                scope.error(("path",), "the URL has it already", "leave it out", at="key")
            elif not re.fullmatch(r"/[^\s?#]*", self.path):
                scope.error(("path",), f"{show(self.path)} is no path of a URL", 'it begins with "/"')

    def _of_address(self, written: str) -> None:
        host, _, port = written.rpartition(":")
        self.host = host.strip("[]") or None
        self._set_port(port)

    def _set_port(self, port: str) -> None:
        self.port = int(port)
        self.any_port = self.port == 0
        if self.port > 65535:
            self._scope.error(self.key, f"{port} is no port", "a port is a number from 1 to 65535")

    def _of_url(self, kind: str, written: str) -> None:
        schemes = _SCHEMES[kind]
        if kind == "nats":
            self.servers = tuple(each.strip() for each in written.split(","))
            wrong = [each for each in self.servers if not re.fullmatch(r"nats://[^\s/,]+/?", each)]
            if wrong:
                self._scope.error(self.key, "a server of nats is written nats://HOST:PORT", at="key")
            return
        found = re.fullmatch(r"(\w+)://(\[[^\]]+\]|[^:/?#@]*)(?::([0-9]{1,5}))?(/[^\s?#]*)?", written)
        if found is None or found[1] not in schemes:
            says = listed([f"{each}://HOST:PORT" for each in schemes])
            self._scope.error(self.key, f"is no URL of a {kind} channel", f"write {says}", at="key")
            self.known = False
            return
        self.scheme, self.host, self.path = found[1], found[2].strip("[]") or None, found[4] or "/"
        if found[3] is None and found[1] not in _DEFAULT_PORT:
            self._scope.error(self.key, "has no port", f"write {found[1]}://HOST:PORT", at="key")
            self.known = False
        else:
            self._set_port(found[3] or str(_DEFAULT_PORT[found[1]]))
        if self.path != "/" and kind in {"tcp", "zeromq"}:
            self._scope.error(self.key, f"a {kind} channel has no path", f"write {found[1]}://HOST:PORT", at="key")


def _tls(scope: Scope, document: ChannelDocument, folder: Path, place: _Place) -> Tls | None:
    written = document.tls
    if not isinstance(written, TlsDocument):
        return Tls() if place.scheme in {"wss", "https"} else None
    if place.scheme in {"ws", "http"}:
        secure = {"ws": "wss", "http": "https"}[place.scheme]
        scope.error(("url",), f"{place.scheme}:// is not encrypted, and there are certificates", f"write {secure}://")
    if (written.cert is UNSET) != (written.key is UNSET):
        scope.error(("tls",), "a certificate and its key go together", "write both", at="key")
    paths: dict[str, Path | None] = {}
    for key in ("ca", "cert", "key"):
        value = getattr(written, key)
        paths[key] = None if value is UNSET else folder / value
    if document.kind == "http" and written.name is not UNSET:
        scope.error(("tls", "name"), "the URL of an http channel says whom its certificate is for", "leave it out")
    return Tls(paths["ca"], paths["cert"], paths["key"], None if written.name is UNSET else written.name)


def _folder(scope: Scope, path: Path, written: str) -> Path:
    if not path.is_dir():
        scope.error(("keys",), f"{show(written)} is no folder", f"connector keys {written} makes one")
    return path


def _codec(scope: Scope, document: ChannelDocument, codecs: Sequence[str]) -> str:
    codec = codecs[0] if codecs else "lines"
    if document.codec is not UNSET:
        check_codec(scope, ("codec",), document.codec)
        codec = document.codec
    if "raw" in {codec, *codecs} and {codec} != {*codecs, codec}:
        message = f'messages are framed as "{codec}" on the way, and its processors have {listed(list(codecs), "and")}'
        scope.error(("kind",), f"{message}: raw is not converted", "give all of them the same codec")
    return codec
