"""A runner starts its part where nothing of the others is; what is laid over a file counts as if it were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import SpecError
from runner.spec.changes import laid_over, read_changes
from runner.spec.load import load_file

FILE = """
name = "two"

[runners.edge]
[runners.centre]

[processors.fetch]
command = ["cat", "/dev/null"]
writes  = "raw"
runner  = "edge"

[processors.store]
command   = ["not-on-this-machine", "store"]
reads     = "raw"
writes    = "kept"
secrets   = { KEY = "env:NOBODY_SETS_THIS", FILE = "file:/not/there" }
runner    = "centre"

[processors.look]
command = ["not-here"]
mounts  = ["not-here"]
directory = "not-there-either"
trust   = "untrusted"
reads   = "raw"
runner  = "centre"

[channels.raw]
kind    = "tcp"
address = "127.0.0.1:7400"

[channels.kept]
kind = "file"
path = "nowhere/kept.txt"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE)
    return path


def test_what_only_others_need_is_not_looked_for(file: Path) -> None:
    pipeline = load_file(file, runner="edge").pipeline
    assert pipeline.processors["store"].command == ("not-on-this-machine", "store")
    assert pipeline.processors["store"].secrets == {}


@pytest.mark.parametrize("runner", ["centre", None])
def test_what_is_needed_here_is(file: Path, runner: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        load_file(file, runner=runner)
    said = str(caught.value)
    looked_for = ("not-on-this-machine", "not-there-either", "NOBODY_SETS_THIS", "/not/there", "not-here", "nowhere")
    for what in looked_for:
        assert what in said


def test_changes_are_laid_over_the_file(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "changes.toml"
    path.write_text('[channels.raw]\naddress = ":7500"\n[processors.fetch]\ncommand = ["echo", "${HOME}"]\n')
    pipeline = load_file(file, runner="edge", changes=read_changes(path)).pipeline
    network = pipeline.channels["raw"].network
    assert network is not None
    assert (network.host, network.port) == (None, 7500)
    assert pipeline.processors["fetch"].command[-1] == "${HOME}"  # nothing is put into what is laid over
    assert pipeline.processors["fetch"].writes[0].channels == ("raw",)


def test_what_is_wrong_with_a_change_is_told_as_if_it_were_written(file: Path) -> None:
    with pytest.raises(SpecError, match=r"channels\.raw\.adress: unknown key") as caught:
        load_file(file, runner="edge", changes={"channels": {"raw": {"adress": ":7500"}}})
    assert f"{file}:" in str(caught.value)


def test_tables_are_laid_over_key_by_key_and_the_rest_is_replaced() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "d": "e"}
    assert laid_over(below, {"a": {"c": [3], "x": {}}, "d": {"f": 1}}) == {
        "a": {"b": 1, "c": [3], "x": {}},
        "d": {"f": 1},
    }
    assert below == {"a": {"b": 1, "c": [1, 2]}, "d": "e"}
