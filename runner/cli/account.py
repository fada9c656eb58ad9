"""The options of every command that runs something: how it is told, and what it goes on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

_OPTIONS = (
    click.option("--report", type=click.Path(path_type=Path), help="Write the run's account to this file, as JSON."),
    click.option(
        "--log-format", type=click.Choice(["text", "json"]), default="text", help="Lines for people, or JSON."
    ),
    click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors."),
    click.option("--fresh", is_flag=True, help="Start over: give up what a run that was cut short has left."),
)


def account_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give `command` `report`, `log_format`, `quiet` and `fresh`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
