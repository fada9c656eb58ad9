"""docs/pipeline.md names every key, and what it shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import runner
from runner.spec import channel_document, document
from runner.spec.load import load_file

PAGE = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$|`` ` ``", "", PAGE, flags=re.MULTILINE | re.DOTALL)
CODE = set(re.findall(r"`([^`\n]+)`", PROSE))

TABLES = {
    document.PipelineDocument: "",
    document.ProcessorDocument: "",
    document.ProcessorFile: "",
    channel_document.ChannelDocument: "",
    document.ParamDocument: "",
    document.InFlightDocument: "in_flight.",
    document.BatchDocument: "batch.",
    document.GuardDocument: "guard.",
    document.RestartDocument: "restart.",
    document.StopDocument: "stop.",
    document.ReadyDocument: "ready.",
    document.ResourcesDocument: "resources.",
    document.PortDocument: "reads.PORT.",
    document.BuildDocument: "build.",
    channel_document.RotateDocument: "rotate.",
    channel_document.TlsDocument: "tls.",
}


@pytest.mark.parametrize("struct", TABLES, ids=[struct.__name__ for struct in TABLES])
def test_every_key_is_there(struct: type[document.ProcessorKeys]) -> None:
    missing = [TABLES[struct] + key for key in struct.__struct_fields__ if TABLES[struct] + key not in CODE]
    assert missing == []


def test_the_examples_work(tmp_path: Path) -> None:
    shown = [text for language, text in BLOCKS if language == "toml"]
    first, files, template, user = shown
    (tmp_path / "http-source").mkdir()
    (tmp_path / "http-source/processor.toml").write_text(template)
    for text in (first, files, user):
        (tmp_path / "pipeline.toml").write_text(text)
        assert load_file(tmp_path / "pipeline.toml").warnings == ()


def test_the_python_example_works(tmp_path: Path) -> None:
    (code,) = (text for language, text in BLOCKS if language == "python")
    names: dict[str, runner.Pipeline] = {}
    exec(compile(code, "docs/pipeline.md", "exec"), names)
    assert names["pipeline"].spec.name == "count"
