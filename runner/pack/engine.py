"""The connection to the container engine, for what is done before a run: images are made and looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from runner.errors import MachineError
from runner.launch.machine.engine import look
from runner.launch.machine.kernel import system
from runner.plan.remedies import for_engine

if TYPE_CHECKING:
    from docker import APIClient

_SILENCE_S = 3600
"""One step of a build may say nothing for so long: a download, a compiler."""

_HTTP_BAD_REQUEST = 400


@contextlib.contextmanager
def connected() -> Iterator[APIClient]:
    """A client of this machine's engine, the one that the docker command would use.

    Raises MachineError where none answers, and where it goes away meanwhile.
    """
    import docker
    import docker.errors
    import requests

    here = system()
    found = look(here)
    if found.trouble is not None:
        raise MachineError(found.problem or found.trouble, remedy=for_engine(found, here))
    try:
        client = docker.APIClient(base_url=found.address, version=found.api, timeout=_SILENCE_S)
        client.trust_env = False  # no proxy leads to a unix socket
        try:
            yield client
        finally:
            client.close()
    except (requests.RequestException, docker.errors.APIError) as error:
        raise MachineError(f"the engine did not answer, or broke off its answer: {error}") from error
    except docker.errors.DockerException as error:
        raise MachineError(f"the docker package cannot do it: {error}") from error


def find_image(client: APIClient, name: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None where it has none of that name."""
    import docker.errors

    try:
        return cast("dict[str, Any]", client.inspect_image(name))  # type: ignore[no-untyped-call]  # of the docker package
    except docker.errors.ImageNotFound:
        return None
    except docker.errors.APIError as error:
        if error.status_code == _HTTP_BAD_REQUEST:  # a text that is no name of an image
            return None
        raise
