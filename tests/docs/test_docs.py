"""Documentation is run: its pipelines load, its commands work, its programs answer, its links lead somewhere.

`tests/docs/pages.py` says how a block is marked. A block that is neither run nor marked fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from runner.plan.graph import to_mermaid
from runner.spec.load import load_file
from runner.spec.schema import pipeline_schema, processor_schema
from runner.supervise import life
from tests.children.build import sink
from tests.docs import pages
from tests.docs.pages import PROJECT, SHELL, Block, anchors, blocks, every_block, name_of, prose
from tests.e2e.connector import Connector, chain

BLOCKS = every_block()
PAGES = pages.pages()
DOCS = PROJECT / "docs"
LIMIT_S = 60
DIAGRAMS = ("flowchart ", "stateDiagram-v2\n")


def only(*languages: str) -> list[Any]:
    """The blocks in these languages, as parameters of a test."""
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language in languages]


def environment(folder: Path) -> dict[str, str]:
    """Where `connector` is the runner that is tested, and `python3` the Python of the tests."""
    tools = folder / ".tools"
    tools.mkdir()
    for name, words in {"connector": [sys.executable, "-m", "runner"], "python3": [sys.executable]}.items():
        put_program(tools / name, f'exec {shlex.join(words)} "$@"')
    path = os.pathsep.join([str(tools), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT)}


def put_program(file: Path, line: str) -> None:
    """A shell script of one line."""
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


# -- every block is something


def test_there_is_documentation() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/concepts.md", "docs/guarantees.md"} <= {name_of(page) for page in PAGES}
    assert len(BLOCKS) > 20


@pytest.mark.parametrize("block", [pytest.param(block, id=str(block)) for block in BLOCKS])
def test_no_block_is_skipped_silently(block: Block) -> None:
    mark = block.mark
    known = ("file", "program", "fragment", "needs", "not run", "exits", "output")
    assert not mark or any(block.marked(word) is not None for word in known), f"nobody knows the mark {mark!r}"
    if block.marked("not run") is not None or block.marked("file") is not None:
        assert block.marked("not run") or block.marked("file"), "say why, or which file"
    is_program = block.marked("program") is not None
    if block.language == "toml":
        whole = pages.is_pipeline(block) or pages.is_processor_file(block)
        assert whole or block.marked("fragment") is not None, "neither a whole file nor marked as a fragment"
    elif block.language in SHELL:
        commands = [line.split()[0] for line in block.text.splitlines() if line.strip()]
        tested = "connector" in commands or set(commands) <= {"make"} or mark
        assert tested, "neither run nor marked as not run"
    elif block.language == "text":
        assert is_program or block.marked("output") is not None, "a text is output of the commands before it"
    elif block.language not in {"json", "mermaid", "python"}:
        assert is_program or block.marked("file") is not None, f"nothing runs a block of {block.language or 'nothing'}"


# -- TOML


@pytest.mark.parametrize("block", only("toml"))
def test_toml(block: Block, tmp_path: Path) -> None:
    document = tomllib.loads(block.text)
    if block.marked("fragment") is not None:
        return
    schema = pipeline_schema() if pages.is_pipeline(block) else processor_schema()
    jsonschema_rs.validator_for(schema).validate(document)
    if not pages.is_pipeline(block):
        return
    pages.write_files(block.page, tmp_path)
    found = environment(tmp_path)
    for processor in document["processors"].values():
        add_program(processor, tmp_path / ".tools", found["PATH"])
    (tmp_path / "shown.toml").write_text(block.text)
    assert load_file(tmp_path / "shown.toml", env=found).pipeline.name == document["name"]


def add_program(processor: dict[str, Any], tools: Path, path: str) -> None:
    """A page may show programs that this machine does not have: put something in their place."""
    command = processor.get("command", [])
    words = shlex.split(command) if isinstance(command, str) else command
    if words and "/" not in words[0] and shutil.which(words[0], path=path) is None:
        put_program(tools / words[0], "exit 1")


# -- commands

RUN = [page for page in PAGES if any(each.language in SHELL and "connector " in each.text for each in blocks(page))]


def plain(text: str) -> list[str]:
    """The lines of an output without what differs from run to run."""
    text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ", "", text, flags=re.MULTILINE)
    text = re.sub(r"\b\d+(\.\d+)?(ms|s)\b", "TIME", text)
    text = re.sub(r"(?<=\w\])\s*\|", " |", text)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_commands(page: Path, open_folder: Path, request: pytest.FixtureRequest) -> None:
    pages.write_files(page, open_folder)
    found = environment(open_folder)
    printed: list[str] = []
    for block in blocks(page):
        if block.marked("output") is not None:
            missing = [line for line in plain(block.text) if line not in printed]
            assert not missing, f"{block}: {missing} not in:\n" + "\n".join(printed)
        if block.language not in SHELL or "connector " not in block.text or block.marked("not run") is not None:
            continue
        if (needed := block.marked("needs")) is not None:
            request.getfixturevalue(needed)
            shutil.copytree(PROJECT / "examples", open_folder / "examples", dirs_exist_ok=True)
        done = subprocess.run(
            ["sh", "-e", "-c", block.text],
            cwd=open_folder, env=found, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
            timeout=LIMIT_S,
        )  # fmt: skip
        assert done.returncode == int(block.marked("exits") or 0), f"{block}:\n{done.stdout}{done.stderr}"
        printed = plain(done.stdout + done.stderr)


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named: set[str] = set()
    for page in PAGES:
        named |= set(re.findall(r"`make (\w+)`", prose(page)))
        for block in blocks(page):
            if block.language in SHELL:
                named |= set(re.findall(r"^make (\w+)", block.text, re.MULTILINE))
    assert {"demo", "test", "check", "bench", "soak"} <= named
    assert named <= targets


def test_the_readme_names_the_test_command() -> None:
    assert "The test command is `make test`" in prose(PROJECT / "README.md")
    assert re.search(r"^\S*.*make test$", (PROJECT / ".ci" / "run").read_text(), re.MULTILINE)


@pytest.mark.parametrize("block", only("python"))
def test_python(block: Block, tmp_path: Path) -> None:
    compile(block.text, str(block), "exec")
    if block.mark:
        return  # a file or a program: run with the commands, or below
    subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text], cwd=tmp_path, env=environment(tmp_path), check=True,
        timeout=LIMIT_S,
    )  # fmt: skip


@pytest.mark.parametrize("block", only("json"))
def test_json(block: Block) -> None:
    json.loads(block.text)


# -- programs in several languages

PROGRAMS = [pytest.param(block, id=str(block)) for block in BLOCKS if block.marked("program")]
NEEDS = {"java": "javac"}
"""What a program needs beside its first word: Java runs a source file only where it can compile."""


@pytest.mark.parametrize("contract", ["stream", "one-to-one"])
@pytest.mark.parametrize("block", PROGRAMS)
def test_programs(block: Block, contract: str, connector: Connector, tmp_path: Path) -> None:
    command, _, build = (block.marked("program") or "").partition(" built by: ")
    for words in (shlex.split(build), shlex.split(command)):
        for tool in words[:1]:
            if "/" not in tool and not (shutil.which(tool) and shutil.which(NEEDS.get(tool, tool))):
                pytest.skip(f"{NEEDS.get(tool, tool)} is not installed")
    (tmp_path / shlex.split(build or command)[-1]).write_text(block.text)
    if build:
        settings = {"GOCACHE": str(tmp_path / "go"), "GO111MODULE": "off", "HOME": str(tmp_path)}
        subprocess.run(shlex.split(build), cwd=tmp_path, env={**os.environ, **settings}, check=True, timeout=LIMIT_S)
    words = [f"word {number} of many" for number in range(500)]
    (tmp_path / "words").write_text("".join(f"{word}\n" for word in words))
    upper = {"command": shlex.split(command), "contract": contract}
    connector.run(chain(source=["cat", "words"], upper=upper, sink=sink(tmp_path / "out"))).completed()
    assert (tmp_path / "out").read_text().splitlines() == [word.upper() for word in words]


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    """The command, with a folder of its own."""
    return Connector(tmp_path)


# -- pictures


def test_the_readme_has_the_picture_of_the_demo() -> None:
    (picture,) = (block for block in blocks(PROJECT / "README.md") if block.language == "mermaid")
    file = PROJECT / "examples" / "flights" / "pipeline.toml"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("node", "java", "python3"):
            put_program(Path(folder, name), "exit 1")
        pipeline = load_file(file, env={"PATH": folder}).pipeline
    assert picture.text == to_mermaid(pipeline)


@pytest.mark.parametrize("block", only("mermaid"))
def test_pictures_are_of_a_known_kind(block: Block) -> None:
    assert block.text.startswith(DIAGRAMS)


def test_the_picture_of_states_is_what_the_door_allows() -> None:
    (picture,) = (block.text for block in blocks(DOCS / "concepts.md") if block.text.startswith("stateDiagram"))
    drawn = set(re.findall(r"(\w+) --> (\w+)", picture))
    allowed = {(str(old), str(new)) for old, states in life.LEGAL.items() for new in states}
    assert drawn == allowed


# -- the pipeline file's page and the schema


REFUSED_WHOLE = ("Poison", "Runner")
"""Tables that are refused by their own name, so nobody needs to know what is in them."""


def schema_keys(*, without: tuple[str, ...] = ()) -> set[str]:
    """Every key of both files, but for those of some tables."""
    keys: set[str] = set()
    for schema in (pipeline_schema(), processor_schema()):
        keys |= set(schema["properties"])
        for name, definition in schema["$defs"].items():
            if name not in without:
                keys |= set(definition["properties"])
    return keys


def documented_keys() -> set[str]:
    """Every key that a table of docs/pipeline.md has a row for, without the tables that it is in."""
    keys: set[str] = set()
    for table in re.findall(r"^\| key \|.*\n(?:\|.*\n)+", prose(DOCS / "pipeline.md"), re.MULTILINE):
        for row in table.splitlines()[2:]:
            first = row.split("|")[1]
            keys |= {key.rpartition(".")[2] for key in re.findall(r"`([^`]+)`", first)}
    return keys


def test_the_page_of_the_pipeline_file_and_the_schema_have_the_same_keys() -> None:
    assert documented_keys() - schema_keys() == set(), "documented, and no key"
    told = set(re.findall(r"`(?:[\w.]+\.)?(\w+)`", prose(DOCS / "pipeline.md")))
    assert schema_keys(without=REFUSED_WHOLE) - told == set(), "a key without a word about it"


# -- links, paths and names


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} leads nowhere"
        assert file.is_relative_to(PROJECT), f"{target} leads out of the project"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


def test_every_page_can_be_found() -> None:
    """From the list of the documentation, in two steps."""
    lists = [DOCS / "index.md", DOCS / "decisions" / "README.md"]
    found = {(page.parent / link.partition("#")[0]).resolve() for page in lists
             for link in re.findall(r"\]\(([^)\s:]+)\)", prose(page))}  # fmt: skip
    assert {page for page in DOCS.glob("**/*.md") if page != lists[0]} <= found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_are_there(page: Path) -> None:
    for path in re.findall(r"`((?:tests|bench|runner|docs|examples)/[\w./-]+)`", page.read_text()):
        assert (PROJECT / path).exists(), path


def test_every_promise_names_its_test() -> None:
    text = prose(DOCS / "guarantees.md")
    sections = [each for each in re.split(r"^## ", text, flags=re.MULTILINE)[1:] if "not promised" not in each[:30]]
    assert len(sections) >= 10
    for section in sections:
        assert re.search(r"^Tests: .*tests/", section, re.MULTILINE), section.splitlines()[0]


def test_decisions_have_their_four_parts() -> None:
    decisions = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    numbers = [page.name[:4] for page in decisions]
    assert len(set(numbers)) == len(numbers) > 20, "two decisions with one number"
    for page in decisions:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]} "), page.name
        assert [part for part in ("Question", "Choice", "Why", "What else") if f"**{part}.**" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_this_machine(page: Path) -> None:
    text = page.read_text()
    ours = {str(PROJECT), sys.prefix, sys.base_prefix, str(Path.home()), tempfile.gettempdir()}
    for path in ours - {"/", "/usr", "/usr/local", "/tmp"}:  # what any machine has says nothing
        assert path not in text, path
    assert not re.search(r"(?<![\w.>])/(?:root|home|Users|work|mnt)/", text)
