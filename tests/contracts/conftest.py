"""What the contract suites need of this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import need_image
from tests.contracts.homes import ANOTHER_RUN, IMAGE


@pytest.fixture(scope="session")
def container_image(engine: str) -> Iterator[str]:
    """The image of the containers, which is never fetched; what a killed runner left goes at the end."""
    del engine
    yield need_image(IMAGE)
    label = f"label=connector.run={ANOTHER_RUN}"
    asked = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True, check=False, text=True)
    if left := asked.stdout.split():
        subprocess.run(["docker", "rm", "-f", *left], capture_output=True, check=False)
