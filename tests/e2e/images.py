"""Folders of processors for the tests that make images, under names of their own, and what is left is taken away."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from tests.engine import docker

UP = "import sys\nfor line in sys.stdin:\n    print(line.strip().upper(), flush=True)\n"


def inspect(image: str) -> dict[str, Any]:
    """What the engine knows of an image."""
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


@dataclass
class Workshop:
    """A pipeline file and folders beside it. `mark` is part of every processor's name."""

    folder: Path
    mark: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")

    def processor(self, name: str = "up", keys: dict[str, Any] | None = None, **files: str | bytes) -> Path:
        """A folder with a processor.toml and `files`, in whose names `_` stands for the dot; Python by default."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        written = {"name": f"{self.mark}-{name}", "command": ["python3", "up.py"], "contract": "one-to-one"}
        (folder / "processor.toml").write_text(tomli_w.dumps(written | (keys or {})))
        for file, content in ({"up_py": UP} | files).items():
            path = folder / file.replace("_", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    def pipeline(self, *names: str, **keys: Any) -> Path:
        """A pipeline of a source, these processors one after the other, and a sink; `keys` are theirs."""
        processors: dict[str, Any] = {"source": {"command": ["printf", "a\\nb\\nc\\n"], "writes": "c0"}}
        for index, name in enumerate(names):
            processors[f"p{index}"] = {"use": name, "reads": f"c{index}", "writes": f"c{index + 1}"} | keys
        processors["sink"] = {"command": ["tee", "out"], "reads": f"c{len(names)}"}
        file = self.folder / "pipeline.toml"
        file.write_text(tomli_w.dumps({"name": "test", "processors": processors}))
        return file

    def images(self) -> list[str]:
        """The names of the images that were made of its folders."""
        found = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"connector/{self.mark}-*")
        return found.split()


@contextmanager
def workshop(folder: Path) -> Iterator[Workshop]:
    """A workshop that removes its images."""
    made = Workshop(folder)
    try:
        yield made
    finally:
        own = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{made.mark}-*").split()
        if left := [*made.images(), *own]:  # by name: an id may be that of an image that is not ours
            docker("image", "rm", "--force", *left)


def without_engine() -> dict[str, str]:
    """Variables of a machine on which no engine runs."""
    return {**os.environ, "DOCKER_HOST": "unix:///no/engine.sock"}
