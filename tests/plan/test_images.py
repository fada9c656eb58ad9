"""Images: what is executed, whether it fits, when it is fetched, how far that is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import LaunchError
from runner.plan.images import Image, PullProgress, architecture, misfit, program, pulls
from runner.spec.model import Processor


def spec_of(**values: Any) -> Processor:
    return Processor(**{"name": "p", "command": (), "directory": None, "image": "image:1", **values})


@pytest.mark.parametrize(
    ("entrypoint", "command", "executed"),
    [
        (None, (), ("/entry", "image")),
        (None, ("mine",), ("/entry", "mine")),
        (("my-entry",), (), ("my-entry",)),
        (("my-entry",), ("mine",), ("my-entry", "mine")),
        ((), ("mine",), ("mine",)),
    ],
)
def test_what_is_executed_is_what_compose_would(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...], executed: tuple[str, ...]
) -> None:
    image = Image("id", entrypoint=("/entry",), command=("image",))
    assert program(spec_of(entrypoint=entrypoint, command=command), image, command) == executed


def test_nothing_to_execute_is_an_error() -> None:
    with pytest.raises(LaunchError, match="image:1 has no command of its own"):
        program(spec_of(), Image("id"), ())
    with pytest.raises(LaunchError, match="no command"):
        program(spec_of(entrypoint=()), Image("id", command=("ls",)), ())


def test_what_an_engine_says_of_an_image() -> None:
    config: dict[str, object] = {
        "Entrypoint": None,
        "Cmd": ["ls"],
        "Env": ["A=b"],
        "User": "1",
        "Volumes": {"/b": {}, "/a": {}},
    }
    found = Image.of({"Id": "x", "Os": "linux", "Architecture": "amd64", "Config": config})
    assert found == Image("x", "linux", "amd64", (), ("ls",), ("A=b",), "1", ("/a", "/b"))
    assert Image.of({"Id": "x", "Config": None}) == Image("x")


@pytest.mark.parametrize(
    ("system", "arch", "engine", "fits"),
    [
        ("linux", "amd64", "x86_64", True),
        ("linux", "arm64", "aarch64", True),
        ("linux", "386", "x86_64", True),
        ("linux", "", "x86_64", True),
        ("linux", "arm64", "x86_64", False),
        ("linux", "amd64", "aarch64", False),
        ("windows", "amd64", "x86_64", False),
    ],
)
def test_whether_it_fits_the_machine(system: str, arch: str, engine: str, fits: bool) -> None:
    said = misfit("image:1", Image("id", system, arch), engine)
    assert (said is None) is fits
    assert said is None or ("image:1" in said and (architecture(engine) in said or "Linux" in said))


def test_each_image_is_fetched_once_by_its_most_eager_wish() -> None:
    specs = [
        spec_of(name="a", image="x", pull="never"),
        spec_of(name="b", image="x", pull="missing"),
        spec_of(name="c", image="y", pull="always"),
        spec_of(name="d", image="y", pull="missing"),
    ]
    assert pulls(specs) == {"x": ("missing", ["a", "b"]), "y": ("always", ["c", "d"])}


def record(layer: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    detail = {"current": current, "total": total} if total else {}
    return {"id": layer, "status": status, "progressDetail": detail}


def test_a_download_is_summed_over_its_layers() -> None:
    progress = PullProgress()
    assert (progress.doing, progress.fraction) == ("downloading", None)
    progress.add({"id": "1", "status": "Pulling from test/image"})
    progress.add(record("a", "Pulling fs layer"))
    progress.add(record("b", "Pulling fs layer"))
    assert (progress.doing, progress.fraction) == ("downloading", None)
    progress.add(record("a", "Downloading", 50, 100))
    assert (progress.doing, progress.fraction) == ("downloading", 0.25)
    progress.add(record("b", "Downloading", 0, 300))
    progress.add(record("b", "Downloading", 250, 300))
    assert progress.fraction == 0.75
    progress.add(record("a", "Download complete"))
    progress.add(record("b", "Verifying Checksum"))
    assert (progress.doing, progress.fraction) == ("unpacking", 0)
    progress.add(record("a", "Extracting", 100, 100))
    assert progress.fraction == 0.25
    progress.add(record("a", "Pull complete"))
    progress.add(record("b", "Pull complete"))
    assert (progress.doing, progress.fraction) == ("unpacking", 1)


STATUSES = ["Pulling fs layer", "Waiting", "Downloading", "Download complete", "Extracting", "Pull complete", "Other"]
RECORDS = st.builds(
    record,
    st.sampled_from("abc"),
    st.sampled_from(STATUSES),
    st.integers(-1, 1000),
    st.integers(0, 1000),
)


@given(st.lists(RECORDS | st.dictionaries(st.sampled_from(["id", "status", "error"]), st.none() | st.text())))
def test_a_fraction_is_one_whatever_an_engine_says(records: list[dict[str, Any]]) -> None:
    progress, before = PullProgress(), ("downloading", 0.0)
    for each in records:
        progress.add(each)
        doing, fraction = progress.doing, progress.fraction
        assert fraction is None or 0 <= fraction <= 1
        if fraction is not None:
            assert doing != before[0] or fraction >= before[1]
            before = (doing, fraction)
