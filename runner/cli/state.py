"""`connector state`: what durable channels hold, while no runner uses it."""

from __future__ import annotations

import json
import sys
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.place import Command, place_of, placed

if TYPE_CHECKING:
    from runner.codec.base import Codec
    from runner.store.cursor import Cursor
    from runner.store.inspection import Inspection
    from runner.store.record import Record
    from runner.store.store import Store


def _options(command: Command) -> Command:
    """What all of them have."""
    return placed(click.option("--channel", help="Of this channel only.")(command))


_FORMAT = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to say it."
)


@click.group("state")
def command() -> None:
    """Look at the state of the pipeline FILE (default: pipeline.toml), which no runner may use meanwhile."""


@command.command("check")
@_options
@_FORMAT
def check(file: Path, state_dir: Path | None, runner: str | None, channel: str | None, form: str) -> int:
    """Read and verify every message, and look at the files; exits with 1 when something is wrong, and says what."""
    from runner.errors import EXIT_COMPLETED, EXIT_FAILED
    from runner.store import check_store

    folder = place_of(file, state_dir, runner)
    seen = check_store(folder)
    _known(seen, channel, folder)
    damages = [each for each in seen.damages if channel is None or each.channel in {None, channel}]
    files = _wrong_files(seen, channel)
    sound = not damages and not files
    if form == "json":
        found = [{"why": e.why, "channel": e.channel, "first": e.first, "last": e.last} for e in damages]
        shown = {"state": str(folder), "sound": sound, "damages": found, "files": files}
        click.echo(json.dumps(shown, indent=2))
    else:
        for damage in damages:
            click.echo(f"damaged: {_printable(str(damage))}")
        for each in files:
            where = f"file {_printable(each['path'])} of channel `{each['channel']}`"
            click.echo(f"not as it was left: {where} {each['why']}")
        if sound:
            click.echo(f"{folder}: sound, {_messages(seen, channel)}")
    return EXIT_COMPLETED if sound else EXIT_FAILED


@command.command("show")
@_options
@_FORMAT
def show(file: Path, state_dir: Path | None, runner: str | None, channel: str | None, form: str) -> int:
    """Say what is stored of each channel, and how far each reader has come."""
    from runner.errors import EXIT_COMPLETED, EXIT_FAILED
    from runner.store import check_store

    folder = place_of(file, state_dir, runner)
    seen = check_store(folder)
    _known(seen, channel, folder)
    channels = {name: _channel(seen, name) for name in sorted(seen.heads) if channel in {None, name}}
    for name, shown in _files(seen).items():
        if name in channels:
            channels[name]["file"] = shown
    if form == "json":
        click.echo(json.dumps({"state": str(folder), "sound": not seen.damages, "channels": channels}, indent=2))
    else:
        click.echo(str(folder))
        for name, found in channels.items():
            _say(name, found)
    if seen.damages:
        click.echo("connector: it is damaged; `connector state check` says what is lost", err=True)
    return EXIT_FAILED if seen.damages else EXIT_COMPLETED


@command.command("reset")
@_options
def reset(file: Path, state_dir: Path | None, runner: str | None, channel: str | None) -> None:
    """Give up what is stored, for good: all of it (a damaged store too), or one channel."""
    from runner.store import DamageError, Store, check_store
    from runner.store.folder import remove_store

    folder = place_of(file, state_dir, runner)
    if channel is None:
        try:
            seen = check_store(folder)
            said = _messages(seen, None)
            _let_go(seen, seen.heads)
        except DamageError:
            said = "what could not be read"
        remove_store(folder)
        click.echo(f"given up: {said}")
        return
    seen = check_store(folder)
    _known(seen, channel, folder)
    if seen.damages:
        raise DamageError(str(folder), seen.damages)
    _let_go(seen, [channel])
    store = Store.open(folder, sync=True, capacity_bytes={})
    try:
        store.reset(channel)
        _forget_file(store, channel)
    finally:
        store.close()
    click.echo(f"given up: {_messages(seen, channel)} of channel `{channel}`")


@command.command("export")
@_options
@_FORMAT
def export(file: Path, state_dir: Path | None, runner: str | None, channel: str | None, form: str) -> int:
    """Write the messages that wait to stdout: as they are framed, or a line of JSON for each.

    Nothing is taken away. What is damaged is left out, said, and makes it exit with 1.
    """
    from runner.codec.registry import codec_named
    from runner.errors import EXIT_COMPLETED, EXIT_FAILED
    from runner.store import check_store

    folder = place_of(file, state_dir, runner)
    seen = check_store(folder)
    _known(seen, channel, folder)
    names = [channel] if channel is not None else sorted(seen.heads)
    if form == "text" and len(names) > 1:
        raise click.UsageError(f"name one with --channel, or use --format json; there are {', '.join(names)}")
    out = sys.stdout.buffer

    def write(name: str, record: Record) -> None:
        if name not in names:
            return
        from runner.codec.base import Batch

        codec = codec_named(record.codec)
        batch, number = Batch((record.data,), record.count, len(record.data)), record.first
        gone = min(record.count, max(0, _passed(seen, name) - record.first + 1))
        _, batch = codec.skip(batch, gone)
        if not batch.count:
            return
        if form == "text":
            out.write(batch.joined())
            return
        for framed in codec.split(batch):
            out.write(_line(name, number + gone, codec, framed))
            number += 1

    check_store(folder, each_record=write)
    out.flush()
    for damage in seen.damages:
        click.echo(f"connector: left out: {_printable(str(damage))}", err=True)
    return EXIT_FAILED if seen.damages else EXIT_COMPLETED


def _let_go(seen: Inspection, channels: Container[str]) -> None:
    """What was never committed is cut off the files of these channels, before their records are given up."""
    from runner.channel.file_kept import decoded, let_go

    if not seen.damages:
        for name, kept in decoded(seen.files).items():
            if name in channels:
                let_go(kept)


def _forget_file(store: Store, channel: str) -> None:
    """Nothing is on record of the file of `channel` any more: it is begun with anew."""
    import asyncio

    from runner.channel.file_kept import forget

    async def forgotten() -> None:
        forget(store.transaction, channel)
        await store.flush()

    asyncio.run(forgotten())


def _known(seen: Inspection, channel: str | None, folder: Path) -> None:
    from runner.errors import RunnerError

    if channel is not None and channel not in seen.heads:
        known = ", ".join(f"`{name}`" for name in sorted(seen.heads)) or "none"
        raise RunnerError(f"there is no channel `{channel}`", where=str(folder), remedy=f"there are: {known}")


def _wrong_files(seen: Inspection, channel: str | None) -> list[dict[str, str]]:
    """The files that are not as they were left."""
    from runner.channel.file_kept import decoded, wrong_with

    kept = {name: each for name, each in decoded(seen.files).items() if channel in {None, name}}
    found = {name: wrong_with(each) for name, each in kept.items()}
    return [{"channel": name, "path": kept[name].path, "why": why} for name, why in found.items() if why is not None]


def _files(seen: Inspection) -> dict[str, dict[str, Any]]:
    """What is on record of the files of channels."""
    from runner.channel.file_kept import decoded

    return {
        name: {
            "path": kept.path,
            "generation": kept.generation,
            "inode": kept.inode,
            "committed_bytes": kept.length_bytes,
        }
        for name, kept in decoded(seen.files).items()
    }


def _cursors(seen: Inspection, channel: str) -> dict[str, Cursor]:
    return {reader: cursor for (name, reader), cursor in seen.cursors.items() if name == channel}


def _passed(seen: Inspection, channel: str) -> int:
    """Up to this message nobody waits for any."""
    head = seen.heads.get(channel)
    freed = 0 if head is None else head.freed
    return max(freed, min((cursor.base for cursor in _cursors(seen, channel).values()), default=freed))


def _waiting(seen: Inspection, channel: str) -> int:
    return seen.heads[channel].last - _passed(seen, channel)


def _messages(seen: Inspection, channel: str | None) -> str:
    from runner.units import format_count

    names = seen.heads if channel is None else [channel]
    return f"{format_count(sum(_waiting(seen, name) for name in names), 'message')} stored"


def _channel(seen: Inspection, name: str) -> dict[str, Any]:
    head, placed = seen.heads[name], seen.placed.get(name)
    readers = {
        reader: {
            "waiting": sum(last - first + 1 for first, last in cursor.open_ranges(head.last)) - cursor.handed_out,
            "handed_out": cursor.handed_out + cursor.read,
            "acknowledged": cursor.acknowledged,
            "indeterminate": cursor.indeterminate - cursor.read,
            "dead": cursor.dead,
            "dropped": cursor.dropped,
        }
        for reader, cursor in _cursors(seen, name).items()
    }
    return {
        "epoch": head.epoch,
        "first": _passed(seen, name) + 1,
        "last": head.last,
        "stored": _waiting(seen, name),
        "stored_bytes": 0 if placed is None else placed.data_bytes,
        "readers": readers,
    }


def _say(name: str, found: dict[str, Any]) -> None:
    from runner.units import format_count, format_size

    span = f" ({found['first']:,} to {found['last']:,})" if found["stored"] else f", {found['last']:,} so far"
    count, size = format_count(found["stored"], "message"), format_size(found["stored_bytes"])
    click.echo(f"channel {name}: {count} stored{span}, {size}")
    if "file" in found:
        file = found["file"]
        committed = f"{file['committed_bytes']:,} bytes committed"
        click.echo(f"  {file['path']}: {committed}, inode {file['inode']}, file {file['generation']:,} of the channel")
    for reader, terms in found["readers"].items():
        said = ", ".join(f"{count:,} {term.replace('_', ' ')}" for term, count in terms.items() if count)
        click.echo(f"  {reader}: {said or 'nothing yet'}")


def _line(channel: str, number: int, codec: Codec, framed: bytes) -> bytes:
    """A message as a line of JSON; what is no UTF-8 goes as base64."""
    payload = codec.payload(framed)
    shown: dict[str, Any] = {"channel": channel, "number": number}
    try:
        shown["payload"] = payload.decode()
    except UnicodeDecodeError:
        import base64

        shown["base64"] = base64.b64encode(payload).decode()
    return json.dumps(shown, ensure_ascii=False).encode() + b"\n"


def _printable(text: str) -> str:
    from runner.cli.check import printable

    return printable(text)
