"""Makes images of processors' folders: only those that are missing or whose base has changed."""

from __future__ import annotations

import collections
import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from msgspec import Struct

from runner.errors import LaunchError, RunnerError
from runner.events import Event, Progress
from runner.pack.archive import context_bytes, dockerfile_name, tar_of
from runner.pack.engine import connected, find_image
from runner.plan.image import Recipe, base_language, base_recipe, is_built, recipe_of
from runner.spec.model import Pipeline
from runner.units import format_size

if TYPE_CHECKING:
    from docker import APIClient

AT_ONCE = 2
"""Builds at the same time: more only share one disk."""

LAST_LINES = 20
CONTENT_LABEL = "connector.content"
BASES_LABEL = "connector.bases"
_TOLD_EVERY_S = 0.5
_LONGEST_LINE = 500
_TRIES = 3
_LAYER_GONE = "unknown parent image"
_LONG_STEPS = ("FROM", "RUN", "COPY", "ADD")

Notify = Callable[[Event], None]


class BuildError(LaunchError):
    """An image that could not be made."""


class LayerGoneError(BuildError):
    """A layer of an earlier build, which this one stood upon, was removed meanwhile: the next try makes it again."""


class Wanted(Struct, frozen=True):
    """An image to be made for these processors; none for a base."""

    recipe: Recipe
    processors: tuple[str, ...] = ()


class Built(Struct, frozen=True):
    """What became of one image. `size_bytes` with its base; `took_s` is 0.0 for one that was up to date."""

    image: str
    id: str
    state: Literal["built", "up to date"]
    size_bytes: int
    took_s: float
    processors: tuple[str, ...] = ()


class Plan(Struct, frozen=True):
    """What the processors of a pipeline need: the bases come first."""

    bases: tuple[Wanted, ...] = ()
    images: tuple[Wanted, ...] = ()


def plan_of(pipeline: Pipeline) -> Plan:
    """The images that are made for `pipeline`, each once, however many processors use it.

    Raises ImageError and ContentError.
    """
    recipes: dict[str, Recipe] = {}
    users: dict[str, list[str]] = {}
    for spec in pipeline.processors.values():
        if is_built(spec):
            recipe = recipe_of(spec)
            recipes[recipe.name] = recipe
            users.setdefault(recipe.name, []).append(spec.name)
    bases: dict[str, Recipe] = {}
    for recipe in recipes.values():
        for base in recipe.bases:
            language = base_language(base)
            if language is not None:
                bases[base] = base_recipe(language)
    return Plan(
        tuple(map(Wanted, bases.values())),
        tuple(Wanted(recipe, tuple(users[name])) for name, recipe in recipes.items()),
    )


def build(plan: Plan, notify: Notify, *, cache: bool = True) -> tuple[Built, ...]:
    """Make what is missing or outdated, at most two at once; the images in the order of the plan, without the bases.

    `notify` gets the progress, on the caller's thread. Not `cache`: the images are made again, from the first step on
    (not the bases, on which others stand too).
    Raises BuildError (with all that failed), ContentError and MachineError.
    """
    if not plan.images:
        return ()
    with connected() as client:
        _all(plan.bases, client, notify, cache=True)
        return _all(plan.images, client, notify, cache=cache)


def _all(wanted: tuple[Wanted, ...], client: APIClient, notify: Notify, *, cache: bool) -> tuple[Built, ...]:
    """Each on one of a few threads, which are let go of where this one is interrupted: the engine then gives up too."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    told: queue.SimpleQueue[Event | tuple[int, Built | Exception]] = queue.SimpleQueue()
    for index in range(len(wanted)):
        todo.put(index)

    def work() -> None:
        while True:
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            try:
                told.put((index, _Build(client, wanted[index], told.put, cache=cache).run()))
            except Exception as error:  # noqa: BLE001  (raised again by the caller's thread)
                told.put((index, error))

    for _ in range(min(AT_ONCE, len(wanted))):
        threading.Thread(target=work, name="connector-build", daemon=True).start()
    ended: dict[int, Built | Exception] = {}
    while len(ended) < len(wanted):
        said = told.get()
        if isinstance(said, Event):
            notify(said)
        else:
            ended[said[0]] = said[1]
    _raise_failed([ended[index] for index in range(len(wanted))])
    return tuple(each for _, each in sorted(ended.items()) if isinstance(each, Built))


def _raise_failed(ended: Iterable[Built | Exception]) -> None:
    failed = [each for each in ended if isinstance(each, Exception)]
    if not failed:
        return
    for each in failed:
        if not isinstance(each, RunnerError):
            raise each
    if len(failed) == 1:
        raise failed[0]
    raise BuildError("\n".join(str(each) for each in failed))


class _Build:
    """One image, on one thread."""

    def __init__(self, client: APIClient, wanted: Wanted, tell: Callable[[Event], None], *, cache: bool) -> None:
        self._client = client
        self._wanted = wanted
        self._recipe = wanted.recipe
        self._tell = tell
        self._cache = cache
        self._what = f"image {self._recipe.name}"
        self._where = ", ".join(wanted.processors) or self._recipe.title
        self._sent_bytes = 0
        self._told_s = 0.0

    def run(self) -> Built:
        """The image, made where it has to be."""
        began_s = time.monotonic()
        image = find_image(self._client, self._recipe.name) if self._cache else None
        state: Literal["built", "up to date"] = "up to date"
        if image is None or not self._is_current(image):
            self._make()
            state = "built"
            image = find_image(self._client, self._recipe.name)
            assert image is not None
        took_s = time.monotonic() - began_s if state == "built" else 0.0
        self._progress(state, 1.0, done=True)
        return Built(self._recipe.name, image["Id"], state, image["Size"], took_s, self._wanted.processors)

    def _is_current(self, image: dict[str, Any]) -> bool:
        """Whether it has this content, and its bases are still what it was made from (a base that is gone counts so).

        The tag holds only the beginning of the content's hash.
        """
        labels = (image["Config"] or {}).get("Labels") or {}
        if labels.get(CONTENT_LABEL) != self._recipe.digest:
            return False
        before = dict(each.split("=", 1) for each in labels.get(BASES_LABEL, "").split() if "=" in each)
        now = {name: found["Id"] for name in self._recipe.bases if (found := find_image(self._client, name))}
        return all(before.get(name) == identity for name, identity in now.items())

    def _make(self) -> None:
        import docker.errors
        import requests

        try:
            bases = [f"{name}={self._base(name)}" for name in self._recipe.bases]
            labels = {CONTENT_LABEL: self._recipe.digest, BASES_LABEL: " ".join(bases)}
            if self._wanted.processors:
                labels["org.opencontainers.image.title"] = self._recipe.title
            for _ in range(_TRIES - 1):
                with contextlib.suppress(LayerGoneError):
                    self._build(labels)
                    return
            self._build(labels)
        except docker.errors.APIError as error:
            raise self._failed(f"the engine says: {error.explanation or error}") from None
        except (requests.RequestException, docker.errors.DockerException) as error:
            raise self._failed(f"the engine is gone: {error}") from None

    def _build(self, labels: dict[str, str]) -> None:
        """One try. Raises BuildError."""
        self._sent_bytes = 0
        self._progress("sending its files", 0.0)
        self._follow(
            self._client.build(
                fileobj=cast("IO[bytes]", tar_of(self._recipe, self._count)),  # requests takes an iterator too
                custom_context=True,
                dockerfile=dockerfile_name(self._recipe),
                tag=self._recipe.name,
                labels=labels,
                buildargs=self._recipe.args,
                target=self._recipe.target,
                nocache=not self._cache,
                rm=True,
                forcerm=True,
                decode=True,
                use_config_proxy=True,
            )
        )

    def _base(self, name: str) -> str:
        """The id of an image that this one starts from; fetched where it is missing."""
        import docker.errors

        found = find_image(self._client, name)
        if found is None:
            self._progress(f"fetching {name}")
            try:
                for said in self._client.pull(*_split(name), stream=True, decode=True):
                    if "error" in said:
                        raise self._failed(f"its base {name} cannot be fetched: {said['error']}")
                    self._fetched(name, said)
            except docker.errors.APIError as error:
                why = error.explanation or str(error)
                raise self._failed(f"its base {name} is not here and cannot be fetched: {why}") from None
            found = find_image(self._client, name)
        if found is None:
            raise self._failed(f"its base {name} cannot be had")
        identity: str = found["Id"]
        return identity

    def _fetched(self, name: str, said: dict[str, Any]) -> None:
        detail = said.get("progressDetail") or {}
        if said.get("status") == "Downloading" and detail.get("total"):
            self._progress(f"fetching {name}: layer {said.get('id', '')}", detail["current"] / detail["total"])

    def _count(self, size_bytes: int) -> None:
        self._sent_bytes += size_bytes
        total = context_bytes(self._recipe)
        self._progress(f"sending its files ({format_size(total)})", self._sent_bytes / total)

    def _follow(self, answers: Iterator[dict[str, Any]]) -> None:
        """Read what the engine says until the image is there. Raises BuildError with the last lines of what failed."""
        step, printed = "", LastLines(LAST_LINES)
        for said in answers:
            text = str(said.get("stream", ""))
            if "error" in said:
                failed = self._failed(*_why(said, step, printed.lines()))
                raise LayerGoneError(failed.what, where=failed.where) if _LAYER_GONE in str(said["error"]) else failed
            if text.startswith("Step ") and " : " in text:
                number, _, step = _harmless(text.strip()).partition(" : ")
                printed = LastLines(LAST_LINES)
                if step.startswith(_LONG_STEPS):
                    self._told_s = 0.0
                    self._progress(f"{number.lower()}: {step}", _fraction(number))
            elif not text.startswith((" --->", "Removing intermediate container")):
                printed.add(text)

    def _failed(self, why: str, last_lines: Iterable[str] = ()) -> BuildError:
        tail = "".join(f"\n    {line}" for line in last_lines)
        return BuildError(f"the image {self._recipe.name} cannot be built: {why}{tail}", where=self._where)

    def _progress(self, doing: str, fraction: float | None = None, *, done: bool = False) -> None:
        """Say how far it is, a few times a second at most."""
        now_s = time.monotonic()
        if done or now_s - self._told_s >= _TOLD_EVERY_S:
            self._told_s = now_s
            self._tell(Progress(what=self._what, doing=doing, fraction=fraction, done=done))


class LastLines:
    """The last lines of what was printed in pieces of any size, blank ones left out, made harmless for a terminal."""

    def __init__(self, most: int) -> None:
        self._kept: collections.deque[str] = collections.deque(maxlen=most)
        self._torn = ""

    def add(self, text: str) -> None:
        """Take a piece in; of an endless line only the end is kept."""
        *whole, self._torn = (self._torn + text).split("\n")
        self._torn = self._torn[-_LONGEST_LINE:]
        self._kept.extend(line for line in map(_harmless, whole) if line)

    def lines(self) -> list[str]:
        """They, oldest first."""
        torn = _harmless(self._torn)
        return [*self._kept, torn][-(self._kept.maxlen or 1) :] if torn else list(self._kept)


def _harmless(text: str) -> str:
    """One line without colours and control characters, and of bounded length."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text.rstrip("\r").rpartition("\r")[2])
    clean = "".join(each if each.isprintable() or each == "\t" else "\ufffd" for each in plain).rstrip()
    return clean if len(clean) <= _LONGEST_LINE else f"{clean[: _LONGEST_LINE - 1]}…"


def _why(said: dict[str, Any], step: str, lines: list[str]) -> tuple[str, list[str]]:
    """The engine's error in words, and what was printed before it."""
    code = (said.get("errorDetail") or {}).get("code")
    if step and code is not None:
        head = f"{step} ended with exit status {code}"
        return (f"{head}; its last lines:" if lines else f"{head} and printed nothing"), lines
    text = _harmless(" ".join(str(said["error"]).split()))
    return (f"{step}: {text}" if step else text), lines


def _fraction(number: str) -> float | None:
    """Of `Step 3/7`: how much came before it."""
    at, _, total = number.removeprefix("Step ").partition("/")
    return (int(at) - 1) / int(total) if at.isdigit() and total.isdigit() and int(total) else None


def _split(name: str) -> tuple[str, str | None]:
    """Repository and tag, as the engine's API wants them; an image without a tag is the latest."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")
