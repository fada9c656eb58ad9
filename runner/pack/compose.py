"""Exports a pipeline as a Compose project: looks at what is here, writes the files, and holds them to the pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import msgspec

from runner.errors import MachineError
from runner.launch.seccomp import docker_profile
from runner.pack.compose_files import ExportError, Project
from runner.pack.engine import connected, find_image
from runner.plan.compose import naming
from runner.plan.compose.links import links_of
from runner.plan.compose.project import MARK, Ground, changes_of, compose_text
from runner.plan.compose.runners import CHANGES, Secret, Surroundings, Variable, needed_files
from runner.plan.image import image_tag
from runner.plan.images import Image
from runner.spec.findings import Findings, Source
from runner.spec.interpolate import interpolate, names_in
from runner.spec.load import load_file
from runner.spec.model import Home, Pipeline, Processor
from runner.spec.reading import read_source
from runner.spec.template import FILE_NAME

SIDE = "connector"
_SECCOMP = "seccomp.json"
_UNKNOWN = "-"  # in the place of a secret that is not looked at


def export(file: Path, output: Path | None, runner_image: str) -> Project:
    """The Compose project of the pipeline in `file`, to be written to `output` (None: compose.yaml beside the file).

    Raises SpecError, ExportError with all that cannot be, and MachineError without an engine to look at images with.
    """
    source = read_source(file, str(file))
    raw = _put_in(source)
    env = {**dict.fromkeys(_secret_variables(raw, file.parent), _UNKNOWN), **os.environ}
    pipeline = load_file(file, env=env, home=Home.CONTAINER).pipeline
    output = file.absolute().parent / "compose.yaml" if output is None else output.absolute()
    if not _same(output.parent, pipeline.folder):
        raise ExportError(f"{output} is not beside the pipeline file", remedy=f"write a path in {pipeline.folder}")
    side = SIDE if output.stem == "compose" else f"{output.stem}.{SIDE}"
    tables = raw.get("channels", {})
    links = links_of(pipeline, tables if isinstance(tables, dict) else {})
    secrets, by_owner = _secrets(pipeline, raw)
    around = Surroundings(
        pipeline,
        file.absolute(),
        side,
        runner_image,
        links,
        _variables(pipeline, source.data),
        secrets,
        _schemas(pipeline, raw),
        frozenset(os.path.normpath(text) for text in _texts(raw) if text.startswith("/")),
        output.name,
    )
    _refuse(around)
    images, names = _images(pipeline)
    ground = Ground(around, images, names, docker_profile())
    load_file(file, env=env, home=Home.ATTACHED, changes=changes_of(ground, {}))  # as its runners will read it
    files = {
        output: compose_text(ground),
        output.parent / side / CHANGES: _changes_text(changes_of(ground, by_owner), file.name),
        output.parent / side / _SECCOMP: _profile(ground.seccomp),
    }
    return Project(files, tuple(_out_of_reach(around)))


def _same(one: Path, other: Path) -> bool:
    """Whether two folders are the same, however they are written."""
    return one.resolve() == other.resolve()


def _put_in(source: Source) -> dict[str, Any]:
    """The document with its variables put in; what is wrong with them is told by who loads it."""
    return interpolate(source, os.environ, Findings(source.name))[0]


def _texts(value: Any) -> Iterator[str]:
    """All strings in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _refuse(around: Surroundings) -> None:
    """Raise ExportError with everything that keeps the pipeline from being a Compose project."""
    pipeline, links = around.pipeline, around.links
    problems = []
    taken = {name for joined in links.networks.values() for name in joined}
    taken |= {naming.outbound(name) for name, spec in pipeline.processors.items() if spec.network == "outbound"}
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
        if spec.network in taken:
            problems.append(
                f"processors.{spec.name}: the network `{spec.network}` of the project is for others\n"
                "    call it something else"
            )
    problems += _out_of_place(around)
    problems += [f"channels.{name}: {what}\n    {remedy}" for name, what, remedy in links.problems]
    if problems:
        many = "1 thing" if len(problems) == 1 else f"{len(problems)} things"
        raise ExportError("\n".join([f"{many} cannot be so in a Compose project:", *problems]))


def _out_of_place(around: Surroundings) -> list[str]:
    """Files that would be where a runner's container has something else."""
    needed: dict[Path, str] = {}
    for runner in around.pipeline.runners or (None,):
        needed |= {path: place for path, (place, _) in needed_files(around, runner).items()}
    return [
        f"{path}: would be at {place} in its runner's container, which has something else there\n"
        f"    move it into {around.pipeline.folder}, or give its folder another name"
        for path, place in needed.items()
        if naming.is_taken(place)
    ]


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
    """Whether nothing of its image matters: what is executed, and for an untrusted one the volumes."""
    build = spec.build
    if spec.image is not None or build is None or build.dockerfile is not None:
        return spec.entrypoint is not None and not spec.untrusted
    return bool(spec.command) and not (spec.untrusted and build.base is not None)  # a generated one has no entrypoint


def _missing(spec: Processor, name: str) -> str:
    got = f"docker pull {name}" if spec.image is not None else "connector build"
    instead = "" if spec.untrusted else ', or write its entrypoint and command: entrypoint = ["…"]'
    return f"processors.{spec.name}: the image {name} is not here\n    get it ({got}){instead}"


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
            documents.append(_put_in(_template_source(folder / table["use"])))
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
    return _template_source(folder).data


def _template_source(folder: Path) -> Source:
    return read_source(folder / FILE_NAME, str(folder / FILE_NAME))


def _tables(raw: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    tables = raw.get(name)
    return [table for table in tables.values() if isinstance(table, dict)] if isinstance(tables, dict) else []


def _secrets(pipeline: Pipeline, raw: Mapping[str, Any]) -> tuple[tuple[Secret, ...], dict[str, dict[str, str]]]:
    """The secrets of all runners, and for whom each is: by "processors.NAME" or "channels.NAME" and variable."""
    found: list[Secret] = []
    by_owner: dict[str, dict[str, str]] = {}

    def add(owner: str, variable: str, written: str, folder: Path, runners: Iterable[str | None]) -> None:
        wanted = naming.secret(owner.partition(".")[2], variable)
        names = {each for own in by_owner.values() for each in own.values()}
        name = next(each for each in chain([wanted], (f"{wanted}-{n}" for n in count(2))) if each not in names)
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
        theirs = _put_in(_template_source(spec.template)).get("secrets", {})
        yield spec.template, {name: value for name, value in theirs.items() if name not in own}
    yield folder, own


def _schemas(pipeline: Pipeline, raw: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files with JSON Schemas."""
    written = [table["schema"] for table in _tables(raw, "channels") if isinstance(table.get("schema"), str)]
    return tuple(dict.fromkeys(Path(os.path.normpath(pipeline.folder / each)) for each in written))


def _out_of_reach(around: Surroundings) -> Iterator[str]:
    """What the runner's user may not read or write, as far as modes tell: a container's user is nobody's owner here."""
    needed = {around.file: False}
    for runner in around.pipeline.runners or (None,):
        for path, (_, writable) in needed_files(around, runner).items():
            needed[path] = writable or needed.get(path, False)
            if (path / FILE_NAME).is_file():
                needed[path / FILE_NAME] = False
    secrets = {each.file for each in around.secrets if each.file is not None}
    needed |= dict.fromkeys(secrets, False)
    for path, writable in needed.items():
        try:
            status = path.stat()
        except OSError as error:
            yield f"{path}: {(error.strerror or str(error)).lower()}"
            continue
        letters = "r" if not path.is_dir() else "rwx" if writable else "rx"
        due = sum({"r": 4, "w": 2, "x": 1}[letter] for letter in letters)
        if status.st_uid != int(naming.USER) and status.st_mode & due != due and not _has_list(path):
            may = "write there" if writable else "read it"
            user = f"setfacl -m u:{naming.USER}:{letters}"  # what is secret is not for everybody
            remedy = user if path in secrets else f"chmod o+{letters}, or {user}"
            yield f"{path}: the runner's user {naming.USER} may not {may}: {remedy}"


def _changes_text(changes: Mapping[str, Any], file: str) -> str:
    import tomli_w

    return f"# {MARK}: what is laid over {file} in its containers.\n\n{tomli_w.dumps(changes)}"


def _profile(seccomp: str) -> str:
    return msgspec.json.format(seccomp.encode(), indent=2).decode() + "\n"


def _has_list(path: Path) -> bool:
    """Whether more users than modes tell of have something to do with it (acl(5)): who wrote that knows."""
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return False
