"""The images of `images/` and the runner's own: nobody special, a root that is read-only, and they do their work."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.plan.dockerfile import USER
from runner.plan.image import base_recipe
from runner.plan.languages import Language
from tests.conftest import need_image
from tests.e2e.connector import PROJECT, Connector, until
from tests.e2e.images import Workshop, inspect, workshop
from tests.engine import docker

pytestmark = pytest.mark.engine

PROGRAMS: dict[Language, tuple[list[str], dict[str, str]]] = {
    "python": (
        ["python3", "it.py"],
        {"it_py": "import getpass, os, tempfile\nprint(os.getuid(), getpass.getuser(), tempfile.mkdtemp()[:5])\n"},
    ),
    "node": (
        ["node", "it.mjs"],
        {"it_mjs": 'import os from "os"; console.log(os.userInfo().uid, os.userInfo().username, os.tmpdir() + "/")\n'},
    ),
    "java": (
        ["java", "-XshowSettings:properties", "-version"],
        {},
    ),
}
READ_ONLY = ("run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")


@pytest.fixture
def shop(tmp_path: Path, engine: str) -> Iterator[Workshop]:
    for image in ("python:3.13-slim-trixie", "node:20-trixie-slim", "eclipse-temurin:21-jre"):
        need_image(image)
    with workshop(tmp_path) as made:
        yield made


def test_every_base_is_nobody_special_with_a_read_only_root(shop: Workshop, connector: Connector) -> None:
    for language, (command, files) in PROGRAMS.items():
        shop.processor(language, {"command": command}, **files)
    shop.pipeline(*PROGRAMS)
    result = connector.command("build", "--format", "json", limit_s=110)
    assert result.code == 0, str(result)
    images = dict(zip(PROGRAMS, (each["image"] for each in json.loads(result.stdout)), strict=True))
    for language in ("python", "node"):
        assert docker(*READ_ONLY, images[language]) == "65532 processor /tmp/", language
    told = subprocess.run(
        ["docker", *READ_ONLY, images["java"]], capture_output=True, text=True, check=True, timeout=60
    ).stderr
    assert "user.name = processor" in told
    assert "java.io.tmpdir = /tmp" in told
    assert "Picked up" not in told, "no option that Java would tell of at each start"
    for language in PROGRAMS:
        config = inspect(base_recipe(language).name)["Config"]
        assert config["User"] == USER
        assert config["WorkingDir"] == "/processor"
        assert {"title", "description", "licenses"} <= {
            name.removeprefix("org.opencontainers.image.") for name in config["Labels"]
        }


def test_an_installed_package_brings_its_bases(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    done = subprocess.run([*pip, str(PROJECT)], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        for language in ("python", "node", "java", "static"):
            shipped = opened.read(f"runner/pack/images/{language}/Dockerfile")
            assert shipped == (PROJECT / "images" / language / "Dockerfile").read_bytes()


# -- the runner's image


@pytest.fixture(scope="module")
def runner_image(engine: str) -> Iterator[str]:
    """Built of this source; without a network, a skip."""
    need_image("python:3.13-slim-trixie")
    name = "connector-runner-test:latest"
    built = subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, str(PROJECT)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    unreachable = ("Temporary failure", "Could not resolve", "No matching distribution", "Unable to fetch")
    if built.returncode != 0 and any(each in built.stderr for each in unreachable):
        pytest.skip("packages cannot be fetched from a build here")
    assert built.returncode == 0, built.stderr[-3000:]
    yield name
    docker("image", "rm", "--force", name)


PIPELINE = """\
name = "squares"
[processors.numbers]
command = ["seq", "5"]
writes = "raw"
[processors.square]
command = ["python3", "square.py"]
reads = "raw"
writes = "squares"
contract = "one-to-one"
[processors.show]
command = ["cat"]
reads = "squares"
"""
SQUARE = "import sys\nfor line in sys.stdin:\n    print(int(line) ** 2, flush=True)\n"


@pytest.mark.slow
@pytest.mark.timeout(600)  # fetches a compiler and libraries the first time
def test_the_runner_runs_a_pipeline_with_a_read_only_root(runner_image: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    (tmp_path / "square.py").write_text(SQUARE)
    tmp_path.chmod(0o755)
    safe = (*READ_ONLY, "--security-opt", "no-new-privileges", "--volume", f"{tmp_path}:/pipeline:ro")
    done = subprocess.run(["docker", *safe, runner_image], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for number in (1, 4, 9, 16, 25):
        assert f"| {number}\n" in done.stderr
    assert "ledger balanced" in done.stderr
    assert docker(*READ_ONLY, "--entrypoint", "id", runner_image, "-u") == "65532"
    assert docker(*READ_ONLY, runner_image, "--version").startswith("connector runner ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_labels(runner_image: str) -> None:
    config = inspect(runner_image)["Config"]
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == version
    assert {"title", "description", "licenses", "vendor", "revision"} <= {
        name.removeprefix("org.opencontainers.image.") for name in labels
    }
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == (USER, ["connector"], ["run"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_health_and_its_end(runner_image: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(
        'name = "long"\n[processors.wait]\ncommand = ["sleep", "600"]\nwrites = "c"\n'
        '[processors.end]\ncommand = ["cat"]\nreads = "c"\n'
    )
    tmp_path.chmod(0o755)
    limits = ("--read-only", "--tmpfs", "/tmp", "--network", "none", "--health-interval", "1s")
    container = docker("run", "--detach", *limits, "--volume", f"{tmp_path}:/pipeline:ro", runner_image)
    try:

        def state() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", container))
            return found

        until(lambda: state()["Health"]["Status"] == "healthy", "the check to pass", within_s=60)
        check = json.loads(docker("image", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", runner_image))
        assert check[0] == "CMD"
        broken = ("exec", "--env", "CONNECTOR_SHIM=/nowhere", container, *check[1:])
        docker(*broken, code=3)  # where programs cannot be started, it says no
        docker("stop", "--time", "20", container)
        assert state()["ExitCode"] == 143, docker("logs", container)
    finally:
        docker("rm", "--force", container)
