"""Typed params: what a `processor.toml` declares, and what a pipeline gives."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET

from runner.spec.command import env_word, similar
from runner.spec.document import ParamDocument
from runner.spec.findings import Scope, listed, show
from runner.spec.interpolate import Interpolated
from runner.units import parse_duration, parse_size

_WITH_BOUNDS = ("integer", "number", "duration", "size", "list")


def check_declarations(scope: Scope, declared: Mapping[str, ParamDocument], folder: Path) -> dict[str, object]:
    """Check what a processor.toml says about its params; returns the defaults, read by type.

    `scope` is its table of params and `folder` its folder, from which paths start.
    """
    defaults: dict[str, object] = {}
    variables: dict[str, str] = {}
    for name, param in declared.items():
        other = variables.setdefault(env_word(name), name)
        if other != name:
            scope.error(
                (name,), f"{other} and {name} have the same variable CONNECTOR_PARAM_{env_word(name)}", at="key"
            )
        _check_bounds(scope, name, param, folder)
        if param.default is not UNSET:
            if param.required:
                scope.error((name, "default"), "a required param needs no default", "leave one of them out", at="key")
            value = _checked(scope, (name, "default"), param.default, param, folder)
            if value is not None:
                defaults[name] = value
    return defaults


def given_params(
    scope: Scope,
    given: Mapping[str, Any],
    declared: Mapping[str, ParamDocument],
    defaults: Mapping[str, object],
    *,
    folder: Path,
    complete: bool,
) -> dict[str, object]:
    """The params of one processor: what the pipeline gives, then the defaults.

    `scope` is the processor's table. Not `complete`: some declarations were wrong, so unknown names are no error.
    """
    values = dict(defaults)
    for name, value in given.items():
        if name in declared:
            checked = _checked(scope, ("params", name), value, declared[name], folder)
            if checked is not None:
                values[name] = checked
        elif complete:
            remedy = similar(name, declared) or (
                f"it declares {listed(sorted(declared), 'and')}" if declared else "it declares none"
            )
            scope.error(("params", name), f'unknown param "{name}"', remedy, at="key")
    for name, param in declared.items():
        if param.required and name not in given:
            description = param.description if isinstance(param.description, str) else f"a {param.type}"
            scope.error(("use",), f'the param "{name}" is missing', f"give it in params: {name} = ... ({description})")
    return values


def _check_bounds(scope: Scope, name: str, param: ParamDocument, folder: Path) -> None:
    """Hold minimum, maximum and choices against the type."""
    for bound in ("minimum", "maximum"):
        value = getattr(param, bound)
        if value is UNSET:
            continue
        if param.type not in _WITH_BOUNDS:
            scope.error((name, bound), f"a {param.type} has no {bound}", "leave it out, or use choices", at="key")
            continue
        try:
            _read_bound(value, param.type, folder)
        except ValueError as error:
            scope.error((name, bound), str(error))
    if param.choices is not UNSET:
        for index, choice in enumerate(param.choices):
            try:
                _READERS["string" if param.type == "list" and isinstance(choice, str) else param.type](choice, folder)
            except ValueError as error:
                if param.type != "list" or not _is_scalar(choice):
                    scope.error((name, "choices", index), str(error))


def _checked(scope: Scope, path: tuple[str | int, ...], value: Any, param: ParamDocument, folder: Path) -> object:
    """`value` read by the type of `param` and held against its bounds; None after an error."""
    try:
        read = _READERS[param.type](value, folder)
        _hold(read, param, folder)
    except ValueError as error:
        message = str(error)
        if param.secret:
            message = f"the value is not what {show(path[-1])} may have: a {param.type}, and secret"
        scope.error(path, message)
        return None
    return read


def _hold(value: object, param: ParamDocument, folder: Path) -> None:
    """Raise ValueError where `value` is outside of minimum, maximum or choices."""
    measured = len(value) if isinstance(value, list) else value
    noun = " elements" if isinstance(value, list) else ""
    if param.type in _WITH_BOUNDS and isinstance(measured, int | float):
        for bound, word in (("minimum", "at least"), ("maximum", "at most")):
            limit = getattr(param, bound)
            if limit is UNSET:
                continue
            try:
                read = _read_bound(limit, param.type, folder)
            except ValueError:
                continue
            if measured < read if bound == "minimum" else measured > read:
                raise ValueError(f"{measured}{noun}: must be {word} {limit}")
    if param.choices is not UNSET:
        choices = [_read_choice(choice, param.type, folder) for choice in param.choices]
        for element in value if isinstance(value, list) else [value]:
            if element not in choices:
                raise ValueError(
                    f"{show(element)} is none of its choices: {listed([show(each) for each in param.choices])}"
                )


def _read_choice(choice: Any, kind: str, folder: Path) -> object:
    try:
        return choice if kind == "list" else _READERS[kind](choice, folder)
    except ValueError:
        return choice


def _read_bound(value: Any, kind: str, folder: Path) -> float:
    """A minimum or maximum as a number; of a list it counts elements."""
    read = _READERS["integer" if kind == "list" else kind](value, folder)
    assert isinstance(read, int | float)
    return read


def _string(value: Any, _folder: Path) -> object:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, found {show(value)}; put it in quotes")  # noqa: TRY004
    if "\0" in value:
        raise ValueError("holds a NUL character, which no program can be given")
    return str(value)


def _integer(value: Any, _folder: Path) -> object:
    if isinstance(value, Interpolated) and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, found {show(value)}")  # noqa: TRY004
    return value


def _number(value: Any, _folder: Path) -> object:
    if isinstance(value, Interpolated) and re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, found {show(value)}")
    return value


def _boolean(value: Any, _folder: Path) -> object:
    if isinstance(value, Interpolated) and value in {"true", "false"}:
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {show(value)}")  # noqa: TRY004
    return value


def _duration(value: Any, _folder: Path) -> object:
    if not isinstance(value, str):
        raise ValueError(f'expected a duration such as "30s", found {show(value)}')  # noqa: TRY004
    seconds = parse_duration(value)
    return int(seconds) if seconds.is_integer() else seconds


def _size(value: Any, _folder: Path) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f'expected a size such as "8MiB", found {show(value)}')  # noqa: TRY004
    return parse_size(value)


def _path(value: Any, folder: Path) -> object:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path, found {show(value)}")
    return str(folder / value)


def _list(value: Any, _folder: Path) -> object:
    if not isinstance(value, list) or not all(_is_scalar(element) for element in value):
        raise ValueError(f"expected a list of strings, numbers or booleans, found {show(value)}")
    return [str(element) if isinstance(element, str) else element for element in value]


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value
    return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))


_READERS: dict[str, Callable[[Any, Path], object]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "duration": _duration,
    "size": _size,
    "path": _path,
    "list": _list,
}
