"""A processor's command: split into words, params put in, and its program looked for."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from runner.spec.findings import Scope, show
from runner.spec.presence import is_folder, is_there
from runner.spec.words import nearest

LONGEST_STRING = 131_072
"""Bytes of one argument or environment string with its NUL: MAX_ARG_STRLEN of execve(2); more is E2BIG."""

_OPERATORS = re.compile(
    r"""(?P<single>'[^']*')|(?P<double>"(?:[^"\\]|\\.)*")|(?P<escaped>\\.)|(?P<operator>\$\(|[|><&;`])""", re.DOTALL
)


def words_of(scope: Scope, path: tuple[str | int, ...], command: str | list[str]) -> list[str] | None:
    """The words of `command`, split where it is a string; None after an error. Nothing is expanded: no shell runs."""
    if isinstance(command, list):
        if not command[0]:
            scope.error((*path, 0), "the program's name is empty", "the first word is the program")
            return None
        return command
    operator = _shell_operator(command)
    if operator is not None:
        scope.error(
            path,
            f'"{operator}" has no meaning here, because no shell runs the command',
            f'write ["sh", "-c", {show(command)}] to run it with a shell',
        )
        return None
    try:
        words = shlex.split(command)
    except ValueError as error:
        scope.error(
            path, f"cannot be split into words: {str(error).lower()}", "close the quote, or write a list of words"
        )
        return None
    if not words or not words[0]:
        scope.error(path, "is empty", "write the program and its arguments")
        return None
    return words


def _shell_operator(command: str) -> str | None:
    """The first thing in `command` that only a shell understands: an operator outside of quotes, or `$(`."""
    for match in _OPERATORS.finditer(command):
        if match["operator"]:
            return match["operator"]
        if match["double"]:
            inner = re.search(r"(?<!\\)(\$\(|`)", match["double"])
            if inner:
                return inner[1]
    return None


def with_params(
    scope: Scope,
    path: tuple[str | int, ...],
    words: list[str],
    declared: Mapping[str, bool],
    values: Mapping[str, object],
) -> list[str] | None:
    """`words` with `{name}` replaced for each declared param; None after an error.

    `declared` says for each param whether it is secret. A list may be a word of its own only, and becomes one word per
    element. All other braces stay as they are.
    """
    if not declared:
        return words
    mark = re.compile("|".join(rf"\{{{re.escape(name)}\}}" for name in declared))
    used = {(word, match[0][1:-1]) for word in words for match in mark.finditer(word)}
    fit = [_may_stand(scope, path, word, name, secret=declared[name], values=values) for word, name in sorted(used)]
    if not all(fit):
        return None
    filled: list[str] = []
    for word in words:
        whole = values.get(word[1:-1]) if mark.fullmatch(word) else None
        if isinstance(whole, list):
            filled += [as_text(element) for element in whole]
        else:
            filled.append(mark.sub(lambda match: as_text(values[match[0][1:-1]]), word))
    if not filled or not filled[0]:
        scope.error(path, "the program's name is empty", f"{words[0]} stands for nothing")
        return None
    return filled


def _may_stand(
    scope: Scope, path: tuple[str | int, ...], word: str, name: str, *, secret: bool, values: Mapping[str, object]
) -> bool:
    """Whether the param `name` may stand in `word`; an error where it may not."""
    variable = f"CONNECTOR_PARAM_{env_word(name)}"
    if secret:
        scope.error(
            path, f"the param {name} is secret, and a command can be seen by everybody", f"read it from {variable}"
        )
    elif name not in values:
        scope.error(path, f"the param {name} has no value", f"give {name} in params, or give it a default")
    elif isinstance(values[name], list) and word != f"{{{name}}}":
        scope.error(path, f"the list {name} stands inside of a longer word", f'write "{{{name}}}" as a word of its own')
    else:
        return True
    return False


def as_text(value: object) -> str:
    """A param's value as a program gets it: `true`, `3`, `0.5`, text as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def env_word(name: str) -> str:
    """A name as it stands in the name of an environment variable."""
    return name.upper().replace("-", "_")


def located(
    scope: Scope, path: tuple[str | int, ...], words: list[str], directory: Path, search_path: str | None
) -> tuple[str, ...]:
    """`words` with the program made absolute where it is a relative path; an error where it cannot be started.

    A program without a slash is looked for in `search_path` (None: the system's default path) and stays as written.
    """
    program = words[0]
    for word in words:
        if len(word.encode("utf-8", "surrogatepass")) >= LONGEST_STRING:
            scope.error(path, "one argument is longer than 128 KiB, which no program can be given", "put it in a file")
    if "/" in program:
        found = directory / program
        complaint = _cannot_run(found)
        if complaint:
            scope.error(path, f"{show(program)} {complaint}", f"a relative path starts from {show(str(directory))}")
        return (str(found), *words[1:])
    folders = (os.defpath if search_path is None else search_path).split(os.pathsep)
    if not any(_cannot_run(directory / folder / program) is None for folder in folders):
        remedy = f"install it, or write its path; PATH is {show(os.pathsep.join(folders))}"
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", program):
            remedy = f"put {program.partition('=')[0]} in env"
        elif is_there(directory / program):
            remedy = f'write "./{program}" for the file of that name in the program\'s directory'
        scope.error(path, f"there is no program {show(program)}", remedy)
    return tuple(words)


def _cannot_run(program: Path) -> str | None:
    """Why `program` cannot be started; None when it can."""
    if is_folder(program):
        return "is a folder"
    if not is_there(program):
        return "is not there"
    if not os.access(program, os.X_OK):
        return "is not executable"
    try:
        with program.open("rb") as file:
            first = file.readline(256)
    except OSError:
        return None  # executable and not readable: the kernel may run it
    if first.startswith(b"#!"):
        interpreter = os.fsdecode(first[2:].strip().split(b" ")[0])
        if interpreter.startswith("/") and not is_there(Path(interpreter)):
            return f"asks for the interpreter {show(interpreter)}, which is not there"
    return None


def similar(name: str, known: Mapping[str, object]) -> str | None:
    """A did-you-mean sentence for `name`; None when nothing is near."""
    close = nearest(name, known)
    return f'did you mean "{close}"?' if close else None
