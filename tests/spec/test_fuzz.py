"""Whatever the file holds: a pipeline, or problems with their lines; never another exception."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.errors import SpecError
from runner.plan.graph import to_dot, to_mermaid
from runner.spec.load import LoadedPipeline, load_document, load_text
from tests.spec.documents import GOOD, KEYS, VALUES, mutated
from tests.spec.marked import ENV
from tests.spec.toml_texts import table


@pytest.fixture(scope="module")
def folder() -> Path:
    """A folder with a processor.toml in `src`."""
    path = Path(tempfile.mkdtemp())
    (path / "src").mkdir()
    (path / "src/processor.toml").write_text('command = ["cat"]\n')
    return path


def tried(text: str, folder: Path, env: Mapping[str, str] = ENV) -> LoadedPipeline | None:
    """Load `text`; a failure must have lines."""
    try:
        loaded = load_text(text, folder=folder, env=env)
    except SpecError as error:
        assert any(problem.severity == "error" for problem in error.problems)
        lines = len(text.replace("\r\n", "\n").split("\n"))
        for problem in error.problems:
            assert problem.line is not None
            assert problem.column is not None
            if problem.file == "pipeline.toml":
                assert 1 <= problem.line <= lines
            assert problem.message
            str(problem)
        return None
    assert to_mermaid(loaded.pipeline)
    assert to_dot(loaded.pipeline)
    return loaded


def test_the_good_document_is_good(folder: Path) -> None:
    assert tried(tomli_w.dumps(GOOD), folder) is not None


@given(document=mutated())
@settings(max_examples=400, deadline=None)
def test_mutated_documents(folder: Path, document: dict[str, Any]) -> None:
    tried(tomli_w.dumps(document), folder)


@given(document=mutated())
@settings(max_examples=150, deadline=None)
def test_mutated_documents_in_python(folder: Path, document: dict[str, Any]) -> None:
    try:
        load_document(document, folder=folder, env=ENV)
    except SpecError as error:
        assert error.problems


@given(document=st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=150, deadline=None)
def test_random_values_at_known_keys(folder: Path, document: dict[str, Any]) -> None:
    tried(tomli_w.dumps(document), folder)
    tried(tomli_w.dumps({"name": "p", "processors": {"a": document}, "channels": {"x": document}}), folder)


@given(template=st.dictionaries(KEYS, VALUES, max_size=4), params=VALUES, declared=VALUES)
@settings(max_examples=200, deadline=None)
def test_random_templates(folder: Path, template: dict[str, Any], params: Any, declared: Any) -> None:
    source = {"command": ["cat", "{p}"], "params": {"p": {"type": "integer", "default": declared}}, **template}
    (folder / "src/processor.toml").write_text(tomli_w.dumps(source))
    document = {"name": "p", "processors": {"a": {"use": "src", "writes": "x", "params": {"p": params}}}}
    document["processors"]["b"] = {"command": ["cat"], "reads": "x"}  # type: ignore[index]
    tried(tomli_w.dumps(document), folder)


@given(text=st.one_of(st.text(), table()))
@example("\ufeff")
@example("a = 1979-13-41")
@example("a = 1\r")
@example("[processors.a]\n[processors.a]")
@settings(max_examples=200, deadline=None)
def test_random_text(folder: Path, text: str) -> None:
    tried(text, folder)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_torn_text(folder: Path, data: st.DataObject) -> None:
    text = tomli_w.dumps(GOOD)
    start, end = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    tried(text[:start] + data.draw(st.text("[]{}\"'=.,#\n \\x0", max_size=3)) + text[end:], folder)


@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_value_from_the_environment(folder: Path, value: str) -> None:
    text = tomli_w.dumps(GOOD).replace('"30s"', '"${ANY}"', 1).replace('"A"', '"${ANY}"')
    tried(text, folder, {**ENV, "ANY": value})
    tried(text.replace('"x"', '"${ANY}"', 1), folder, {"PATH": os.environ["PATH"], "ANY": value})
