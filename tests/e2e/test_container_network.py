"""What a container reaches: nothing, the outside, a network of the engine by its name."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pytest_docker.plugin import Services

from tests.conftest import need_image
from tests.e2e.connector import Connector, Result

IMAGE = "python:3.13-slim-trixie"
FETCH = "import urllib.request as u; print(u.urlopen('http://{}:8000/', timeout=5).read().decode(), end='')"

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("network")]


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(Path(__file__).parent / "services" / "compose.yml")


@pytest.fixture(scope="session")
def docker_setup(engine: str) -> list[str]:
    """Nothing is started before an engine and the image are known to be there."""
    del engine
    need_image(IMAGE)
    return ["up --detach --no-build"]


@pytest.fixture(scope="session")
def network(docker_services: Services, docker_compose_project_name: str) -> str:
    """The network of the service `api`, which answers."""
    name = f"{docker_compose_project_name}_default"

    def answers() -> bool:
        probe = ["docker", "run", "--rm", "--network", name, IMAGE, "python3", "-c", FETCH.format("api")]
        return subprocess.run(probe, capture_output=True, check=False, timeout=30).returncode == 0

    docker_services.wait_until_responsive(timeout=30.0, pause=0.2, check=answers)
    return name


def fetch(connector: Connector, host: str, **keys: Any) -> Result:
    """A source in a container that reads the API at `host`, and a sink that logs it."""
    source = {"image": IMAGE, "command": ["python3", "-c", FETCH.format(host)], "pull": "never", "writes": "rows"}
    sink = {"command": ["cat"], "reads": "rows"}
    return connector.run({"name": "network", "processors": {"source": {**source, **keys}, "sink": sink}})


def test_a_network_by_its_name(connector: Connector, network: str) -> None:
    for trust in ("trusted", "untrusted"):
        result = fetch(connector, "api", network=network, trust=trust)
        assert result.completed()["channels"]["rows"]["written"] == 3
        assert [f"| {row}\n" in result.stderr for row in ("one", "two", "three")] == [True] * 3, str(result)


def address(network: str) -> str:
    """Of the service, as this machine sees it."""
    form = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    of_project = f"label=com.docker.compose.project={network.removesuffix('_default')}"
    name = subprocess.run(["docker", "ps", "-q", "--filter", of_project], capture_output=True, text=True, check=True)
    inspect = ["docker", "inspect", "--format", form, name.stdout.split()[0]]
    return subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()


def test_none_reaches_nothing(connector: Connector, network: str) -> None:
    result = fetch(connector, address(network), network="none")
    result.failed()
    assert "Network is unreachable" in result.stderr
    assert fetch(connector, address(network), network="host").completed(), "this machine reaches it"


def test_a_network_that_is_not_there(connector: Connector, network: str) -> None:
    del network
    result = fetch(connector, "api", network="no-such-network")
    assert result.code == 3, str(result)
    assert "no-such-network" in result.stderr
    result.expect_no_traceback()
