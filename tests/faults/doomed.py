"""`doomed`, the victim of the kill suites of containers and sandboxes: a static program, and an image of it alone."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.spec.model import MIB
from tests.engine import docker
from tests.faults.static import static_program
from tests.launch.images import Layers, own_tag

SOURCE = Path(__file__).with_suffix(".c")
IMAGE = own_tag("doomed")
MEMORY_BYTES = 16 * MIB
IN_IMAGE = "/doomed"


@dataclass(frozen=True)
class Doomed:
    """The program; `folder` holds nothing else, and anybody may look into it."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "doomed"

    def layers(self) -> Layers:
        """An image of it and nothing else."""
        return Layers({IN_IMAGE[1:]: self.file.read_bytes()}, ("tmp",))


def marked(program: str | Path) -> list[str]:
    """Its command, with a mark by which no other process is taken for this one."""
    return [str(program), f"doomed-{uuid.uuid4().hex}"]


def contained(trust: str) -> dict[str, Any]:
    """The keys of a victim in a container."""
    return {
        "image": IMAGE,
        "pull": "never",
        "network": "none",
        "trust": trust,
        "resources": {"memory": MEMORY_BYTES},
    }


def sandboxed(doomed: Doomed, trust: str) -> dict[str, Any]:
    """The keys of a victim in a sandbox."""
    return {
        "network": "none",
        "trust": trust,
        "mounts": [str(doomed.folder)],
        "resources": {"memory": MEMORY_BYTES},
    }


def alive(command: list[str]) -> list[psutil.Process]:
    """The living processes of this machine, in containers too, that run exactly this command."""
    wanted = b"".join(os.fsencode(word) + b"\0" for word in command)
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if Path(entry.path, "cmdline").read_bytes() == wanted:
                    found.append(psutil.Process(int(entry.name)))
    return found


@pytest.fixture(scope="session")
def doomed() -> Iterator[Doomed]:
    """The program, in a folder that sandboxes can see."""
    with static_program(SOURCE) as folder:
        yield Doomed(folder)


@pytest.fixture(scope="session")
def doomed_image(engine: str, doomed: Doomed) -> Iterator[str]:
    """The image, in the machine's engine."""
    doomed.layers().load(IMAGE)
    yield IMAGE
    docker("rmi", "-f", IMAGE, code=None)
