"""File channels: the file that one of their ends is, and what goes with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import UNSET

from runner.spec.channel_document import ChannelDocument, RotateDocument
from runner.spec.findings import Scope, listed, show
from runner.spec.model import Channel, FileEnd, Rotation
from runner.spec.network import KINDS
from runner.spec.ports import check_codec
from runner.spec.presence import is_there
from runner.spec.values import size_bytes
from runner.units import parse_duration

_ONLY_FILES = ("rotate", "follow")
_ALSO_OF_NETWORKS = ("path", "codec", "max_message")
_WRONG = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def what_it_is(mode: int) -> str | None:
    """What is at a path, from `st_mode`; None for a file."""
    return next((what for check, what in _WRONG if check(mode)), None)


def file_end(
    scope: Scope, document: ChannelDocument, table: Mapping[str, Any], codecs: Sequence[str], folder: Path
) -> FileEnd | None:
    """The file of a channel, with errors for what is wrong with it; None where it has none, or after an error.

    `codecs` are those of its processors, `table` holds the keys that were written.
    """
    if document.kind != "file":
        also = () if document.kind in KINDS else _ALSO_OF_NETWORKS
        for key in (*_ONLY_FILES, *also):
            if key in table:
                scope.error((key,), "is for a file channel", 'write kind = "file", or leave it out', at="key")
        return None
    if document.path is UNSET:
        scope.error(("kind",), "a file channel needs a file", 'write path = "FILE"')
        return None
    path = Path(os.path.normpath(folder / document.path))
    _check_place(scope, path, document.path)
    return FileEnd(
        path,
        _codec(scope, document, codecs),
        _rotation(scope, document.rotate),
        document.follow,
        size_bytes(document.max_message),
    )


def _check_place(scope: Scope, path: Path, written: str) -> None:
    """What is there already, as far as it can be seen."""
    try:
        wrong = what_it_is(path.stat().st_mode)
    except (OSError, ValueError):
        return  # a run says what it cannot do; it may be another user's, or come later
    if wrong is not None:
        scope.error(("path",), f"{show(written)} is {wrong}", "a file channel needs a file")


def _codec(scope: Scope, document: ChannelDocument, codecs: Sequence[str]) -> str:
    if document.codec is not UNSET:
        check_codec(scope, ("codec",), document.codec)
        if "raw" in {document.codec, *codecs} and {document.codec} != {*codecs, document.codec}:
            found = listed(list(codecs), "and")
            message = f'the file is framed as "{document.codec}" and its processors have {found}: raw is not converted'
            scope.error(("codec",), message, "give all of them the same codec")
        return document.codec
    if len(codecs) > 1:
        found = listed([f'"{codec}"' for codec in codecs], "and")
        message = f"its processors have the codecs {found}, so nothing says how messages are framed in the file"
        scope.error(("kind",), message, f'write codec = "{codecs[0]}"')
    return codecs[0] if codecs else "lines"


def _rotation(scope: Scope, document: RotateDocument | object) -> Rotation:
    if not isinstance(document, RotateDocument):
        return Rotation()
    if document.size is UNSET and document.every is UNSET:
        scope.error(
            ("rotate",), "says not when a file is full", 'write size = "100MiB", every = "1h", or both', at="key"
        )
    return Rotation(
        None if document.size is UNSET else size_bytes(document.size),
        None if document.every is UNSET else parse_duration(document.every),
        None if document.keep is UNSET else document.keep,
    )


_ONLY_READ = dict.fromkeys(("follow", "max_message"), ("is for a file that is read", "leave it out"))
_ONLY_WRITTEN = {
    "rotate": ("is for a file that is written", "leave it out"),
    "schema": ("checks nothing of a file that is read yet", "give it to the channel that its reader writes"),
}


def check_one_end(
    scope: Scope, name: str, table: Mapping[str, Any], channels: Mapping[str, Channel], *, here: bool
) -> None:
    """A file channel has processors at one end, the file at the other; nobody else has the file.

    `table` holds the keys that were written, `channels` are those up to this one. Not `here`: its folder is on another
    machine.
    """
    channel = channels[name]
    if channel.writers and channel.readers:
        writers, readers = (listed(list(names), "and") for names in (channel.writers, channel.readers))
        scope.error(
            ("kind",),
            f"{writers} and {readers} are at its two ends, and one of them is the file",
            'write kind = "durable" between processors, and a file channel of its own for the file',
        )
    for key, (message, remedy) in (_ONLY_READ if channel.writers else _ONLY_WRITTEN).items():
        if key in table:
            scope.error((key,), message, remedy, at="key")
    if channel.file is None:
        return
    if channel.writers and here and not is_there(channel.file.path.parent):
        scope.error(("path",), f"the folder {channel.file.path.parent} is not there", "make it, or write another path")
    real = os.path.realpath(channel.file.path)
    for other in channels.values():
        if other is channel or other.file is None or not (channel.writers or other.writers):
            continue
        if os.path.realpath(other.file.path) == real:
            scope.error(("path",), f'the channel "{other.name}" has this file already', "give each its own")
