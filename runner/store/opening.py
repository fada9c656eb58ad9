"""Opens a store: holds its folder, looks at what is in it, and only then lets LMDB at it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lmdb

from runner.errors import MachineError
from runner.store.book import COMMIT_KEY, Head, head_key
from runner.store.cursor import Cursor
from runner.store.damage import Damage, DamageError
from runner.store.database import Database
from runner.store.folder import StateFolder, unusable
from runner.store.inspection import TABLES, EachRecord, Inspection, inspect, open_pages
from runner.store.pages import PageFile
from runner.store.placed import Placed
from runner.store.probe import Probe
from runner.store.record import KEY, opened
from runner.store.sealed import seal
from runner.store.walk import HEADS, MESSAGES, TABLE
from runner.store.writer import Held

_LEAST_MAP_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """What a store is made of."""

    folder: StateFolder
    sync: bool
    environment: lmdb.Environment
    databases: Mapping[bytes, Database]
    held: dict[str, Held]
    cursors: Mapping[tuple[str, str], Cursor]
    pages: PageFile
    doubt: str | None


def open_store(path: Path, *, sync: bool, capacity_bytes: Mapping[str, int]) -> Opened:
    """See `Store.open`."""
    folder = StateFolder.take(path, sync=sync)
    try:
        return _open(folder, sync=sync, capacity_bytes=capacity_bytes)
    except (lmdb.Error, OSError) as error:
        folder.give_back()
        cause = error if isinstance(error, OSError) else OSError(None, str(error))
        raise unusable(path, cause) from error
    except BaseException:
        folder.give_back()
        raise


def check_store(path: Path, *, each_record: EachRecord | None = None) -> Inspection:
    """Everything that is in the store in `path`, every record verified; the whole ones are given to `each_record`.

    It needs the store for itself, is not stopped by damages, and changes no message. Raises MachineError, and
    DamageError when there is nothing to look at.
    """
    if not path.is_dir():
        raise MachineError("there is no state here", where=str(path), remedy="a first run makes it")
    folder = StateFolder.take(path, sync=True)
    try:
        pages = _pages_of(folder, folder.page_bytes())
        if pages is None:
            return Inspection()
        try:
            return inspect(folder, pages, deep=True, each_record=each_record)
        finally:
            pages.close()
    finally:
        folder.give_back()


def new_epoch() -> str:
    """A name for a count that begins with 1."""
    return secrets.token_hex(8)


def _open(folder: StateFolder, *, sync: bool, capacity_bytes: Mapping[str, int]) -> Opened:
    page_bytes = folder.page_bytes()
    pages = _pages_of(folder, page_bytes)
    seen = Inspection() if pages is None else inspect(folder, pages)
    if seen.damages:
        raise DamageError(str(folder.path), seen.damages)
    if page_bytes is None:
        _remove_unfinished(folder, seen)
        pages, seen = None, Inspection()
    folder.prepare_lock_table()
    names = dict.fromkeys((*seen.heads, *capacity_bytes))
    wanted = [HEADS, *(TABLE + table.encode() for table in TABLES), *(MESSAGES + name.encode() for name in names)]
    environment = lmdb.open(
        str(folder.path),
        map_size=_map_bytes(seen.size_bytes, capacity_bytes),
        max_dbs=len(wanted),
        mode=0o600,
        sync=sync,
        metasync=True,
        writemap=False,
        readahead=True,
    )
    try:
        databases, heads = _complete(environment, wanted, seen, names)
        pages = pages or open_pages(folder, environment.stat()["psize"])
        if page_bytes is None:
            folder.mark(pages.page_bytes)
        held = {
            name: Held(name, databases[MESSAGES + name.encode()], head.epoch, head.freed, head.last, placed)
            for name, head in heads.items()
            for placed in (seen.placed.get(name) or Placed(),)
        }
        _check_ends(folder, environment, held, pages)
    except BaseException:
        environment.close()
        raise
    doubt = None
    if folder.lost_power:
        doubt = "the machine went down while this state was not synced: messages of the last moments may be missing"
    return Opened(folder, sync, environment, databases, held, seen.cursors, pages, doubt)


def _pages_of(folder: StateFolder, page_bytes: int | None) -> PageFile | None:
    """The file to look at; None: there is none yet. Raises DamageError when there was one."""
    if folder.data.exists():
        return open_pages(folder, page_bytes or os.sysconf("SC_PAGE_SIZE"))
    if page_bytes is not None:
        raise DamageError(str(folder.path), [Damage("data.mdb is not there: all messages are lost")])
    return None


def _remove_unfinished(folder: StateFolder, seen: Inspection) -> None:
    """Without a version mark its making was cut short; unless there is something in it."""
    if seen.entries or any(head.last for head in seen.heads.values()):
        raise MachineError(
            "this state has no version mark",
            where=str(folder.path),
            remedy="put its file `version` back, or name another folder with --state-dir",
        )
    folder.data.unlink(missing_ok=True)


def _map_bytes(used_bytes: int, capacity_bytes: Mapping[str, int]) -> int:
    """Address space for what is there, what may come, and as much again: it grows when that is not enough."""
    return (2 * (used_bytes + sum(capacity_bytes.values())) + _LEAST_MAP_BYTES) & ~0xFFFF


def _complete(
    environment: lmdb.Environment, wanted: list[bytes], seen: Inspection, names: Mapping[str, None]
) -> tuple[dict[bytes, Database], dict[str, Head]]:
    """All databases and heads; what is missing is made, in one transaction."""
    heads = dict(seen.heads)
    fresh = [name for name in names if name not in heads]
    missing = [name for name in wanted if name not in seen.databases]
    with environment.begin(write=True) as transaction:  # handles of a reading one would end with it
        databases: dict[bytes, Database] = {
            name: environment.open_db(name, txn=transaction, create=name in missing) for name in wanted
        }
        for name in fresh:
            heads[name] = Head(new_epoch(), 0, 0)
            key = head_key(name)
            transaction.put(key, heads[name].encode(key), db=databases[HEADS])
        if missing:
            transaction.put(COMMIT_KEY, seal(COMMIT_KEY, KEY.pack(transaction.id())), db=databases[HEADS])
    return databases, heads


def _check_ends(folder: StateFolder, environment: lmdb.Environment, held: Mapping[str, Held], pages: PageFile) -> None:
    """Whether the last record of every channel goes as far as the channel does. One that is damaged is told if read."""
    lost = []
    with environment.begin(buffers=True) as transaction:
        for name, channel in held.items():
            if not len(channel.placed) or not Probe(pages, channel.placed, channel.last).readable(channel.last):
                continue
            first = channel.placed[len(channel.placed) - 1].first
            stored = transaction.get(KEY.pack(first), db=channel.database)
            record = None if stored is None else opened(name.encode(), first, stored)
            if record is not None and record.last != channel.last:
                lost.append(Damage("they are not there", name, record.last + 1, channel.last))
    if lost:
        raise DamageError(str(folder.path), lost)
