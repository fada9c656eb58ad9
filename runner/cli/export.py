"""`connector export`: the same pipeline in the files of another system."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("export")
def command() -> None:
    """Write the pipeline as the project of another system: the same processors, channels and walls."""


@command.command("compose")
@click.argument("file", default="pipeline.toml", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Write nothing; fail when what is there no longer matches the pipeline.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The Compose file (default: compose.yaml).")
@click.option("--image", metavar="NAME", help="The image of the runner (default: connector-runner:VERSION).")
def compose(file: Path, output: Path | None, image: str | None, *, check: bool) -> int:
    """Write the pipeline in FILE as a Compose project: compose.yaml beside it, and the folder connector.

    Each processor is a service, its image as it is, and each runner is one beside them. Entrypoints and commands come
    from the images, which have to be here; those of folders (use) are made by `connector build`.
    """
    from runner.cli import version
    from runner.errors import EXIT_COMPLETED, EXIT_FAILED
    from runner.pack.compose import export

    project = export(file, output, image or f"connector-runner:{version()}")
    if check:
        differences = list(project.differences())
        for each in differences:
            click.echo(each)
        if differences:
            click.echo(f"connector export compose {file} writes it anew", err=True)
        return EXIT_FAILED if differences else EXIT_COMPLETED
    written = project.write()
    for warning in project.warnings:
        click.echo(f"warning: {warning}", err=True)
    for path in project.files:
        click.echo(f"{_short(path)} {'written' if path in written else 'is as it was'}")
    return EXIT_COMPLETED


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
