"""The JSON Schemas and the loader agree."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import event, example, given, settings

from runner.errors import Problem, SpecError
from runner.spec.document import PipelineDocument, ProcessorFile
from runner.spec.findings import Findings, Source
from runner.spec.load import load_document
from runner.spec.schema import DIALECT, pipeline_schema, processor_schema
from runner.spec.walk import walk
from tests.spec.documents import GOOD, mutated
from tests.spec.marked import ENV

PIPELINE = jsonschema_rs.Draft202012Validator(pipeline_schema())
PROCESSOR = jsonschema_rs.Draft202012Validator(processor_schema())
TEMPLATE: dict[str, Any] = {
    "name": "http-source",
    "version": "1",
    "description": "Reads an API.",
    "command": ["cat", "{url}"],
    "image": "example/http-source:1",
    "params": {
        "url": {"type": "string", "required": True, "description": "Where."},
        "pages": {"type": "integer", "default": 5, "minimum": 1, "maximum": 9},
        "mode": {"type": "string", "choices": ["a", "b"], "secret": True},
    },
    "writes": {"stdout": {"codec": "lines", "description": "Rows."}},
    "resume": "skip",
    "env": {"A": "b"},
}


def walked(document: dict[str, Any], struct: type) -> list[Problem]:
    """What the walk says, leaving out what is only not there yet: the schema knows it."""
    findings = Findings(None)
    walk(Source(None, document), document, struct, findings)
    return [problem for problem in findings.problems() if not problem.message.startswith("not supported yet")]


def finite(value: Any) -> bool:
    """Whether JSON can say it: neither nan nor infinity."""
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or value - value == 0


def later_keys(document: dict[str, Any], struct: type) -> bool:
    findings = Findings(None)
    walk(Source(None, document), document, struct, findings)
    return any(problem.message.startswith("not supported yet") for problem in findings.problems())


@pytest.mark.parametrize("schema", [pipeline_schema(), processor_schema()], ids=["pipeline", "processor"])
def test_they_are_schemas_of_the_dialect(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == DIALECT
    jsonschema_rs.meta.validate(schema)
    assert schema["title"]


def test_every_key_is_described() -> None:
    for schema in (pipeline_schema(), processor_schema()):
        for name, definition in {"": schema, **schema["$defs"]}.items():
            assert definition["description"], name
            for key, each in definition["properties"].items():
                assert each.get("description"), (name, key)


def test_good_documents() -> None:
    PIPELINE.validate(GOOD)
    PROCESSOR.validate(TEMPLATE)
    assert walked(TEMPLATE, ProcessorFile) == []


@given(mutated())
@example({"name": "p", "processors": {"a": {"command": ["cat"], "replicas": "${COUNT}", "writes": "${SET}"}}})
@example({"name": "${SET}", "processors": {"a": {"command": "cat ${NOT_SET:-}", "continue_on_error": "${SET}"}}})
@settings(max_examples=400, deadline=None)
def test_what_the_loader_accepts_fits_the_schema(document: dict[str, Any]) -> None:
    try:
        load_document(document, folder=Path(tempfile.gettempdir()), env=ENV)
    except SpecError:
        event("refused")
        return
    event("accepted")
    PIPELINE.validate(document)


@given(mutated())
@settings(max_examples=500, deadline=None)
def test_pipelines_that_the_walk_refuses_do_not_fit_the_schema(document: dict[str, Any]) -> None:
    agree(document, PipelineDocument, PIPELINE)


@given(mutated(TEMPLATE))
@settings(max_examples=500, deadline=None)
def test_processors_that_the_walk_refuses_do_not_fit_the_schema(document: dict[str, Any]) -> None:
    agree(document, ProcessorFile, PROCESSOR)


def agree(document: dict[str, Any], struct: type, validator: jsonschema_rs.Draft202012Validator) -> None:
    """What the walk refuses does not fit the schema; what does not fit is refused, or fails a rule of one of many."""
    if not finite(document) or "${" in str(document):
        event("not comparable")
        return
    problems = walked(document, struct)
    fits = validator.is_valid(document)
    event(f"refused: {bool(problems)}")
    if problems:
        assert not fits, [str(problem) for problem in problems]
    elif not fits and not later_keys(document, struct):
        rules = {str(error.kind.name) for error in validator.iter_errors(document)}
        assert rules & {"oneOf", "anyOf", "OneOfNotValid", "oneOfNotValid"}, [
            str(error) for error in validator.iter_errors(document)
        ]


def test_an_image_may_have_a_command_and_nothing_else_may_have_two_ways() -> None:
    def fits(**keys: Any) -> bool:
        return PIPELINE.is_valid({"name": "x", "processors": {"p": {**keys, "writes": "c"}}})

    assert fits(image="x:1", command=["y"])
    assert fits(image="x:1")
    assert fits(command="y")
    assert fits(use="folder")
    assert not fits(use="folder", command="y")
    assert not fits(use="folder", image="x:1")
    assert not fits()
