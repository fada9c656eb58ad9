"""`connector graph`: a picture of a pipeline."""

from __future__ import annotations

import click


@click.command("graph")
@click.argument("file", default="pipeline.toml", type=click.Path())
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot"]),
    default="mermaid",
    show_default=True,
    help="Mermaid for Markdown pages, DOT for Graphviz.",
)
def command(file: str, form: str) -> None:
    """Print a picture of the pipeline FILE."""
    from runner.cli.check import printable
    from runner.errors import SpecError
    from runner.plan.graph import to_dot, to_mermaid
    from runner.spec.load import load_file

    try:
        pipeline = load_file(file).pipeline
    except SpecError as error:
        for problem in error.problems:
            click.echo(printable(str(problem)), err=True)
        click.get_current_context().exit(error.exit_code)
    click.echo(to_dot(pipeline) if form == "dot" else to_mermaid(pipeline), nl=False)
