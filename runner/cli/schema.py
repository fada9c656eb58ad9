"""`connector schema`: the JSON Schema by which editors complete and check the files."""

from __future__ import annotations

import click


@click.command("schema")
@click.option("--processor", is_flag=True, help="The schema of processor.toml instead of the pipeline file.")
def command(*, processor: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of the pipeline file."""
    import json

    from runner.spec.schema import pipeline_schema, processor_schema

    click.echo(json.dumps(processor_schema() if processor else pipeline_schema(), indent=2))
