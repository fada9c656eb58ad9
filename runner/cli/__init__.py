"""The `connector` command: one file per verb, loaded only when it is called."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from runner.errors import EXIT_SIGNAL_BASE, EXIT_USAGE, BugError, RunnerError, SpecError

_VERBS = {
    "run": "Run a pipeline.",
    "sidecar": "Run beside containers that somebody else starts, or as the entrypoint of one.",
    "check": "Check a pipeline file; says everything that is wrong with it.",
    "doctor": "Say what this machine can do, and how well it walls off what is not trusted.",
    "build": "Make the images of the processors that a pipeline uses.",
    "export": "Write a pipeline as a Compose project.",
    "lock": "Write down which images, folders and programs a pipeline runs.",
    "state": "Look at what durable channels hold, check it, export it, give it up.",
    "dead-letters": "Show, export, replay and discard the messages that were set aside.",
    "graph": "Draw a pipeline as Mermaid or DOT.",
    "keys": "Make certificates and keys for the channels between runners.",
    "schema": "Print the JSON Schema of pipeline.toml or processor.toml.",
}


class _Verbs(click.Group):
    """Finds a verb's module by its name, so that no verb pays for another's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"runner.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


def version() -> str:
    """The version of this package."""
    from importlib import metadata

    try:
        return metadata.version("connector-runner")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"connector runner {version()}")
        ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
def group() -> None:
    """Run programs in any language as one pipeline.

    Exit codes: 0 completed, 1 the pipeline failed, 2 wrong file or usage, 3 this machine cannot do or enforce what is
    asked, 70 a bug of the runner, 130 and 143 stopped by SIGINT and SIGTERM in an orderly way.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    gc.disable()  # what is imported stays; a verb that lives longer switches it on again
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        result = group.main(args=arguments, prog_name="connector", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return EXIT_SIGNAL_BASE + signal.SIGINT
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except RunnerError as error:
        click.echo(_told(error), err=True)
        return error.exit_code
    except BrokenPipeError:
        _silence_output()
        return EXIT_SIGNAL_BASE + signal.SIGPIPE
    return result if isinstance(result, int) else 0


def _told(error: RunnerError) -> str:
    """What a person reads of it."""
    if isinstance(error, SpecError):
        return str(error)
    if isinstance(error, BugError):
        return f"connector: a bug of the runner: {error}\nPlease report it."
    return f"connector: {error}"


def _silence_output() -> None:
    """Whoever read our output has gone: nothing more can be said there, not even at exit."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
