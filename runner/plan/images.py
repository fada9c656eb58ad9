"""Images: what one says of itself, what is executed in it, whether it fits the machine, how far its download is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.errors import LaunchError
from runner.spec.model import Processor

Pull = Literal["missing", "always", "never"]

_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv7l": "arm"}
_RUNS = {"amd64": {"amd64", "386"}}
_LATEST_FIRST: tuple[Pull, ...] = ("always", "missing", "never")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has. `env` holds NAME=value; `user` "" is root."""

    id: str
    system: str = "linux"
    arch: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    volumes: tuple[str, ...] = ()

    @classmethod
    def of(cls, inspected: Mapping[str, Any]) -> Image:
        """From what the engine says (Engine API, `GET /images/NAME/json`)."""
        config = inspected.get("Config") or {}
        return cls(
            id=inspected["Id"],
            system=inspected.get("Os") or "linux",
            arch=inspected.get("Architecture") or "",
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
            env=tuple(config.get("Env") or ()),
            user=config.get("User") or "",
            volumes=tuple(sorted(config.get("Volumes") or ())),
        )


def program(spec: Processor, image: Image, command: tuple[str, ...]) -> tuple[str, ...]:
    """What is executed, as Compose has it: an entrypoint of the file's own drops the image's command.

    `command` empty: the image's. Raises LaunchError when there is nothing to execute.
    """
    entrypoint = image.entrypoint if spec.entrypoint is None else spec.entrypoint
    if not command and spec.entrypoint is None:
        command = image.command
    if not (*entrypoint, *command):
        raise LaunchError(
            f"image {spec.image} has no command of its own", remedy='say what to run in it: command = ["…"]'
        )
    return (*entrypoint, *command)


def architecture(name: str) -> str:
    """The image world's name of an architecture: x86_64 is amd64."""
    return _NAMES.get(name, name)


def misfit(name: str, image: Image, engine_arch: str) -> str | None:
    """Why programs of the image do not run on the engine's machine; None: they do, or the image does not say."""
    ours = architecture(engine_arch)
    if image.system != "linux":
        return f"image {name} is for {image.system}, this machine runs Linux"
    if not image.arch or architecture(image.arch) in _RUNS.get(ours, {ours}):
        return None
    return f"image {name} is for {image.arch}, this machine is {ours}"


def pulls(specs: Iterable[Processor]) -> dict[str, tuple[Pull, list[str]]]:
    """Each image once, with when to fetch it (the most eager wish of its processors), and who uses it."""
    wanted: dict[str, tuple[Pull, list[str]]] = {}
    for spec in specs:
        assert spec.image is not None
        before, users = wanted.get(spec.image, (spec.pull, []))
        wanted[spec.image] = (min(before, spec.pull, key=_LATEST_FIRST.index), [*users, spec.name])
    return wanted


class PullProgress:
    """How far a download is, summed over its layers, from the engine's records (`POST /images/create`).

    `doing` is "downloading", then "unpacking"; `fraction` of that, None where nobody knows.
    """

    def __init__(self) -> None:
        self._total: dict[str, int] = {}
        self._done: dict[str, dict[str, int]] = {"downloading": {}, "unpacking": {}}
        self._most = 0.0
        self._before = "downloading"

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record in; one that means nothing to us is passed over."""
        layer, status = record.get("id"), record.get("status")
        if not isinstance(layer, str) or not isinstance(status, str):
            return
        detail = record.get("progressDetail") or {}
        downloaded, unpacked = self._done.values()
        if status in {"Pulling fs layer", "Waiting"}:
            self._total.setdefault(layer, 0)
        elif status == "Downloading":
            self._total[layer] = int(detail.get("total") or self._total.get(layer, 0))
            downloaded[layer] = int(detail.get("current") or 0)
        elif status in {"Verifying Checksum", "Download complete"}:
            downloaded[layer] = self._size(layer)
        elif status == "Extracting":
            self._total[layer] = int(detail.get("total") or self._total.get(layer, 0))
            downloaded[layer] = self._size(layer)
            unpacked[layer] = int(detail.get("current") or 0)
        elif status == "Pull complete":
            downloaded[layer] = unpacked[layer] = self._size(layer)

    def _size(self, layer: str) -> int:
        """One byte for a layer so small that the engine never said how large it is."""
        self._total[layer] = self._total.get(layer) or 1
        return self._total[layer]

    @property
    def doing(self) -> str:
        """See the class."""
        downloaded = self._done["downloading"]
        whole = self._total and all(downloaded.get(layer) == size > 0 for layer, size in self._total.items())
        return "unpacking" if whole else "downloading"

    @property
    def fraction(self) -> float | None:
        """See the class; it never goes back while `doing` stays the same."""
        doing = self.doing
        if doing != self._before:
            self._before, self._most = doing, 0.0
        known = [layer for layer, size in self._total.items() if size]
        if not known:
            return None
        bytes_done = sum(self._done[doing].get(layer, 0) for layer in known)
        part = bytes_done / sum(self._total[layer] for layer in known) * len(known) / len(self._total)
        self._most = max(self._most, min(1.0, part))
        return self._most
