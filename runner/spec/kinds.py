"""What a type of `msgspec.inspect` takes, and how to say so."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

from msgspec import inspect

from runner.spec.findings import listed
from runner.spec.interpolate import Interpolated
from runner.spec.values import Extra


def unwrap(kind: inspect.Type) -> tuple[inspect.Type, Extra]:
    """The type without its annotation, and what the annotation tells us. Optional keys lose their "unset" half."""
    extra: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata):
        extra = {**(kind.extra or {}), **extra}
        kind = kind.type
    return kind, cast("Extra", extra)


def later(value: Any, extra: Extra) -> tuple[str, str] | None:
    """Message and remedy where the key or its value comes with a later version."""
    if "later" in extra:
        return "not supported yet", extra["later"]
    if not isinstance(value, str):
        return None
    if value in extra.get("later_values", {}):
        return f'not supported yet: "{value}"', extra["later_values"][value]
    return None


_FOR_VALUES: tuple[tuple[type, tuple[type, ...]], ...] = (
    (bool, (inspect.BoolType,)),
    (str, (inspect.LiteralType, inspect.StrType)),
    (int, (inspect.IntType, inspect.FloatType)),
    (float, (inspect.FloatType, inspect.IntType)),
    (list, (inspect.ListType,)),
    (dict, (inspect.StructType, inspect.DictType)),
)
"""Which types may take a value of a Python type, the best first; bool comes before int, which it is a kind of."""


def choose(value: Any, alternatives: tuple[inspect.Type, ...]) -> tuple[inspect.Type | None, Any]:
    """The one of `alternatives` that is meant by `value` (None: none is), and the value as that type has it."""
    kinds = {type(unwrap(each)[0]): each for each in alternatives}
    if inspect.AnyType in kinds:
        return kinds[inspect.AnyType], value
    if isinstance(value, Interpolated) and not {inspect.StrType, inspect.LiteralType} & set(kinds):
        value = _from_text(value, kinds)
    wanted = next((types for python, types in _FOR_VALUES if isinstance(value, python)), ())
    best = next((each for each in wanted if each in kinds), None)
    if isinstance(value, float) and best is inspect.IntType:
        if not value.is_integer():
            return None, value
        value = int(value)
    return (kinds[best] if best is not None else None), value


def _from_text(value: Interpolated, kinds: Mapping[type, inspect.Type]) -> Any:
    """What the environment gave, as the number or boolean that is expected; itself when it is none."""
    if inspect.BoolType in kinds and value in {"true", "false"}:
        return value == "true"
    if inspect.IntType in kinds and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return int(value)
    if inspect.FloatType in kinds and re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", value):
        return float(value)
    return value


def unfit(value: str, extra: Extra) -> str | None:
    """Why the string does not fit its pattern; None when it does."""
    pattern = extra.get("pattern")
    if pattern is None or re.fullmatch(pattern, value):
        return None
    return extra["explain"](value)


def out_of_bounds(value: float, kind: inspect.IntType | inspect.FloatType) -> str | None:
    """Why the number is out of bounds; None when it is not."""
    if not math.isfinite(value):
        return f"{value} is no finite number"
    if kind.ge is not None and value < kind.ge:
        return f"{value} is too small; at least {kind.ge:g}"
    if kind.gt is not None and value <= kind.gt:
        return f"{value} is too small; more than {kind.gt:g}"
    if kind.le is not None and value > kind.le:
        return f"{value} is too large; at most {kind.le:,}"
    return None


def allowed_words(alternatives: tuple[inspect.Type, ...], extra: Extra) -> list[str]:
    """The words that may stand here in this version."""
    words: list[str] = []
    for each in alternatives:
        kind, _ = unwrap(each)
        if isinstance(kind, inspect.LiteralType):
            words += [str(word) for word in kind.values if word not in extra.get("later_values", {})]
    return words


def expected(alternatives: tuple[inspect.Type, ...], extra: Extra) -> str:
    """The types that may stand here, in words."""
    says = []
    for each in alternatives:
        kind, _ = unwrap(each)
        if isinstance(kind, inspect.LiteralType):
            says += [f'"{word}"' for word in allowed_words((kind,), extra)]
        elif isinstance(kind, inspect.ListType):
            item, _ = unwrap(kind.item_type)
            says.append("a list of strings" if isinstance(item, inspect.StrType) else "a list")
        else:
            says.append(_NAMES.get(type(kind), "a value"))
    return listed(list(dict.fromkeys(says)))


_NAMES: dict[type, str] = {
    inspect.StrType: "a string",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "true or false",
    inspect.StructType: "a table",
    inspect.DictType: "a table",
}


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    for kind, name in ((bool, "true or false"), (str, "a string"), (int, "a whole number"), (float, "a number")):
        if isinstance(value, kind):
            return name
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"a {type(value).__name__}"


def is_string(kind: inspect.Type) -> bool:
    """Whether strings are taken."""
    return isinstance(unwrap(kind)[0], inspect.StrType)


def is_plain_number(value: str, alternatives: tuple[inspect.Type, ...]) -> bool:
    """Whether `value` is a number in quotes where a number is taken."""
    numbers = any(isinstance(unwrap(each)[0], inspect.IntType | inspect.FloatType) for each in alternatives)
    return numbers and re.fullmatch(r"[0-9]{1,18}(\.[0-9]+)?", value) is not None


def what_for(each: inspect.Field) -> str | None:
    """What the key is for, as its description says."""
    kind = each.type
    schema = kind.extra_json_schema if isinstance(kind, inspect.Metadata) else None
    description = (schema or {}).get("description")
    return f"{each.encode_name}: {description}" if description else None
