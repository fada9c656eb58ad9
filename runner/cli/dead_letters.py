"""`connector dead-letters`: the messages that were set aside, for a person to look at and decide."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.place import place_of, placed
from runner.errors import MachineError

if TYPE_CHECKING:
    from runner.cli.letters import Desk
    from runner.store.letters import Letter
    from runner.supervise.letter_verbs import Outcome

_FILTERS = ("letter", "processor", "channel", "number", "cause", "kind")
_RANGE = re.compile(r"(\d+)(?:-(\d*))?")


def _range(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = _RANGE.fullmatch(value)
    if match is None:
        raise click.BadParameter('write a number, or a range such as "10-20" or "10-"')
    first = int(match[1])
    last = first if match[2] is None else int(match[2]) if match[2] else sys.maxsize
    return first, last


def _filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and options that all of them share."""
    options: tuple[Callable[..., Any], ...] = (
        placed,
        click.option("--letter", callback=_range, help="Only these letters: N, N-M or N-."),
        click.option("--processor", help="Only those of this processor."),
        click.option("--channel", help="Only those of this channel."),
        click.option("--number", callback=_range, help="Only those of these message numbers: N, N-M or N-."),
        click.option("--cause", help="Only those whose cause matches this regular expression."),
        click.option("--kind", type=click.Choice(["poison", "refused"]), help="Only those of this kind."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group("dead-letters")
def command() -> None:
    """Look at messages that were set aside, and say what becomes of them.

    Dead letters are in the state of a pipeline that has a durable channel. While the pipeline runs its runner is asked.
    """


@command.command("list")
@_filtered
def list_command(**given: Any) -> None:
    """One line for each dead letter."""
    from runner.cli.check import printable

    desk = _desk(given)
    for item in _found(desk, given):
        mark = ", back at its reader" if item.id in desk.under_way else ", to be replayed" if item.replay else ""
        what = f"{item.processor} {item.channel} {item.number}"
        click.echo(printable(f"{item.id}  {item.kind}  {what}  {len(item.payload)} B  {item.cause}{mark}"))


@command.command("show")
@_filtered
def show_command(**given: Any) -> None:
    """Everything about each dead letter, as JSON, one object per line."""
    for item in _found(_desk(given), given):
        click.echo(_json(item))


@command.command("export")
@click.option("--codec", help="Write nothing but the messages, framed by this codec; without it: as `show` does.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write here instead of to standard output.")
@_filtered
def export_command(codec: str | None, output: Path | None, **given: Any) -> None:
    """Write dead letters to a file, for other programs."""
    from runner.codec.registry import codec_named
    from runner.spec.ports import CODECS

    if codec is not None and codec not in CODECS:
        raise click.UsageError(f"there is no codec {codec}: write one of {', '.join(CODECS)}")
    framing = codec_named(codec) if codec is not None else None
    parts = [
        framing.encode(item.payload) if framing is not None else f"{_json(item)}\n".encode()
        for item in _found(_desk(given), given)
    ]
    if output is None:
        sys.stdout.buffer.write(b"".join(parts))
        return
    try:
        output.write_bytes(b"".join(parts))
    except OSError as error:
        raise MachineError(f"the export cannot be written: {error.strerror}", where=str(output)) from error


@command.command("replay")
@_filtered
def replay_command(**given: Any) -> None:
    """Give dead letters back to the readers they died for, once.

    At once where the pipeline runs, else at its next start.
    """
    desk = _desk(given)
    outcome = desk.replay([item.id for item in _found(desk, given)])
    _say(outcome, "given back to their readers" if desk.running else "to be replayed at the next start")


@command.command("discard")
@_filtered
@click.option("--all", "everything", is_flag=True, help="Without any filter: discard all of them.")
def discard_command(*, everything: bool, **given: Any) -> None:
    """Give dead letters up for good."""
    if not everything and all(given[name] is None for name in _FILTERS):
        raise click.UsageError("say which ones, or --all")
    desk = _desk(given)
    _say(desk.discard([item.id for item in _found(desk, given)]), "discarded")


def _say(outcome: Outcome, what: str) -> None:
    from runner.cli.check import printable

    click.echo(f"{len(outcome.done)} {what}")
    for left in outcome.left:
        click.echo(printable(f"letter {left.letter}: {left.why}"), err=True)


def _desk(given: Mapping[str, Any]) -> Desk:
    """Where the letters of the pipeline are. Raises MachineError where there is no state."""
    from runner.cli.letters import desk_of

    folder = place_of(given["file"], given["state_dir"], given["runner"])
    if not folder.is_dir():
        raise MachineError(
            "there is no state here",
            where=str(folder),
            remedy="dead letters are kept where a pipeline has a durable channel, else in the report of the run alone",
        )
    return desk_of(folder)


def _found(desk: Desk, given: Mapping[str, Any]) -> Iterator[Letter]:
    """Those that the filters let through. Raises MachineError and DamageError."""
    wanted = _wanted(given)
    return (item for item in desk.letters() if wanted(item))


def _wanted(given: Mapping[str, Any]) -> Callable[[Letter], bool]:
    """Whether a letter passes every filter that was given."""
    try:
        cause = re.compile(given["cause"]) if given["cause"] is not None else None
    except re.error as error:
        raise click.UsageError(f"--cause is no regular expression: {error}") from error

    def wanted(item: Letter) -> bool:
        for name, value in (("processor", item.processor), ("channel", item.channel), ("kind", item.kind)):
            if given[name] not in {None, value}:
                return False
        for name, number in (("letter", item.id), ("number", item.number)):
            if given[name] is not None and not given[name][0] <= number <= given[name][1]:
                return False
        return cause is None or cause.search(item.cause) is not None

    return wanted


def _json(item: Letter) -> str:
    import msgspec

    from runner.observe.sanitize import json_safe
    from runner.supervise.letters import report_of

    return json_safe(msgspec.json.encode(report_of(item, most_bytes=None)).decode())
