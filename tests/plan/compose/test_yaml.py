"""YAML as it is written is read back as it was meant, by a reader of YAML 1.1: to it more words are something else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.plan.compose.yaml import Alias, Block, dump, literal, scalar

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=0)


def read(block: Block) -> Any:
    return yaml.safe_load(dump(block, "a heading"))


@given(TEXT)
def test_any_text_is_the_same_text(text: str) -> None:
    assert read(Block({"key": text, "list": [text, "x"]})) == {"key": text, "list": [text, "x"]}


@given(st.dictionaries(TEXT.filter(lambda key: key != "<<"), st.one_of(TEXT, st.integers(), st.booleans()), min_size=1))
def test_any_mapping_is_the_same_mapping(keys: dict[str, Any]) -> None:
    assert read(Block(keys)) == keys


@pytest.mark.parametrize(
    "word",
    [
        "no",
        "On",
        "y",
        "null",
        "~",
        "1.5",
        "1e3",
        "0x1f",
        "22:30",
        "1:20:30",
        "-",
        "",
        "a: b",
        "#x",
        "*x",
        "=",
        ".5",
        "2026-11-30",
        "2026-11-30T12:00:00Z",
    ],
)
def test_what_could_be_something_else_has_quotes(word: str) -> None:
    assert scalar(word).startswith('"')
    assert yaml.safe_load(scalar(word)) == word


@pytest.mark.parametrize(
    "word", ["nats:2", "./data:/data:ro", "no-new-privileges:true", "45s", "node:20-trixie-slim", "/x"]
)
def test_what_is_plain_has_none(word: str) -> None:
    assert scalar(word) == word
    assert yaml.safe_load(f"[{word}]") == [word]


def test_a_long_list_has_a_line_each() -> None:
    words = [f"word-{number}" for number in range(30)]
    text = dump(Block({"list": words}), "x")
    assert text.count("\n") > 30
    assert yaml.safe_load(text) == {"list": words}


def test_blocks_in_lists_marks_aliases_and_notes() -> None:
    block = Block(
        {
            "x-common": Block({"a": 1, "gone": None}, mark="common"),
            "services": Block({"one": Block({"<<": Alias("common"), "b": [Block({"c": "d", "e": Block({})})]})}),
        },
        notes={"services": "said above\n\nand more " + "word " * 40},
        apart=True,
    )
    text = dump(block, "first\n\n  second")
    assert text.startswith("# first\n#\n#   second\n\nx-common: &common\n")
    assert "\n\n# said above\n#\n# and more word" in text
    assert max(map(len, text.splitlines())) <= 112
    assert yaml.safe_load(text) == {"x-common": {"a": 1}, "services": {"one": {"a": 1, "b": [{"c": "d", "e": {}}]}}}


def test_a_dollar_sign_is_no_variable_of_compose() -> None:
    assert literal("a$B${C}") == "a$$B$${C}"
