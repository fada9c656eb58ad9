"""Pipeline files with the places of their problems marked in them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runner.errors import Problem, SpecError
from runner.spec.load import LoadedPipeline, load_text

MARK = "¶"
ENV = {"PATH": os.environ["PATH"], "SET": "value", "EMPTY": "", "COUNT": "3"}


HEAD = 'name = "p"\n'
READER = '[processors.b]\ncommand = ["cat"]\nreads = "x"\n'


def writer(keys: str, *, head: str = HEAD, rest: str = READER) -> str:
    """A pipeline in which `keys` are added to its source."""
    return f'{head}[processors.a]\ncommand = ["cat"]\nwrites = "x"\n{keys}\n{rest}'


def middle(keys: str, *, command: str = 'command = ["cat"]') -> str:
    """A pipeline in which `keys` are added to the processor between source and sink."""
    return f"""{HEAD}[processors.a]
command = ["cat"]
writes = "w"
[processors.m]
{command}
reads = "w"
writes = "x"
{keys}
{READER}"""


def channel(keys: str) -> str:
    """A pipeline in which `keys` are those of its channel."""
    return writer("") + f"[channels.x]\n{keys}\n"


def piped(keys_a: str = "", keys_b: str = 'restart = "never"', keys_x: str = "") -> str:
    return f"""{HEAD}[processors.a]
command = ["cat"]
writes = "x"
{keys_a}
[processors.b]
command = ["cat"]
reads = "x"
{keys_b}
[channels.x]
kind = "pipe"
{keys_x}
"""


@dataclass(frozen=True)
class Case:
    """A file in which each ¶ stands right before a problem, and a piece of each problem's message, in that order."""

    id: str
    text: str
    messages: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)


def case(id: str, text: str, *messages: str, files: dict[str, str] | None = None) -> Case:  # noqa: A002
    return Case(id, text, messages, files or {})


def places(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and where they stood."""
    found = []
    plain = ""
    for index, piece in enumerate(text.split(MARK)):
        if index:
            found.append((plain.count("\n") + 1, len(plain) - plain.rfind("\n")))
        plain += piece
    return plain, found


def load_case(text: str, folder: Path, env: dict[str, str] | None = None) -> LoadedPipeline:
    return load_text(text, name="p.toml", folder=folder, env=ENV if env is None else env)


def problems_of(text: str, folder: Path, env: dict[str, str] | None = None) -> tuple[Problem, ...]:
    """Every problem of the file, warnings included."""
    try:
        return load_case(text, folder, env).warnings
    except SpecError as error:
        return error.problems


def check_case(each: Case, folder: Path, severity: str) -> None:
    """Exactly the marked problems are found, each with its place and its words."""
    where: dict[str, list[tuple[int, int]]] = {}
    for name, text in each.files.items():
        plain, where[name] = places(text)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plain)
        if plain.startswith("#!"):
            path.chmod(0o755)
    text, where["p.toml"] = places(each.text)
    found = problems_of(text, folder)
    told = "\n".join(map(str, found))
    expected = [(name, *place) for name in ("p.toml", *each.files) for place in where[name]]
    short = [
        (
            os.path.relpath(str(problem.file), folder) if "/" in str(problem.file) else problem.file,
            problem.line,
            problem.column,
        )
        for problem in found
    ]
    assert sorted(short, key=str) == sorted(expected, key=str), told
    assert len(found) == len(each.messages), told
    for problem, message in zip(found, each.messages, strict=True):
        assert message in f"{problem.key}: {problem.message} / {problem.remedy}", told
        assert problem.severity == severity, told


def parametrized(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("each", cases, ids=[each.id for each in cases])
