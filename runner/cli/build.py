"""`connector build [FILE]`: make the images of the processors that a pipeline uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runner.events import Event
    from runner.pack.build import Built

_WIDEST = 100


@click.command("build")
@click.argument("file", default="pipeline.toml", type=click.Path())
@click.option("--no-cache", is_flag=True, help="Make the images again from the first step on.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to say it."
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def command(file: str, form: str, *, no_cache: bool, quiet: bool) -> None:
    """Make an image of the folder of each processor with `use` in the pipeline FILE.

    An image's name ends with a hash of what it is made of; what has not changed is not made again.
    """
    from runner.pack.build import build, plan_of
    from runner.spec.load import load_file
    from runner.spec.model import Home

    plan = plan_of(load_file(file, home=Home.CONTAINER).pipeline)
    built = build(plan, _silent if quiet else _tell, cache=not no_cache)
    if form == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(built), indent=2))
    elif not built:
        click.echo(f"{file}: nothing to build: no processor is a folder (use) without an image of its own")
    else:
        for each in built:
            click.echo(_line(each))


def _line(built: Built) -> str:
    from runner.units import format_duration, format_size

    how = f"built in {format_duration(built.took_s)}" if built.state == "built" else built.state
    return f"{', '.join(built.processors)}: {built.image} {how}, {format_size(built.size_bytes)}"


def _tell(event: Event) -> None:
    """Progress as lines on stderr; what an engine or a program printed is made harmless."""
    from runner.events import Progress
    from runner.observe.sanitize import clip, visible

    if not isinstance(event, Progress) or event.done:
        return  # what came of it is told at the end
    counted = event.fraction is None or event.doing.startswith("step ")
    share = "" if counted else f" ({event.fraction:.0%})"
    click.echo(visible(f"{event.what}: {clip(event.doing, _WIDEST)}{share}"), err=True)


def _silent(_event: Event) -> None:
    """Nobody wants to know."""
