"""What tests of every folder share: an engine and bubblewrap where they are there, and a reason where not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.nats_server import nats_server

__all__ = ["nats_server"]

for variable in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
    os.environ.pop(variable, None)  # programs run as those of users do: not compiled anew each time, and with buffers
sys.dont_write_bytecode = False

SHARED = {"module", "class"}
# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

REQUIRED = os.environ.get("CONNECTOR_REQUIRE_ENGINE") == "1"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares something runs in one process, one after the other (`--dist loadgroup` of pytest-xdist).

    That is what a fixture of the module has made, once for each of its parameters.
    """
    for item in items:
        if isinstance(item, pytest.Function) and (shared := _shared(item)):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{shared}"))


def _shared(item: pytest.Function) -> str:
    """The fixtures that it shares with others of its module, with their parameters; "" when there are none."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    made = {
        name: str(parameters.get(name, ""))
        for name, definitions in item._fixtureinfo.name2fixturedefs.items()
        if definitions[-1].scope in SHARED
    }
    return "-".join(f"{name}{value}" for name, value in sorted(made.items()))


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


def need_program(name: str) -> str:
    """Where it is; a skip where it is not (a failure where nothing may be missing)."""
    path = shutil.which(name)
    return path if path is not None else without(f"{name} is not installed")


def has_image(name: str) -> bool:
    """Whether the engine has the image; tests never pull one."""
    asked = subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False, timeout=20)
    return asked.returncode == 0


def need_image(name: str) -> str:
    """`name`, or a skip (a failure where nothing may be missing)."""
    if not has_image(name):
        without(f"the engine has no image {name}")
    return name
