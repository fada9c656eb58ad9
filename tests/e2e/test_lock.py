"""`connector lock` and `connector run --locked`: what a pipeline was tried with, and nothing else."""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.conftest import need_image
from tests.e2e.connector import Connector, Result
from tests.e2e.images import UP, Workshop, inspect, workshop
from tests.engine import docker

PYTHON = "python:3.13-slim-trixie"


@pytest.fixture
def shop(tmp_path: Path, connector: Connector, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A folder in Python, a script, and programs of this machine; no engine is needed or there."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/engine.sock")
    (tmp_path / "count.sh").write_text("wc -l\n")
    (tmp_path / "tool").write_text("#!/bin/sh\nexec cat\n")
    (tmp_path / "tool").chmod(0o755)
    made = Workshop(tmp_path)
    made.processor()
    return made


def pipeline() -> dict[str, Any]:
    return {
        "name": "test",
        "processors": {
            "source": {"command": ["printf", "a\\nb\\n"], "writes": "one"},
            "up": {"use": "up", "reads": "one", "writes": "two"},
            "tool": {"command": ["./tool"], "reads": "two", "writes": "three"},
            "count": {"command": ["sh", "count.sh"], "reads": "three"},
        },
    }


def put(connector: Connector, document: dict[str, Any]) -> str:
    text = tomli_w.dumps(document)
    connector.write(text)
    return text


def lock(connector: Connector) -> dict[str, Any]:
    result = connector.command("lock")
    assert result.code == 0, str(result)
    return tomllib.loads((connector.folder / "pipeline.lock.toml").read_text())


def refused(connector: Connector, text: str, *options: str) -> Result:
    """A run that did not begin, in words; the report is not there."""
    report = connector.folder / "refused.json"
    result = connector.run(text, "--locked", *options, report=report)
    assert result.code == 2, str(result)
    result.expect_no_traceback()
    assert not report.exists()
    assert "started" not in result.stderr
    return result


def test_what_is_written_down(shop: Workshop, connector: Connector) -> None:
    put(connector, pipeline())
    found = lock(connector)
    assert (found["version"], found["pipeline"]) == (1, "test")
    assert found["runner"]["architecture"] == platform.machine()
    assert list(found["processors"]) == ["count", "source", "tool", "up"]
    digest = re.compile(r"sha256:[0-9a-f]{64}")
    for name, each in found["processors"].items():
        assert digest.fullmatch(each["program_hash"]), name
        assert not {"image", "image_id"} & each.keys()
    assert found["processors"]["count"]["script"] == "count.sh"
    assert found["processors"]["tool"]["program"] == "tool"
    assert found["processors"]["up"]["folder"] == "up"
    assert digest.fullmatch(found["processors"]["up"]["folder_hash"])
    again = connector.command("lock")
    assert "nothing has changed" in again.stdout


def test_what_has_not_changed_runs(shop: Workshop, connector: Connector) -> None:
    text = put(connector, pipeline())
    lock(connector)
    (shop.folder / "up/__pycache__").mkdir()
    (shop.folder / "up/__pycache__/x.pyc").write_bytes(b"x")
    connector.run(text, "--locked").completed()
    connector.run(text, "--locked", "--home", "process").completed()


def test_every_difference_is_told_at_once(shop: Workshop, connector: Connector) -> None:
    document = pipeline()
    put(connector, document)
    lock(connector)
    (shop.folder / "up/up.py").write_text(f"# other\n{UP}")
    (shop.folder / "count.sh").write_text("cat\n")
    (shop.folder / "tool").write_text("#!/bin/sh\nexec tac\n")
    document["processors"]["new"] = document["processors"].pop("source")
    result = refused(connector, put(connector, document))
    for said in (
        "processors.up: the folder up was changed",
        "processors.count: the file count.sh was changed",
        "processors.tool: the program tool was changed",
        "processors.new: is not in the lock",
        "processors.source: is in the lock only",
        "connector lock",
    ):
        assert said in result.stderr, str(result)
    lock(connector)
    connector.run((shop.folder / "pipeline.toml").read_text(), "--locked").completed()


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (
        lambda found: found["runner"].update(version="0.0.1"),
        r"the lock is of connector runner 0\.0\.1, this",
    ),
    "shim": (lambda found: found["runner"].update(shim_hash="sha256:00"), r"its shim is another one"),
    "machine": (lambda found: found["runner"].update(architecture="vax"), r"of a machine with vax, this one has \w+"),
    "program": (
        lambda found: found["processors"]["source"].update(program_hash="sha256:00"),
        r"processors\.source: the program /\S+/printf was changed",
    ),
    "nothing known": (
        lambda found: found["processors"].update(up={}),
        r"processors\.up: the folder up is not in the lo",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_thing_counts(change: str, shop: Workshop, connector: Connector) -> None:
    text = put(connector, pipeline())
    found = lock(connector)
    make, said = CHANGES[change]
    make(found)
    (shop.folder / "pipeline.lock.toml").write_text(tomli_w.dumps(found))
    assert re.search(said, refused(connector, text).stderr)


def test_without_a_lock(shop: Workshop, connector: Connector) -> None:
    result = refused(connector, put(connector, pipeline()))
    assert "pipeline.lock.toml is not there" in result.stderr
    assert "connector lock" in result.stderr


def test_a_damaged_lock_names_its_line(shop: Workshop, connector: Connector) -> None:
    text = put(connector, pipeline())
    lock(connector)
    file = shop.folder / "pipeline.lock.toml"
    file.write_text(file.read_text().replace("program =", "program", 1))
    assert re.search(r"pipeline\.lock\.toml:\d+:\d+: error: no valid TOML", refused(connector, text).stderr)


def test_a_wrong_pipeline_is_told_and_no_lock_written(connector: Connector) -> None:
    connector.write("name = 1\n")
    result = connector.command("lock")
    assert result.code == 2
    assert "pipeline.toml:1:8: error" in result.stderr
    assert not (connector.folder / "pipeline.lock.toml").exists()


# -- images


@pytest.fixture
def engine_shop(tmp_path: Path, engine: str) -> Iterator[Workshop]:
    need_image(PYTHON)
    with workshop(tmp_path) as made:
        made.processor()
        yield made


def rebuilt(connector: Connector) -> None:
    result = connector.command("build", "--quiet", "--no-cache", limit_s=100)
    assert result.code == 0, str(result)


@pytest.mark.engine
def test_images_by_what_they_are(engine_shop: Workshop, connector: Connector) -> None:
    text = engine_shop.pipeline("up").read_text()
    rebuilt(connector)
    found = lock(connector)["processors"]["p0"]
    (name,) = engine_shop.images()
    assert (found["image"], found["image_id"]) == (name, inspect(name)["Id"])
    assert {"folder_hash", "program_hash"} <= found.keys(), "every home that it may have is in it"
    options = ("--home", "container")
    connector.run(text, "--locked", *options).completed()

    # Another image takes the name: the one that was locked is named, and with that one back all is well.
    docker("tag", PYTHON, name)
    result = refused(connector, text, *options)
    assert f"the image {name} is not {found['image_id']}" in result.stderr
    docker("tag", found["image_id"], name)
    connector.run(text, "--locked", *options).completed()

    docker("image", "rm", "--force", name)
    result = refused(connector, text, *options)
    assert f"the image {name} is not here (connector build FILE, and lock again)" in result.stderr
    connector.run(text, "--locked", "--home", "process").completed()


@pytest.mark.engine
def test_an_image_of_somebody_else(engine_shop: Workshop, connector: Connector) -> None:
    image = f"{engine_shop.mark}-own:1"
    docker("tag", PYTHON, image)
    document: dict[str, Any] = {
        "name": "test",
        "processors": {
            "source": {"command": ["printf", "a\\n"], "writes": "c"},
            "sink": {"image": image, "command": ["cat"], "reads": "c", "pull": "always"},
        },
    }
    text = put(connector, document)
    assert lock(connector)["processors"]["sink"]["image_id"] == inspect(PYTHON)["Id"]
    connector.run(text, "--locked").completed()  # fetched it is not: it runs by its id
    document["processors"]["sink"]["image"] = f"{engine_shop.mark}-own:2"
    result = refused(connector, put(connector, document))
    assert f"its image is {engine_shop.mark}-own:2, not {image}" in result.stderr
    missing = connector.command("lock")
    assert missing.code == 2
    assert f"the image {engine_shop.mark}-own:2 is not here (docker pull " in missing.stderr


def test_images_without_an_engine(shop: Workshop, connector: Connector) -> None:
    text = put(connector, pipeline())
    lock(connector)
    result = connector.run(text, "--locked", "--home", "container", report=connector.folder / "none.json")
    assert result.code == 3, str(result)
    assert "no engine" in result.stderr


def test_a_runner_looks_at_its_own_processors_only(connector: Connector, shop: Workshop) -> None:
    assert shop
    document = pipeline()
    for name, processor in document["processors"].items():
        processor["runner"] = "here" if name != "source" else "there"
    document["processors"]["source"]["command"] = ["./tool"]
    document["processors"]["up"]["reads"] = "other"
    document["processors"]["other"] = {"command": ["printf", "a\\n"], "writes": "other", "runner": "here"}
    document["processors"]["sink"] = {"command": ["cat"], "reads": "one", "runner": "there"}
    document["runners"] = {"here": {}, "there": {}}
    put(connector, document)
    lock(connector)
    (connector.folder / "count.sh").write_text("wc -c\n")
    assert connector.run(document, "--locked", "--runner", "there").code == 0
    differs = connector.run(document, "--locked", "--runner", "here")
    assert differs.code == 2, str(differs)
    assert "processors.count" in differs.stderr
    assert "in the lock only" not in differs.stderr
