"""From a file or a mapping to a valid pipeline, with every problem at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from runner.errors import Problem, SpecError
from runner.spec.changes import laid_over
from runner.spec.document import PipelineDocument, ProcessorDocument
from runner.spec.findings import Findings, Source
from runner.spec.interpolate import interpolate
from runner.spec.joints import check_meetings, check_runners
from runner.spec.model import Home, Pipeline, Runner
from runner.spec.processor import Surroundings, resolve
from runner.spec.reading import given_source, parse_source, read_source
from runner.spec.rules import check_processor
from runner.spec.template import Templates
from runner.spec.walk import Walked, walk
from runner.spec.wiring import wire
from runner.spec.words import may_mean
from runner.units import parse_duration


class LoadedPipeline(Struct, frozen=True):
    """A valid pipeline and what was noticed about it."""

    pipeline: Pipeline
    warnings: tuple[Problem, ...] = ()


def load_file(
    file: str | os.PathLike[str],
    *,
    env: Mapping[str, str] | None = None,
    home: Home | None = None,
    runner: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> LoadedPipeline:
    """Read the pipeline in `file`; `env` (by default that of this process) is what `${NAME}` and PATH come from.

    All processors that can are moved to `home`; a warning names those that cannot. With `runner`, what only other
    runners need is not looked for: their programs, folders, secrets, certificates and keys. `changes` are laid over the
    file (`runner.spec.changes`); nothing of the environment is put into them.

    Raises SpecError with every problem, warnings included, in the order of the file.
    """
    path = Path(file)
    source = read_source(path, str(file))
    return _load(source, path.absolute(), path.parent, env, home=home, runner=runner, changes=changes or {})


def load_text(
    text: str,
    *,
    name: str = "pipeline.toml",
    folder: str | os.PathLike[str] = ".",
    env: Mapping[str, str] | None = None,
    home: Home | None = None,
    runner: str | None = None,
) -> LoadedPipeline:
    """Like `load_file` for a text that is called `name` in problems and stands in `folder`."""
    return _load(parse_source(text, name), None, Path(folder), env, home=home, runner=runner, changes={})


def load_document(
    document: Mapping[str, Any],
    *,
    folder: str | os.PathLike[str] = ".",
    env: Mapping[str, str] | None = None,
    home: Home | None = None,
) -> LoadedPipeline:
    """The pipeline that `document` describes, with the keys of a pipeline file; paths are relative to `folder`.

    Raises SpecError with every problem; there are no lines in them.
    """
    return _load(given_source(document), None, Path(folder), env, home=home, runner=None, changes={})


def load_source(
    source: Source, *, folder: Path, env: Mapping[str, str] | None = None, home: Home | None = None
) -> LoadedPipeline:
    """Like `load_document` for a document that knows where its parts stand."""
    return _load(source, None, folder, env, home=home, runner=None, changes={})


def _load(
    source: Source,
    file: Path | None,
    shown_folder: Path,
    env: Mapping[str, str] | None,
    *,
    home: Home | None,
    runner: str | None,
    changes: Mapping[str, Any],
) -> LoadedPipeline:
    env = os.environ if env is None else env
    findings = Findings(source.name)
    folder = shown_folder.absolute()
    data, failed = interpolate(source, env, findings)
    data = laid_over(data, changes)
    walked = walk(source, data, PipelineDocument, findings, skip=failed)
    templates = Templates(folder, shown_folder, env, findings)
    around = Surroundings(source, walked, folder, env, templates, findings, home, runner)
    resolved = {name: resolve(name, around) for name in walked.data.get("processors", {})}
    for name, each in resolved.items():
        check_processor(each, joined=not _lost_ends(walked, name))
    tables = walked.data.get("channels", {})
    runners = {name: Runner(name, table.get("host")) for name, table in walked.data.get("runners", {}).items()}
    check_runners(resolved, runners, source, findings)
    whole = not _lost_ends(walked, None)
    channels = wire(resolved, tables, source, findings, whole=whole, folder=folder, env=env, only=runner)
    if whole:
        check_meetings(channels, tables, resolved, runners, source=source, findings=findings, only=runner)
    problems = findings.problems()
    if findings.failed:
        raise SpecError(problems)
    pipeline = Pipeline(
        name=walked.data["name"],
        processors={name: each.processor for name, each in resolved.items()},
        channels=channels,
        folder=folder,
        file=file,
        drain_s=parse_duration(walked.data.get("drain", "30s")),
        runners=runners,
    )
    return LoadedPipeline(pipeline, problems)


def _lost_ends(walked: Walked, processor: str | None) -> bool:
    """Whether reads or writes of `processor` (None: of any) may have been lost with what was left out."""
    for spoiled in walked.spoiled:
        if len(spoiled) == 1 and may_mean(str(spoiled[0]), PipelineDocument, "processors"):
            return True
        if spoiled[:1] != ("processors",):
            continue
        if processor is not None and spoiled[1:2] not in {(processor,), ()}:
            continue
        if len(spoiled) < 3 or spoiled[2] in {"reads", "writes", "use"}:
            return True
        if may_mean(str(spoiled[2]), ProcessorDocument, "reads", "writes", "use"):
            return True
    return False
