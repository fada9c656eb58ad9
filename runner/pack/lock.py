"""Writes down what a pipeline runs, and holds a run to it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec import Struct

from runner.errors import MachineError, RunnerError, SpecError
from runner.launch.shim.locate import shim_path
from runner.pack.engine import connected, find_image
from runner.pack.lockfile import VERSION, Lock, LockedProcessor, LockedRunner, LockError, lock_path, read_lock
from runner.plan.content import file_digest, folder_digest
from runner.plan.image import image_tag
from runner.spec.load import load_file
from runner.spec.model import Home, Pipeline, Processor

if TYPE_CHECKING:
    from docker import APIClient

_INTERPRETERS = re.compile(r"python(3(\.\d+)?)?|node(js)?|(ba|da|z|k)?sh|perl|ruby|php|Rscript|julia|lua")
_WITHOUT_SCRIPT = ("-c", "-m", "-e", "-p", "--eval", "--print")


class Difference(Struct, frozen=True):
    """Something that is not as the lock has it: where, what, and what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.remedy})"


def make_lock(file: Path) -> Lock:
    """What the pipeline in `file` runs here, in each home that its processors can have.

    Raises SpecError, and LockError with every image that is not here of a processor that runs in a container.
    """
    pipeline = load_file(file).pipeline
    found = {name: LockedProcessor() for name in pipeline.processors}
    missing: list[str] = []
    with _Looker(pipeline.folder, os.environ) as look:
        for spec in pipeline.processors.values():
            found[spec.name] = _merged(found[spec.name], look.at(spec))
            if spec.home is Home.CONTAINER and found[spec.name].image_id is None:
                missing.append(look.missing_image(spec))
        for other in _elsewhere(file):
            for spec in other.processors.values():
                with contextlib.suppress(RunnerError):  # it cannot run there, so there is nothing to write down
                    found[spec.name] = _merged(found[spec.name], look.at(spec))
    if missing:
        raise LockError("\n".join(missing))
    return Lock(VERSION, pipeline.name, _this_runner(), found)


def locked(file: Path, pipeline: Pipeline, *, elsewhere: Collection[str] = ()) -> Pipeline:
    """`pipeline`, which was loaded from `file`, held to its lock: images by their digest or id, none fetched.

    `elsewhere` are the processors that other runners have: nothing of theirs is looked at.

    Raises LockError with every difference, or why the lock cannot be used, and SpecError for a damaged one.
    """
    path = lock_path(file)
    lock = read_lock(path)
    differences = verify(lock, pipeline, elsewhere=elsewhere)
    if differences:
        lines = [f"this is not what {path} was written for:", *(f"  {each}" for each in differences)]
        raise LockError("\n".join([*lines, f"  where that is meant to be so: connector lock {file}"]))
    return _pinned(lock, pipeline)


def verify(lock: Lock, pipeline: Pipeline, *, elsewhere: Collection[str] = ()) -> list[Difference]:
    """Everything that differs from `lock` in what `pipeline` would run here, in the homes that it has."""
    found = _runner_differences(lock.runner, _this_runner())
    with _Looker(pipeline.folder, os.environ) as look:
        for spec in pipeline.processors.values():
            where = f"processors.{spec.name}"
            recorded = lock.processors.get(spec.name)
            if recorded is None:
                found.append(Difference(where, "is not in the lock", "lock again, or take it out"))
                continue
            try:
                found += _differences(where, recorded, look.at(spec), spec)
            except MachineError:
                raise
            except RunnerError as error:
                found.append(Difference(where, error.what, error.remedy or "lock again"))
    gone = sorted(lock.processors.keys() - {*pipeline.processors, *elsewhere})
    found += [Difference(f"processors.{name}", "is in the lock only", "lock again, or put it back") for name in gone]
    return found


def _this_runner() -> LockedRunner:
    from importlib.metadata import PackageNotFoundError, version

    try:
        runner = version("connector-runner")
    except PackageNotFoundError:
        runner = "unknown"
    return LockedRunner(runner, platform.machine(), f"sha256:{file_digest(shim_path())}")


def _elsewhere(file: Path) -> Iterator[Pipeline]:
    """The pipeline with all that can moved to another home."""
    for home in (Home.PROCESS, Home.CONTAINER):
        with contextlib.suppress(SpecError):
            yield load_file(file, home=home).pipeline


class _Looker:
    """Looks at what processors are here. The engine is asked only where there is an image; paths are shown short."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._open = contextlib.ExitStack()
        self._client: APIClient | None = None
        self._refused: MachineError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def at(self, spec: Processor) -> LockedProcessor:
        """What `spec` is in its home. Raises ContentError and ImageError, and MachineError without an engine."""
        found = LockedProcessor()
        if spec.template is not None:
            folder = self._shown(spec.template)
            found = LockedProcessor(folder=folder, folder_hash=f"sha256:{folder_digest(spec.template)}")
        return _merged(found, self._image(spec) if spec.home is Home.CONTAINER else self._command(spec))

    def missing_image(self, spec: Processor) -> str:
        """In words: the image is not here, and how it is had."""
        name = image_tag(spec)
        remedy = f"docker pull {name}" if spec.image is not None else "connector build FILE"
        return f"processors.{spec.name}: the image {name} is not here ({remedy})"

    def _image(self, spec: Processor) -> LockedProcessor:
        name = image_tag(spec)
        found = find_image(self._engine(), name)
        if found is None:
            return LockedProcessor(image=name)
        repository = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
        digests = [each for each in found.get("RepoDigests") or () if each.startswith(f"{repository}@")]
        return LockedProcessor(image=name, image_id=found["Id"], image_digest=digests[0] if digests else None)

    def _engine(self) -> APIClient:
        if self._refused is not None:
            raise self._refused
        if self._client is None:
            try:
                self._client = self._open.enter_context(connected())
            except MachineError as error:
                self._refused = error
                raise
        return self._client

    def _command(self, spec: Processor) -> LockedProcessor:
        program = self._program(spec)
        if program is None:
            return LockedProcessor()
        found = LockedProcessor(program=self._shown(program), program_hash=f"sha256:{file_digest(program)}")
        script = _script(spec)
        if script is None or (spec.template is not None and script.is_relative_to(spec.template)):
            return found
        return _merged(found, LockedProcessor(script=self._shown(script), script_hash=f"sha256:{file_digest(script)}"))

    def _program(self, spec: Processor) -> Path | None:
        """The file of the command's first word, found as the shim finds it (execvp(3))."""
        name, directory = spec.command[0], spec.directory or self._folder
        if "/" in name:
            return directory / name
        search = {**self._env, **spec.env, **spec.secrets}.get("PATH", os.defpath)
        for folder in search.split(os.pathsep):
            file = directory / folder / name
            if file.is_file() and os.access(file, os.X_OK):
                return file
        return None

    def _shown(self, path: Path) -> str:
        plain = Path(os.path.normpath(path))
        base = Path(os.path.normpath(self._folder))
        return os.path.relpath(plain, base) if plain.is_relative_to(base) else str(plain)


def _script(spec: Processor) -> Path | None:
    """The program's text where the command is an interpreter with a file; None for any other command."""
    if not _INTERPRETERS.fullmatch(PurePath(spec.command[0]).name):
        return None
    for word in spec.command[1:]:
        if word in _WITHOUT_SCRIPT:
            return None
        if not word.startswith("-"):
            file = (spec.directory or Path()) / word
            return file if file.is_file() else None
    return None


def _merged(first: LockedProcessor, second: LockedProcessor) -> LockedProcessor:
    values = {name: getattr(first, name) or getattr(second, name) for name in LockedProcessor.__struct_fields__}
    return LockedProcessor(**values)


def _runner_differences(then: LockedRunner, now: LockedRunner) -> list[Difference]:
    if then.architecture != now.architecture:
        what = f"the lock is of a machine with {then.architecture}, this one has {now.architecture}"
        return [Difference("runner", what, f"lock on a machine with {now.architecture}")]
    found = []
    if then.version != now.version:
        what = f"the lock is of connector runner {then.version}, this is {now.version}"
        found.append(Difference("runner", what, f"install {then.version}, or lock again"))
    if then.shim_hash != now.shim_hash:
        found.append(Difference("runner", "its shim is another one", "install the same package, or lock again"))
    return found


def _differences(where: str, then: LockedProcessor, now: LockedProcessor, spec: Processor) -> list[Difference]:
    """What is not as it was, of all that matters in this home."""
    found = []
    for part, noun in (("folder", "the folder"), ("program", "the program"), ("script", "the file")):
        path, before, after = getattr(now, part), getattr(then, f"{part}_hash"), getattr(now, f"{part}_hash")
        if after is not None and before is None:
            found.append(Difference(where, f"{noun} {path} is not in the lock", "lock again"))
        elif after is not None and before != after:
            found.append(Difference(where, f"{noun} {path} was changed", "put it back, or lock again"))
    if spec.home is not Home.CONTAINER:
        return found
    if now.image_id is None:
        if now.image == then.image:
            remedy = f"docker pull {now.image}" if spec.image is not None else "connector build FILE, and lock again"
            found.append(Difference(where, f"the image {now.image} is not here", remedy))
        elif spec.image is not None:
            found.append(Difference(where, f"its image is {now.image}, not {then.image}", "lock again"))
    elif then.image_id is None:
        found.append(Difference(where, f"the image {now.image} is not in the lock", "lock again"))
    elif not _same_image(then, now):
        remedy = "fetch or load that one, or lock again"
        shown = then.image_digest or then.image_id
        found.append(Difference(where, f"the image {now.image} is not {shown}", remedy))
    return found


def _same_image(then: LockedProcessor, now: LockedProcessor) -> bool:
    if then.image_id == now.image_id:
        return True
    return then.image_digest is not None and then.image_digest == now.image_digest


def _pinned(lock: Lock, pipeline: Pipeline) -> Pipeline:
    """`pipeline` with images by what they are, not by a name that may come to stand for another one meanwhile."""
    processors: dict[str, Any] = {}
    for name, spec in pipeline.processors.items():
        recorded = lock.processors[name]
        pinned = spec
        if spec.home is Home.CONTAINER:
            pinned = msgspec.structs.replace(spec, image=recorded.image_digest or recorded.image_id, pull="never")
        processors[name] = pinned
    return msgspec.structs.replace(pipeline, processors=processors)
