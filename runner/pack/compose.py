"""Exports a pipeline as a Compose project: looks at what is here, writes the files, and holds them to the pipeline."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from runner.errors import EXIT_USAGE, MachineError, RunnerError
from runner.launch.seccomp import docker_profile
from runner.pack.engine import connected, find_image
from runner.plan.compose import naming
from runner.plan.compose.links import Links, links_of
from runner.plan.compose.project import MARK, Ground, changes_of, compose_text
from runner.plan.compose.runners import CHANGES, Secret, Surroundings, Variable
from runner.plan.image import image_tag
from runner.plan.images import Image
from runner.spec.interpolate import names_in
from runner.spec.load import load_file
from runner.spec.model import Home, Pipeline, Processor
from runner.spec.reading import read_source
from runner.spec.template import FILE_NAME

SIDE = "connector"
_SECCOMP = "seccomp.json"
_UNKNOWN = "-"  # in the place of a secret that is not looked at


class ExportError(RunnerError):
    """The pipeline cannot be a Compose project as it stands, with every reason."""

    exit_code = EXIT_USAGE


class Project(Struct, frozen=True):
    """The files of a Compose project, by path; the Compose file is the first."""

    files: dict[Path, str]

    def differences(self) -> Iterator[str]:
        """What is not as it should be, file by file."""
        for path, text in self.files.items():
            found = _read(path)
            if found is None:
                yield f"{path} is not there"
            elif found != text:
                yield f"{path}:{_first_difference(found, text)} is not what the pipeline says now"

    def write(self) -> list[Path]:
        """Write what is missing or different; returns which. Raises ExportError for a Compose file that is not ours."""
        first = next(iter(self.files))
        found = _read(first)
        if found is not None and MARK not in found:
            raise ExportError(
                f"{first} is there and was not written by this command",
                remedy="put what is yours into compose.override.yaml and remove it, or write elsewhere (--output)",
            )
        written = []
        for path, text in self.files.items():
            if _read(path) == text:
                continue
            path.parent.mkdir(exist_ok=True)
            fresh = path.with_name(f".{path.name}.new")
            fresh.write_text(text, "utf-8")
            fresh.replace(path)
            written.append(path)
        return written


def export(file: Path, output: Path | None, runner_image: str) -> Project:
    """The Compose project of the pipeline in `file`, to be written to `output` (None: compose.yaml beside the file).

    Raises SpecError, ExportError with all that cannot be, and MachineError without an engine to look at images with.
    """
    raw = read_source(file, str(file)).data
    env = {**dict.fromkeys(_secret_variables(raw, file.parent), _UNKNOWN), **os.environ}
    pipeline = load_file(file, env=env, home=Home.CONTAINER).pipeline
    output = file.absolute().parent / "compose.yaml" if output is None else output.absolute()
    if output.parent != pipeline.folder:
        raise ExportError(f"{output} is not beside the pipeline file", remedy=f"write a path in {pipeline.folder}")
    side = SIDE if output.stem == "compose" else f"{output.stem}.{SIDE}"
    tables = raw.get("channels", {})
    links = links_of(pipeline, tables if isinstance(tables, dict) else {})
    _refuse(pipeline, links)
    images, names = _images(pipeline)
    secrets, by_owner = _secrets(pipeline, raw)
    variables = _variables(pipeline, raw)
    around = Surroundings(
        pipeline, file.absolute(), side, runner_image, links, variables, secrets, _schemas(pipeline, raw)
    )
    ground = Ground(around, images, names, docker_profile())
    changes = _changes_text(changes_of(ground, by_owner), file.name)
    files = {
        output: compose_text(ground),
        output.parent / side / CHANGES: changes,
        output.parent / side / _SECCOMP: _profile(ground.seccomp),
    }
    return Project(files)


def _refuse(pipeline: Pipeline, links: Links) -> None:
    """Raise ExportError with everything that keeps the pipeline from being a Compose project."""
    problems = []
    for spec in pipeline.processors.values():
        if spec.home is not Home.CONTAINER:
            problems.append(
                f"processors.{spec.name}: is a command without an image, which no container has\n"
                "    give it an image, or a folder of its own with processor.toml (use)"
            )
        if spec.name in {naming.NATS, naming.SIDECAR} or spec.name.startswith(f"{naming.SIDECAR}-"):
            problems.append(
                f"processors.{spec.name}: a service of the project has that name\n    call it something else"
            )
    problems += [f"channels.{name}: {what}\n    {remedy}" for name, what, remedy in links.problems]
    if problems:
        raise ExportError("\n".join([f"{len(problems)} things cannot be so in a Compose project:", *problems]))


def _images(pipeline: Pipeline) -> tuple[dict[str, Image], dict[str, str]]:
    """What each processor's image says of itself, and the images' names. Raises ExportError with what is missing."""
    found: dict[str, Image] = {}
    names = {spec.name: image_tag(spec) for spec in pipeline.processors.values()}
    told = {name: spec for name, spec in pipeline.processors.items() if not _says_all(spec)}
    try:
        with connected() as client:
            for name, image in names.items():
                inspected = find_image(client, image)
                if inspected is not None:
                    found[name] = Image.of(inspected)
    except MachineError:
        if told:
            raise
    missing = [spec for name, spec in told.items() if name not in found]
    if missing:
        lines = [_missing(spec, names[spec.name]) for spec in missing]
        raise ExportError("\n".join(["what runs in these images is not known:", *lines]))
    return {name: found.get(name, Image(names[name])) for name in names}, names


def _says_all(spec: Processor) -> bool:
    """Whether the file itself says what is executed: its entrypoint, or the command of a generated Dockerfile."""
    return spec.entrypoint is not None or (spec.image is None and bool(spec.command))


def _missing(spec: Processor, name: str) -> str:
    got = f"docker pull {name}" if spec.image is not None else "connector build"
    return (
        f"processors.{spec.name}: the image {name} is not here\n"
        f'    get it ({got}), or write its entrypoint and command: entrypoint = ["…"]'
    )


def _variables(pipeline: Pipeline, raw: Mapping[str, Any]) -> tuple[Variable, ...]:
    """What the pipeline file and its processor.toml files take from the environment."""
    needed: dict[str, bool] = {}
    folders = dict.fromkeys(spec.template for spec in pipeline.processors.values() if spec.template is not None)
    for document in (raw, *map(_template, folders)):
        for name, default in names_in(document):
            needed[name] = needed.get(name, False) or not default
    return tuple(Variable(name, need) for name, need in needed.items())


def _secret_variables(raw: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The variables that secrets and tokens come from: their values are not looked at here."""
    for table in _tables(raw, "processors"):
        documents = [table]
        if isinstance(table.get("use"), str) and (folder / table["use"] / FILE_NAME).is_file():
            documents.append(_template(folder / table["use"]))
        for document in documents:
            secrets = document.get("secrets")
            for written in secrets.values() if isinstance(secrets, dict) else ():
                if isinstance(written, str) and written.startswith("env:"):
                    yield written.removeprefix("env:")
    for table in _tables(raw, "channels"):
        token = table.get("token")
        if isinstance(token, str) and token.startswith("env:"):
            yield token.removeprefix("env:")


def _template(folder: Path) -> dict[str, Any]:
    """The processor.toml of a folder, as it is written."""
    return read_source(folder / FILE_NAME, str(folder / FILE_NAME)).data


def _tables(raw: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    tables = raw.get(name)
    return [table for table in tables.values() if isinstance(table, dict)] if isinstance(tables, dict) else []


def _secrets(pipeline: Pipeline, raw: Mapping[str, Any]) -> tuple[tuple[Secret, ...], dict[str, dict[str, str]]]:
    """The secrets of all runners, and for whom each is: by "processors.NAME" or "channels.NAME" and variable."""
    found: list[Secret] = []
    by_owner: dict[str, dict[str, str]] = {}

    def add(owner: str, variable: str, written: str, folder: Path, runners: Iterable[str | None]) -> None:
        name = naming.secret(owner.partition(".")[2], variable)
        by_owner.setdefault(owner, {})[variable] = name
        where, _, what = written.partition(":")
        for runner in runners:
            variable_of, file = (what, None) if where == "env" else (None, folder / what)
            found.append(Secret(name, runner, file, variable_of))

    for name, spec in pipeline.processors.items():
        for folder, table in _secret_tables(spec, raw["processors"][name], pipeline.folder):
            for variable, written in table.items():
                add(f"processors.{name}", variable, written, folder, [spec.runner])
    for name, channel in pipeline.channels.items():
        token = raw.get("channels", {}).get(name, {}).get("token")
        if isinstance(token, str):
            ends = (*channel.writers, *channel.readers)
            runners = dict.fromkeys(pipeline.processors[end].runner for end in ends)
            add(f"channels.{name}", "token", token, pipeline.folder, runners)
    return tuple(found), by_owner


def _secret_tables(spec: Processor, written: Mapping[str, Any], folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Where secrets are written, and from where their paths start; what the pipeline says wins."""
    own = written.get("secrets", {})
    if spec.template is not None:
        theirs = _template(spec.template).get("secrets", {})
        yield spec.template, {name: value for name, value in theirs.items() if name not in own}
    yield folder, own


def _schemas(pipeline: Pipeline, raw: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files with JSON Schemas."""
    written = [table["schema"] for table in _tables(raw, "channels") if isinstance(table.get("schema"), str)]
    return tuple(dict.fromkeys(pipeline.folder / each for each in written))


def _changes_text(changes: Mapping[str, Any], file: str) -> str:
    import tomli_w

    return f"# {MARK}: what is laid over {file} in its containers.\n\n{tomli_w.dumps(changes)}"


def _profile(seccomp: str) -> str:
    return msgspec.json.format(seccomp.encode(), indent=2).decode() + "\n"


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise ExportError(f"{path} cannot be read: {why.lower()}") from None


def _first_difference(found: str, due: str) -> int:
    """The line where two texts part."""
    pairs = zip(re.split("\n", found), re.split("\n", due), strict=False)
    return next((number for number, (mine, theirs) in enumerate(pairs, 1) if mine != theirs), found.count("\n") + 1)
