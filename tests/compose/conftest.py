"""The images that the projects need: the runner's, their processors', and stand-ins for what registries have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.cli import version
from tests.compose.project import PROJECTS
from tests.conftest import has_image, need_image, without
from tests.e2e.conftest import connector

__all__ = ["connector"]

HERE = Path(__file__).parent
SOURCE = HERE.parents[1]
BUILD_LIMIT_S = 900
NAMES = ("ingest", "untrusted", "two-runners", "nats")
STANDINS = {"postgres:17": "postgres", "nats:2": "nats"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker makes the images, and brings up one project at a time."""
    for item in items:
        if HERE in item.path.parents and "images" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("compose"))


@pytest.fixture(scope="session")
def images(engine: str) -> Iterator[None]:
    """All images are there; those that were not are removed at the end, layers stay for the next time."""
    del engine
    for base in ("python:3.13-slim-trixie", "node:20-trixie-slim", "eclipse-temurin:21-jre", "debian:trixie-slim"):
        need_image(base)
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False, timeout=20)
    if asked.returncode != 0:
        without("there is no docker compose")
    made = [_built(f"connector-runner:{version()}", SOURCE)]
    made += [_built(name, HERE / "standins" / folder) for name, folder in STANDINS.items() if not has_image(name)]
    for name in NAMES:
        _run([sys.executable, "-m", "runner", "build", "--quiet", str(PROJECTS / name / "pipeline.toml")])
    yield
    subprocess.run(["docker", "image", "rm", "--force", *made], capture_output=True, check=False, timeout=60)


def _built(name: str, folder: Path) -> str:
    _run(["docker", "build", "--quiet", "--tag", name, str(folder)])
    return name


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=BUILD_LIMIT_S
    )
    unreachable = ("Temporary failure", "Could not resolve", "No matching distribution", "Unable to fetch")
    if done.returncode != 0 and any(each in done.stdout + done.stderr for each in unreachable):
        without("packages cannot be fetched from a build here")
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
