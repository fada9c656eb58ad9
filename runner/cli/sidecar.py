"""`connector sidecar`: the runner beside containers that somebody else starts, or as the entrypoint of one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

import click

from runner.cli.account import account_options
from runner.cli.run import carry_out
from runner.errors import EXIT_COMPLETED, EXIT_FAILED, RunnerError
from runner.events import Bus
from runner.health import DEFAULT
from runner.launch.attached_folder import AttachedFolder
from runner.launch.shim.locate import shim_path
from runner.observe.health_page import HealthPage, address_of, check
from runner.plan.part import part
from runner.spec.changes import read_changes
from runner.spec.load import LoadedPipeline, load_file
from runner.spec.model import Home
from runner.spec.sidecar import (
    Said,
    as_toml,
    channels_said,
    from_environment,
    from_file,
    load_sidecar,
    with_command,
)
from runner.supervise.run import Run
from runner.supervise.state import state_folder

BRIDGES = Path("/bridges")
HEALTH = DEFAULT
FILE = Path("pipeline.toml")


class _Sidecar(click.Command):
    """Takes what stands behind `--` as it is: a command of somebody else."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, words = args, []
        if "--" in args:
            place = args.index("--")
            own, words = args[:place], args[place + 1 :]
        ctx.meta["connector.words"] = words
        return super().parse_args(ctx, own)


@click.command(name="sidecar", cls=_Sidecar)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="CONNECTOR_CONFIG",
    help="A sidecar.toml: one processor whose channels are URLs.",
)
@click.option(
    "--write-config",
    type=click.Path(path_type=Path),
    help="Write a sidecar.toml of what the variables say, and run nothing.",
)
@click.option("--runner", metavar="NAME", envvar="CONNECTOR_RUNNER", help="Run the part of this runner.")
@click.option(
    "--changes",
    type=click.Path(path_type=Path),
    help="A TOML file that is laid over FILE, where it runs in other surroundings.",
)
@click.option(
    "--bridges",
    type=click.Path(path_type=Path),
    envvar="CONNECTOR_BRIDGES",
    default=BRIDGES,
    help="Where the folders are that the containers of the processors are shown (default: /bridges).",
)
@click.option(
    "--shim-dir",
    type=click.Path(path_type=Path),
    help="Put the shim here as well: a folder that outlives the bridges, from which containers start.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    envvar="CONNECTOR_STATE_DIR",
    help="Where state is kept (default: .connector/NAME).",
)
@click.option(
    "--health",
    metavar="HOST:PORT",
    envvar="CONNECTOR_HEALTH",
    default=HEALTH,
    help=f'Where /health and /ready are answered (default: {HEALTH}), or "off".',
)
@click.option(
    "--logs",
    type=click.Choice(["here", "containers"]),
    default="here",
    help="Where what programs log is shown: in this log, or each in that of its own container.",
)
@click.option("--check-health", is_flag=True, help="Ask the runner at --health: exit 0 when it is well, else 1.")
@account_options
def command(
    *,
    file: Path | None,
    config: Path | None,
    write_config: Path | None,
    runner: str | None,
    changes: Path | None,
    bridges: Path,
    shim_dir: Path | None,
    state_dir: Path | None,
    health: str,
    report: Path | None,
    log_format: Literal["text", "json"],
    logs: Literal["here", "containers"],
    check_health: bool,
    quiet: bool,
    fresh: bool,
) -> int:
    """Run the pipeline in FILE, or the part of it that --runner has, beside the containers of its processors.

    FILE is $CONNECTOR_FILE or pipeline.toml unless it is given. Each processor's container is shown its folder
    BRIDGES/NAME and runs the shim that is in it; no engine is asked.

    Without a FILE there is one processor, which CONNECTOR_READS and CONNECTOR_WRITES join to others by URLs: the
    program behind `--`, as a process here, or else one in a container, which CONNECTOR_PROCESSOR names.
    """
    if check_health:
        return _check(health)
    words: list[str] = click.get_current_context().meta["connector.words"]
    if write_config is not None:
        if file is not None or config is not None:
            raise click.UsageError("--write-config writes what the variables say: leave FILE and --config out")
        return _write(write_config, words)
    found = _file(file, config, words)
    if found is None and changes is not None:
        raise click.UsageError("--changes are laid over a FILE, and none is run")
    if found is None:
        loaded = _single(config, words)
    else:
        laid_over = None if changes is None else read_changes(changes)
        loaded = load_file(found, home=Home.ATTACHED, runner=runner, changes=laid_over)
    if shim_dir is not None:
        with contextlib.closing(AttachedFolder(shim_dir)) as folder_of_shim:
            folder_of_shim.install(shim_path())
    pipeline = part(loaded.pipeline, runner)
    folder = state_folder(pipeline, state_dir)
    run = Run(
        pipeline,
        Bus(),
        exclusive=True,
        state_folder=folder,
        fresh=fresh,
        bridges=bridges,
        own_logs=logs == "containers",
    )
    return carry_out(run, loaded.warnings, report, log_format=log_format, quiet=quiet, beside=_page(run, health))


def _file(file: Path | None, config: Path | None, words: list[str]) -> Path | None:
    """The pipeline file; None: there is one processor, which something else describes."""
    if file is not None and (config is not None or words):
        raise click.UsageError("FILE says what runs: leave --config and the command behind -- out")
    if file is not None and file.suffix != ".toml" and not file.exists():
        raise click.UsageError(f"there is no file {file}; a program stands behind --: connector sidecar -- {file} …")
    if file is None and config is None and not words:
        named = os.environ.get("CONNECTOR_FILE")
        file = Path(named) if named else FILE if FILE.exists() else None
    if file is not None or config is not None:
        _refuse_both(file or config)
    return file


def _refuse_both(file: Path | None) -> None:
    """Variables with channels are not left unheard because there is a file as well."""
    said = channels_said(os.environ)
    if said:
        raise click.UsageError(
            f"{file} says what is read and written, and so does {said[0]}: "
            "take the variable away, or run without the file: connector sidecar -- PROGRAM"
        )


def _single(config: Path | None, words: list[str]) -> LoadedPipeline:
    """One processor: a command behind `--` is a process here, else it is in a container of somebody else."""
    said = from_file(config) if config is not None else _environment()
    if words:
        said = with_command(said, words)
    return load_sidecar(said, env=os.environ, home=None if words else Home.ATTACHED)


def _environment() -> Said:
    said = from_environment(os.environ, Path.cwd())
    if not {"reads", "writes"} & said.source.data.keys():
        raise click.UsageError(
            f"there is nothing to run: no {FILE}, no --config, and neither CONNECTOR_READS nor CONNECTOR_WRITES"
        )
    return said


def _write(file: Path, words: list[str]) -> int:
    """What the variables say, as a file, if it is right."""
    import tomli_w

    said = _environment()
    if words:
        said = with_command(said, words)
    load_sidecar(said, env=os.environ, home=None if words else Home.ATTACHED)
    try:
        file.write_text(tomli_w.dumps(as_toml(said)), encoding="utf-8")
    except OSError as error:
        raise RunnerError(f"{file} cannot be written: {(error.strerror or str(error)).lower()}") from error
    return EXIT_COMPLETED


def _page(run: Run, health: str) -> HealthPage | None:
    address = address_of(health)
    return None if address is None else HealthPage(run, address)


def _check(health: str) -> int:
    """What a container's health check asks."""
    address = address_of(health)
    why = "there is no health to be asked for: --health is off" if address is None else check(address)
    if why is not None:
        click.echo(f"connector: {why}", err=True)
    return EXIT_COMPLETED if why is None else EXIT_FAILED
