"""Images for the tests of containers, made once for each process of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine import docker
from tests.launch.images import own_tag, scratch, small

SMALL, TALKS, VOLUME, SCRATCH = map(own_tag, ("small", "talks", "volume", "scratch"))


@pytest.fixture(scope="session")
def images(engine: str) -> Iterator[str]:
    """A few programs (`SMALL`), the same as images that say much of themselves, the shim alone; yields `SMALL`."""
    del engine
    tags = [
        small(Cmd=["sh", "-c", "echo of the image"]).load(SMALL),
        small(
            Env=["PATH=/bin", "GREETING=hello"],
            User="guest",
            WorkingDir="/work",
            Entrypoint=["sh", "-c", 'echo "$GREETING $*, $(id -u), $(pwd)"'],
            Cmd=["it", "world"],
        ).load(TALKS),
        small(Volumes={"/data": {}}, User="1234").load(VOLUME),
        scratch().load(SCRATCH),
    ]
    yield tags[0]
    docker("rmi", "-f", *tags)
