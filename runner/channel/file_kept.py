"""What the state says of the files of channels: kept in the store, committed with the messages."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from runner.channel.durable_keys import ENDS, key_of
from runner.channel.file_disk import OutFile, tail_of
from runner.channel.file_plan import Kept, checksum_of
from runner.channel.file_tail import InFile
from runner.errors import RunnerError
from runner.store.store import Store
from runner.store.transaction import Transaction

TABLE = "files"
FILE = "file"
"""What the file is called where a processor would be: as the reader, or the writer, of its channel."""
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Kept)


def kept_of(store: Store, channel: str) -> Kept | None:
    """What is on record of the file of `channel`; None: nothing is. Raises DamageError."""
    stored = store.get(TABLE, channel.encode())
    return None if stored is None else _DECODER.decode(stored)


def keep(transaction: Transaction, channel: str, kept: Kept) -> None:
    """Put it on record."""
    transaction.put(TABLE, channel.encode(), _ENCODER.encode(kept))


def forget(transaction: Transaction, channel: str) -> None:
    """Nothing is on record of it, nor that it has come to its end."""
    transaction.delete(TABLE, channel.encode())
    transaction.delete(ENDS, key_of(channel, FILE))


def decoded(entries: Mapping[bytes, bytes]) -> dict[str, Kept]:
    """The entries of the table, by channel."""
    return {channel.decode(): _DECODER.decode(stored) for channel, stored in sorted(entries.items())}


def wrong_with(kept: Kept) -> str | None:
    """Why a run could not go on with the file of `kept`; None: it can, as far as can be seen. Changes nothing."""
    path = Path(kept.path)
    try:
        if kept.written:
            return OutFile(path, "", sync=False).wrong_with(kept)
        file = InFile(path, "", follow=True)  # whether it was followed is not on record
        file.open(kept)
        file.close()
    except RunnerError as error:
        return error.what
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return None


def let_go_of_all(store: Store) -> None:
    """The records of all files are given up; see `let_go`."""
    for kept in decoded(dict(store.items(TABLE))).values():
        let_go(kept)


def let_go(kept: Kept) -> None:
    """The record of a written file is given up: cut off what was never committed, so that no message stays torn.

    Nothing is done to a file that is not the one that was written, or cannot be cut; nor to one that was only read.
    """
    if not kept.written:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(kept.path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            found = os.fstat(descriptor)
            same = found.st_ino == kept.inode and found.st_size > kept.length_bytes
            if same and checksum_of(tail_of(descriptor, kept.length_bytes)) == kept.checksum:
                os.ftruncate(descriptor, kept.length_bytes)
        finally:
            os.close(descriptor)
