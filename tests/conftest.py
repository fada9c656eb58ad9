"""What tests of every folder share: an engine and bubblewrap where they are there, and a reason where not."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRED = os.environ.get("CONNECTOR_REQUIRE_ENGINE") == "1"


def without(reason: str) -> NoReturn:
    """Skip with `reason`; fail where CONNECTOR_REQUIRE_ENGINE=1 says that nothing may be missing."""
    if REQUIRED:
        pytest.fail(f"CONNECTOR_REQUIRE_ENGINE=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> str:
    """The version of a local Docker engine that answers."""
    if shutil.which("docker") is None:
        without("there is no docker command")
    asked = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    if asked.returncode != 0:
        without(f"no Docker engine answers: {asked.stderr.strip()}")
    return asked.stdout.strip()


@pytest.fixture(scope="session")
def bubblewrap() -> str:
    """The path of a bubblewrap that can make a sandbox here."""
    path = shutil.which("bwrap")
    if path is None:
        without("there is no bwrap (install bubblewrap)")
    tried = subprocess.run(
        [path, "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False, timeout=20
    )
    if tried.returncode != 0:
        without(f"bwrap cannot make a sandbox here: {tried.stderr.strip()}")
    return path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of this machine can reach, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory(prefix="connector-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def has_image(name: str) -> bool:
    """Whether the engine has the image; tests never pull one."""
    asked = subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False, timeout=20)
    return asked.returncode == 0


def need_image(name: str) -> str:
    """`name`, or a skip (a failure where nothing may be missing)."""
    if not has_image(name):
        without(f"the engine has no image {name}")
    return name
