"""Where the state is that a verb looks at: what `--state-dir` and `--runner` say, else what the pipeline file does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def placed(command: Command) -> Command:
    """The argument FILE, and the options that say whose state it is."""
    file = click.argument("file", type=click.Path(path_type=Path), default="pipeline.toml")
    folder = click.option(
        "--state-dir", type=click.Path(path_type=Path), help="Where the state is, whatever FILE says."
    )
    runner = click.option("--runner", metavar="NAME", help="That of this runner, where the pipeline has several.")
    return file(folder(runner(command)))


def place_of(file: Path, state_dir: Path | None, runner: str | None) -> Path:
    """The folder of the state. Raises RunnerError for a runner that is not there, or was not said."""
    if state_dir is not None:
        return state_dir if runner is None else state_dir / runner
    from runner.plan.part import part
    from runner.spec.load import load_file
    from runner.supervise.state import state_folder

    return state_folder(part(load_file(file, runner=runner).pipeline, runner))
