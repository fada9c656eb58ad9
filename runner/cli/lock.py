"""`connector lock [FILE]`: write down which images, folders and programs a pipeline runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("lock")
@click.argument("file", default="pipeline.toml", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Write what the pipeline FILE runs beside it: pipeline.toml gets pipeline.lock.toml.

    In it are the digests of images, the hashes of processors' folders and programs, and the runner's version.
    `connector run --locked` refuses to start where anything of that differs.
    """
    from runner.pack.lock import make_lock
    from runner.pack.lockfile import lock_path, write_lock

    path = lock_path(file)
    lock = make_lock(file)
    click.echo(f"{path}: written" if write_lock(lock, path) else f"{path}: nothing has changed")
