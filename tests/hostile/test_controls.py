"""The checks themselves: what is loosened gets through, so a wall that is missing would be seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.harness import HOMES, Arena, need, walled
from tests.hostile.test_attempts import LIMITS, Told, answer, run

BY_NETWORK = {"loopback", "loopback-v6", "loopback-datagram", "abstract-socket"}
BY_MOUNTS = {"host-file", "write-readonly-mount"}
BY_RESOURCES = {"open-all-descriptors", "fill-tmp"}
BY_ENVIRONMENT = {"environment-of-the-runner"}
STILL_HELD = {
    *("engine-socket", "environment-of-others", "host-shadow", "list-of-processes", "raw-sockets", "signal-others"),
    *("become-root", "capabilities", "write-system", "shim-memory"),
    *("call-bpf", "call-mount_tmpfs", "call-unshare_user"),
}


def loosened(place: Arena) -> dict[str, Any]:
    """Everything that the file may loosen, a bit."""
    return {
        "network": "host",
        "mounts": [
            f"{place.programs}:/hostile",
            f"{place.shared}:/shared:rw",
            f"{place.readonly}:/readonly:rw",
            str(place.canary),
        ],
        "resources": LIMITS | {"files": 2000, "disk": "64MiB"},
        "env": {"GIVEN": place.token},
    }


@pytest.fixture(scope="module")
def opened(request: pytest.FixtureRequest) -> Told:
    """A run of an untrusted processor with all that loosened."""
    need(request)
    tried = {*BY_NETWORK, *BY_MOUNTS, *BY_RESOURCES, *BY_ENVIRONMENT, *STILL_HELD}
    return run(request.param, only=tried, loosened=loosened)


@walled("opened", *HOMES)
@pytest.mark.parametrize("name", sorted({*BY_NETWORK, *BY_MOUNTS, *BY_RESOURCES, *BY_ENVIRONMENT}))
def test_what_is_loosened_gets_through(opened: Told, name: str) -> None:
    told = answer(opened, name)
    assert told["through"] is True, told["detail"]


@walled("opened", *HOMES)
@pytest.mark.parametrize("name", sorted(STILL_HELD))
def test_the_rest_is_held(opened: Told, name: str) -> None:
    told = answer(opened, name)
    assert told["through"] is False, told["detail"]


@walled("opened", *HOMES)
def test_it_is_seen_from_outside(opened: Told) -> None:
    assert {name for name, count in opened.came.items() if count} >= {"loopback", "loopback-v6", "datagram", "abstract"}
    assert opened.host is not None


@walled("opened", *HOMES)
def test_a_loosened_one_disturbs_nobody(opened: Told) -> None:
    opened.result.completed()
    assert opened.neighbour is None
    assert opened.left == []
