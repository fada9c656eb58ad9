"""`poison` of a processor and `schema` of a channel: what is wrong with them is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.spec.load import load_text
from runner.units import Rate
from tests.spec.marked import Case, case, channel, check_case, middle, parametrized, piped, writer

ERRORS = [
    case("stream", middle("¶poison = { after = 3 }"), "does not tell which message"),
    case("schema gone", channel('schema = ¶"gone.json"'), "cannot be read"),
    case("schema no JSON", channel('schema = ¶"text.json"'), "no JSON"),
    case("schema none", channel('schema = ¶"none.json"'), "no JSON Schema"),
    case("schema elsewhere", channel('schema = ¶"elsewhere.json"'), "no JSON Schema"),
    case("schema of a pipe", piped(keys_a='restart = "never"', keys_x='¶schema = "good.json"'), "nobody sees"),
    case(
        "schema of raw",
        writer('codec = "raw"', rest='[processors.b]\ncommand = ["cat"]\nreads = "x"\ncodec = "raw"\n')
        + '[channels.x]\n¶schema = "good.json"\n',
        "no messages that could fit",
    ),
]
WARNINGS = [
    case(
        "too few deaths",
        middle('contract = "one-to-one"\n¶poison = { after = 6 }'),
        "the processor fails first",
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With schemas, good and bad."""
    (tmp_path / "good.json").write_text('{"type": "object"}')
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "none.json").write_text('{"type": "nope"}')
    (tmp_path / "elsewhere.json").write_text('{"$ref": "http://127.0.0.1:9/x.json"}')
    return tmp_path


@parametrized(ERRORS)
def test_what_is_wrong(each: Case, folder: Path) -> None:
    check_case(each, folder, "error")


@parametrized(WARNINGS)
def test_what_may_be_wrong(each: Case, folder: Path) -> None:
    check_case(each, folder, "warning")


def test_what_is_good(folder: Path) -> None:
    text = middle('contract = "one-to-one"\npoison = { after = 2, limit = "7 in 10s" }')
    loaded = load_text(text + '[channels.x]\nschema = "good.json"\n', folder=folder)
    poison = loaded.pipeline.processors["m"].poison
    assert (poison.after, poison.limit) == (2, Rate(7, 10.0))
    assert json.loads(loaded.pipeline.channels["x"].schema or "") == {"type": "object"}
    assert loaded.warnings == ()
