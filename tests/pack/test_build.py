"""Several images: two at once, all that fail are told, the rest is made all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from runner.events import Event, Progress
from runner.pack.build import AT_ONCE, BuildError, Plan, build, plan_of
from runner.spec.load import load_file
from runner.spec.model import Home
from tests.conftest import need_image
from tests.e2e.images import Workshop, workshop

pytestmark = pytest.mark.engine
PYTHON = "python:3.13-slim-trixie"


@pytest.fixture
def shop(tmp_path: Path, engine: str) -> Iterator[Workshop]:
    need_image(PYTHON)
    with workshop(tmp_path) as made:
        yield made


def plan(shop: Workshop, **steps: str) -> Plan:
    """Images of a Dockerfile with one step each."""
    for name, step in steps.items():
        keys = {"build": {"dockerfile": "Dockerfile"}}
        shop.processor(name, keys, Dockerfile=f"FROM {PYTHON}\nRUN {step} # {shop.mark}\n")
    return plan_of(load_file(shop.pipeline(*steps), home=Home.CONTAINER).pipeline)


def test_two_at_once_in_the_order_of_the_file(shop: Workshop) -> None:
    under_way: set[str] = set()
    most = 0

    def follow(event: Event) -> None:
        nonlocal most
        assert isinstance(event, Progress)
        if event.done:
            under_way.discard(event.what)
        else:
            under_way.add(event.what)
        most = max(most, len(under_way))

    built = build(plan(shop, a="true", b="true", c="true", d="true"), follow)
    assert [each.processors for each in built] == [("p0",), ("p1",), ("p2",), ("p3",)]
    assert {each.state for each in built} == {"built"}
    assert not under_way
    assert most == AT_ONCE == 2


def test_a_layer_that_was_removed_meanwhile_is_made_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine says when somebody removes an image upon whose layers it builds."""
    real, gone = (
        APIClient.build,
        "failed to export image: failed to set parent sha256:3f: unknown parent image ID sha256:3f",
    )
    tries: list[int] = []

    def once_gone(client: APIClient, **options: Any) -> Any:
        tries.append(sum(map(len, options["fileobj"])) if not tries else 0)
        return iter([{"error": gone}]) if len(tries) == 1 else real(client, **options)

    monkeypatch.setattr(APIClient, "build", once_gone)
    (built,) = build(plan(shop, a="true"), lambda _: None)
    assert built.state == "built"
    assert len(tries) == 2
    assert tries[0] > 0


def test_all_that_fail_are_told_and_the_rest_is_made(shop: Workshop) -> None:
    wanted = plan(shop, a="false", b="true", c="exit 3", d="true")
    with pytest.raises(BuildError) as caught:
        build(wanted, lambda _: None)
    said = str(caught.value).splitlines()
    assert len(said) == 2
    assert said[0].startswith("p0: the image ")
    assert "exit status 1 and printed nothing" in said[0]
    assert said[1].startswith("p2: the image ")
    assert len(shop.images()) == 2
