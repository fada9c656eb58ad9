"""`connector check`: whether a pipeline file is good and its programs will be found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from runner.errors import Problem
    from runner.spec.load import LoadedPipeline
    from runner.spec.model import Pipeline


@click.command("check")
@click.argument("file", default="pipeline.toml", type=click.Path())
@click.option(
    "--home", type=click.Choice(["process", "sandbox", "container"]), help="Check it as `connector run --home` runs it."
)
@click.option("--runner", metavar="NAME", help="Look for certificates and keys of this runner only.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to say it."
)
def command(file: str, home: str | None, runner: str | None, form: str) -> None:
    """Check the pipeline FILE and tell every problem at once; list what untrusted processors are allowed.

    Exits with 2 when there is an error; warnings alone leave 0.
    """
    from runner.errors import EXIT_COMPLETED, EXIT_USAGE, SpecError
    from runner.spec.load import load_file
    from runner.spec.model import Home

    loaded: LoadedPipeline | None = None
    try:
        loaded = load_file(file, home=Home(home) if home else None, runner=runner)
        if runner is not None:
            from runner.plan.part import part

            part(loaded.pipeline, runner)  # whether there is such a runner
        problems = (*loaded.warnings, *_of_this_machine(file, loaded))
    except SpecError as error:
        problems = error.problems
    if form == "json":
        click.echo(_as_json(file, loaded, problems))
    else:
        for problem in problems:
            click.echo(printable(str(problem)), err=True)
        click.echo(_summary(file, loaded, problems), err=loaded is None)
        for line in _walls(loaded):
            click.echo(printable(line))
    click.get_current_context().exit(EXIT_USAGE if loaded is None else EXIT_COMPLETED)


def _of_this_machine(file: str, loaded: LoadedPipeline) -> list[Problem]:
    """What this machine cannot do or enforce of what is asked: a warning, as the file may be for another one."""
    from runner.plan.limits import asked

    specs = [spec for spec in loaded.pipeline.processors.values() if spec.untrusted or asked(spec.resources)]
    if not specs:
        return []  # a look at the machine takes longer than all the rest
    from runner.errors import Problem
    from runner.launch.machine import gather_for
    from runner.plan.tiers import requirement, unenforced

    facts = gather_for(specs)
    found = []
    for spec in specs:
        key = f"processors.{spec.name}"
        refused = requirement(spec, facts)
        if refused is not None:
            found.append(Problem("warning", f"cannot run here: {refused.what}", key, refused.remedy, file))
        else:
            found += [Problem("warning", each, key, None, file) for each in unenforced(spec, facts)]
    return found


def _summary(file: str, loaded: LoadedPipeline | None, problems: tuple[Problem, ...]) -> str:
    from runner.units import format_count

    errors = sum(problem.severity == "error" for problem in problems)
    noticed = [format_count(errors, "error")] if errors else []
    if len(problems) > errors:
        noticed.append(format_count(len(problems) - errors, "warning"))
    if loaded is None:
        return printable(f"{file}: {' and '.join(noticed)}")
    pipeline = loaded.pipeline
    checked = ", ".join(
        (format_count(len(pipeline.processors), "processor"), format_count(len(pipeline.channels), "channel"))
    )
    after = f", {' and '.join(noticed)}" if noticed else ""
    what = "keys, values, channels, folders and programs checked"
    says = f"{file}: pipeline {pipeline.name} is good: {checked}; {what}{after}"
    return printable("\n".join((says, *_parts(pipeline))))


def _parts(pipeline: Pipeline) -> list[str]:
    """What each runner has, and where it listens."""
    lines = []
    for name, has in _runners(pipeline).items():
        places = [f"{channel} at {place}" for channel, place in has["listens"].items()]
        after = f"; listens for {', '.join(places)}" if places else ""
        lines.append(f"  runner {name}: {', '.join(has['processors'])}{after}")
    return lines


def _runners(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """The same as plain values."""
    if not pipeline.runners:
        return {}
    from runner.plan.part import listens

    return {
        name: {
            "host": runner.host,
            "processors": [each.name for each in pipeline.processors.values() if each.runner == name],
            "listens": {
                channel: f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                for channel, (host, port) in listens(pipeline, name).items()
            },
        }
        for name, runner in pipeline.runners.items()
    }


def _walls(loaded: LoadedPipeline | None) -> list[str]:
    """What each untrusted processor is allowed."""
    from runner.plan.allowed import sentence, untrusted

    return [] if loaded is None else [sentence(name, each) for name, each in untrusted(loaded.pipeline).items()]


def _as_json(file: str, loaded: LoadedPipeline | None, problems: tuple[Problem, ...]) -> str:
    import dataclasses
    import json

    import msgspec

    from runner.plan.allowed import untrusted

    answer = {
        "file": file,
        "ok": loaded is not None,
        "pipeline": None if loaded is None else loaded.pipeline.name,
        "processors": None if loaded is None else list(loaded.pipeline.processors),
        "channels": None if loaded is None else list(loaded.pipeline.channels),
        "runners": None if loaded is None else _runners(loaded.pipeline),
        "homes": None if loaded is None else {name: spec.home for name, spec in loaded.pipeline.processors.items()},
        "untrusted": None if loaded is None else msgspec.to_builtins(untrusted(loaded.pipeline)),
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }
    return json.dumps(answer, indent=2)


def printable(text: str) -> str:
    """`text` as a terminal may get it: control characters but newlines are shown, not obeyed."""
    return "".join(
        each if each == "\n" or each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
