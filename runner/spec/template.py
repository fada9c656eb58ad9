"""`use`: a folder with a `processor.toml`, whose keys are the defaults of the processors that use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from runner.errors import SpecError
from runner.spec import model, scanner
from runner.spec.document import ParamDocument, ProcessorFile
from runner.spec.findings import Findings, Scope, Source, show
from runner.spec.interpolate import interpolate
from runner.spec.params import check_declarations
from runner.spec.ports import check_codec
from runner.spec.presence import is_folder, is_there
from runner.spec.reading import read_source
from runner.spec.walk import Walked, walk

FILE_NAME = "processor.toml"

_OWN_KEYS = frozenset({"name", "version", "description", "image", "params", "reads", "writes", "build"})
_MERGED_TABLES = frozenset({"env", "secrets", "resources", "stop", "in_flight", "batch", "restart"})


class Template(Struct, frozen=True):
    """A processor.toml that was read and checked. `keys` are the defaults it gives to processor keys."""

    source: Source
    folder: Path
    walked: Walked
    keys: dict[str, Any]
    params: dict[str, ParamDocument] = {}
    defaults: dict[str, object] = {}
    ports: dict[str, dict[str, Any]] = {}
    image: str | None = None
    build: model.Build | None = None

    @property
    def has_dockerfile(self) -> bool:
        """Whether its image is made by a Dockerfile of its own."""
        return self.build is not None and self.build.dockerfile is not None

    @property
    def codecs(self) -> dict[tuple[str, str], str]:
        """The codec of each declared port, by side and name."""
        return {
            (side, port): table["codec"]
            for side, tables in self.ports.items()
            for port, table in tables.items()
            if "codec" in table
        }


class Templates:
    """Reads each processor.toml once, however many processors use it."""

    def __init__(self, folder: Path, shown_folder: Path, env: Mapping[str, str], findings: Findings) -> None:
        self._folder = folder
        self._shown_folder = shown_folder
        self._env = env
        self._findings = findings
        self._known: dict[Path, Template | None] = {}

    def get(self, scope: Scope, use: str) -> Template | None:
        """The template in the folder `use`; None after an error, which `scope` tells."""
        folder = self._folder / use
        if not is_folder(folder):
            state = "is no folder" if is_there(folder) else "is not there"
            scope.error(("use",), f"the folder {show(use)} {state}", "a relative path starts from the pipeline file")
            return None
        if not is_there(folder / FILE_NAME):
            scope.error(("use",), f"the folder {show(use)} has no {FILE_NAME}", "use is a folder with such a file")
            return None
        if folder not in self._known:
            self._known[folder] = self._read(folder, str(self._shown_folder / use / FILE_NAME))
        return self._known[folder]

    def _read(self, folder: Path, shown: str) -> Template | None:
        try:
            source = read_source(folder / FILE_NAME, shown)
        except SpecError as error:
            for problem in error.problems:
                self._findings.note(problem)
            return None
        data, failed = interpolate(source, self._env, self._findings)
        walked = walk(source, data, ProcessorFile, self._findings, skip=failed)
        good = walked.data
        params = msgspec.convert(good.get("params", {}), dict[str, ParamDocument])
        defaults = check_declarations(Scope(self._findings, source, ("params",)), params, folder)
        scope = Scope(self._findings, source)
        if not {"command", "image"} & good.keys() and not walked.is_spoiled("command"):
            scope.error((), "the command is missing", 'write command = ["program", "argument"], or an image')
        ports: dict[str, dict[str, Any]] = {side: good[side] for side in ("reads", "writes") if side in good}
        for (side, port), codec in Template(source, folder, walked, {}, ports=ports).codecs.items():
            check_codec(scope, (side, port, "codec"), codec)
        return Template(
            source,
            folder,
            walked,
            {key: value for key, value in good.items() if key not in _OWN_KEYS},
            params,
            defaults,
            ports,
            good.get("image"),
            _build(scope, good.get("build", {}), folder),
        )


def _build(scope: Scope, written: dict[str, Any], folder: Path) -> model.Build:
    """`[build]`, or what stands for it where it is not written."""
    by_file, generated = ("context", "target", "args"), ("language", "base", "packages")
    dockerfile = folder / written["dockerfile"] if "dockerfile" in written else None
    context = folder / written.get("context", ".")
    if dockerfile is not None and not is_there(dockerfile):
        scope.error(("build", "dockerfile"), f"{dockerfile} is not there", "a relative path starts from the folder")
    elif dockerfile is None:
        for key in by_file:
            if key in written:
                scope.error(("build", key), f"{key} goes with dockerfile", "leave it out", at="key")
    else:
        for key in generated:
            if key in written:
                scope.error(("build", key), f"{key} is for a generated Dockerfile", "leave it out", at="key")
    if not is_folder(context):
        scope.error(("build", "context"), f"{context} is no folder", "a relative path starts from the folder")
    return model.Build(
        context=context,
        dockerfile=dockerfile,
        target=written.get("target"),
        args=written.get("args", {}),
        language=written.get("language"),
        base=written.get("base"),
        packages=tuple(written.get("packages", ())),
    )


def merged(own: Mapping[str, Any], template: Template) -> tuple[dict[str, Any], frozenset[scanner.Path]]:
    """The keys of a processor over those of its template, and the paths that come from the template.

    A key of the pipeline wins. The tables env, secrets, resources, stop, in_flight, batch and restart are merged key by
    key.
    """
    keys = dict(own)
    inherited: set[scanner.Path] = set()
    for key, value in template.keys.items():
        if key not in own:
            keys[key] = value
            inherited.add((key,))
        elif key in _MERGED_TABLES and isinstance(value, dict) and isinstance(own[key], dict):
            keys[key] = {**value, **own[key]}
            inherited |= {(key, inner) for inner in value if inner not in own[key]}
    return keys, frozenset(inherited)
