"""Which image a processor's folder becomes: its Dockerfile, and a name by which the same folder is always found.

The name ends with a hash of all that the image is made of: the folder, the Dockerfile, and the names of the images that
it starts from. What those names stand for changes by itself; `connector build` looks after that.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from runner.errors import EXIT_USAGE, RunnerError
from runner.plan.content import Entry, digest_of, entries_of, ignored_in
from runner.plan.dockerfile import CONTEXT, GENERATOR, Parts, bases_of, generate
from runner.plan.languages import Language, guess, install
from runner.spec.model import Build, Home, Pipeline, Processor

_FILE = "processor.toml"
_TAG_DIGITS = 12
BUILT = "connector/"
"""How the names of images begin that `connector build` makes."""


class ImageError(RunnerError):
    """Nothing says how an image is made of a folder."""

    exit_code = EXIT_USAGE


class Recipe(Struct, frozen=True):
    """How one image is made. `name` is its whole name with the tag, `digest` the whole hash that the tag begins.

    The context is `entries` of `folder` below `prefix`; `dockerfile` is a text, which stands in the context at
    `dockerfile_path` (None: not yet). `bases` are the images that it starts from, as far as they can be told.
    """

    name: str
    digest: str
    dockerfile: str
    bases: tuple[str, ...]
    folder: Path | None = None
    entries: tuple[Entry, ...] = ()
    prefix: str = ""
    dockerfile_path: str | None = None
    target: str | None = None
    args: dict[str, str] = {}
    title: str = ""


def image_tag(spec: Processor) -> str:
    """The name of the image that `spec` runs as: the one it names, or that `connector build` makes of its folder.

    Reads the folder. Raises ImageError (nothing says how it is made) and ContentError (it cannot be read).
    """
    return spec.image if spec.image is not None else recipe_of(spec).name


def with_images(pipeline: Pipeline) -> Pipeline:
    """`pipeline` with the name of its image for each processor in a container that gets one from `connector build`.

    Such an image is in no registry, so it is never fetched. Raises ImageError and ContentError.
    """
    processors = {
        name: msgspec.structs.replace(spec, image=image_tag(spec), pull="never") if is_built(spec) else spec
        for name, spec in pipeline.processors.items()
    }
    return msgspec.structs.replace(pipeline, processors=processors)


def is_built(spec: Processor) -> bool:
    """Whether it runs in an image that `connector build` makes."""
    return spec.home is Home.CONTAINER and spec.image is None and spec.build is not None


def recipe_of(spec: Processor) -> Recipe:
    """How the image of `spec`, which has a `build`, is made. Raises ImageError and ContentError."""
    assert spec.build is not None
    assert spec.template is not None
    try:
        if spec.build.dockerfile is not None:
            return _written(spec.template, spec.build, spec.build.dockerfile)
        return _generated(spec, spec.template, spec.build)
    except RunnerError as error:
        error.where = f"processors.{spec.name}" if error.where is None else error.where
        raise


def base_recipe(language: Language) -> Recipe:
    """How this project's own base for a language is made."""
    dockerfile = _base_dockerfile(language)
    digest = digest_of((), dockerfile)
    name = f"{BUILT}base-{language}:{digest[:_TAG_DIGITS]}"
    return Recipe(name, digest, dockerfile, bases_of(dockerfile, {}), title=f"base for {language}")


def base_language(image: str) -> Language | None:
    """The language whose base is called `image`; None for any other image."""
    languages: tuple[Language, ...] = ("python", "node", "java", "static")
    return next((language for language in languages if image == base_recipe(language).name), None)


@cache
def _base_dockerfile(language: Language) -> str:
    """The Dockerfile of a base: in an installed package beside `runner.pack`, else in the project's `images`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "pack" / "images", package.parent / "images"):
        file = folder / language / "Dockerfile"
        if file.is_file():
            return file.read_text("utf-8")
    raise RunnerError(
        f"the Dockerfile of the base for {language} is not there", remedy="this installation is broken: install again"
    )


def _generated(spec: Processor, folder: Path, build: Build) -> Recipe:
    keys = _keys(folder)
    words = _words(keys) or spec.command
    language = build.language
    if language is None and words:
        # A param or a variable in its place: what it stands for now.
        program = words[0] if not re.search(r"[${]", words[0]) else spec.command[0]
        guessed = guess(program, folder)
        language = guessed.language
        if language is None and build.base is None:
            raise ImageError(
                f"no image can be made of {folder}: {guessed.why_not}",
                remedy=f"in [build] of its {_FILE} write language, or what it needs: "
                'base = "debian:trixie-slim", packages = ["…"]',
            )
    if build.base is None and language == "static" and build.packages:
        raise ImageError(
            "packages cannot be installed into an image that is empty but for the program",
            remedy=f'add base = "debian:trixie-slim" to [build] of {folder / _FILE}',
        )
    base = build.base
    if base is None:
        assert language is not None
        base = base_recipe(language).name
    libraries = install(language, folder)
    entries = entries_of(folder, ignored_in(folder, libraries.ignored if libraries is not None else ()))
    there = {entry.path for entry in entries}
    early = libraries.early if libraries is not None and there.issuperset(libraries.early) else ()
    dockerfile = generate(
        Parts(base, build.packages, libraries.command if libraries else None, early, _fixed_command(keys, words))
    )
    name, digest = _name(folder, keys, digest_of(entries, "generated", GENERATOR, dockerfile))
    return Recipe(name, digest, dockerfile, (base,), folder, entries, CONTEXT, title=_title(folder, keys))


def _written(folder: Path, build: Build, file: Path) -> Recipe:
    try:
        dockerfile = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise ImageError(f"the Dockerfile {file} cannot be read: {why.lower()}", remedy="correct [build]") from None
    entries = entries_of(build.context, ignored_in(build.context))
    inside = file.resolve().is_relative_to(build.context.resolve())
    path = file.resolve().relative_to(build.context.resolve()).as_posix() if inside else None
    if path is not None and all(entry.path != path for entry in entries):
        path = None
    settings = [f"{key}={value}" for key, value in sorted(build.args.items())]
    keys = _keys(folder)
    digest = digest_of(entries, "written", dockerfile, build.target or "", *settings)
    name, digest = _name(folder, keys, digest)
    return Recipe(
        name,
        digest,
        dockerfile,
        bases_of(dockerfile, build.args),
        build.context,
        entries,
        dockerfile_path=path,
        target=build.target,
        args=dict(build.args),
        title=_title(folder, keys),
    )


def _keys(folder: Path) -> dict[str, object]:
    """The folder's processor.toml as it is written, so that the image does not depend on who uses it with what."""
    try:
        return tomllib.loads((folder / _FILE).read_text("utf-8-sig"))
    except (OSError, ValueError):
        return {}


def _words(keys: dict[str, object]) -> tuple[str, ...]:
    """The command as it is written; empty where it is none."""
    command = keys.get("command")
    if isinstance(command, str):
        try:
            return tuple(shlex.split(command))
        except ValueError:
            return ()
    return tuple(map(str, command)) if isinstance(command, list) else ()


def _fixed_command(keys: dict[str, object], words: tuple[str, ...]) -> tuple[str, ...]:
    """`words` where they are the same for everybody: without params and variables; else nothing."""
    params = keys.get("params")
    names = params if isinstance(params, dict) else {}
    loose = any("${" in word or any(f"{{{name}}}" in word for name in names) for word in words)
    return () if loose or not _words(keys) else words


def _title(folder: Path, keys: dict[str, object]) -> str:
    name = keys.get("name")
    return name if isinstance(name, str) and "$" not in name else folder.name


def _name(folder: Path, keys: dict[str, object], digest: str) -> tuple[str, str]:
    """An image's name, of letters that a registry takes, and the hash."""
    for text in (_title(folder, keys), folder.name):
        clean = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
        if clean:
            return f"{BUILT}{clean}:{digest[:_TAG_DIGITS]}", digest
    return f"{BUILT}processor:{digest[:_TAG_DIGITS]}", digest
