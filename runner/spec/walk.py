"""Holds a raw document against its struct and finds every error at once.

msgspec itself stops at the first error. This walk is driven by `msgspec.inspect`, so a new key in
`runner.spec.document` needs nothing here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import msgspec.inspect as inspect

from runner.spec.findings import Findings, Source, listed, show
from runner.spec.interpolate import Interpolated
from runner.spec.scanner import Path
from runner.spec.values import Extra
from runner.spec.words import meant, nearest


@dataclass(frozen=True, slots=True)
class Walked:
    """What is good of a document, and the paths of what is not.

    `spoiled` has the path of each key or element that was left out of `data`, unknown keys included.
    """

    data: dict[str, Any]
    spoiled: frozenset[Path] = field(default_factory=frozenset)

    def is_spoiled(self, *path: str | int) -> bool:
        """Whether something at `path` or inside of it was left out."""
        return any(spoiled[: len(path)] == path for spoiled in self.spoiled)


def walk(
    source: Source, data: dict[str, Any], struct: type, findings: Findings, *, skip: Collection[Path] = ()
) -> Walked:
    """Check `data`, which was read from `source`, against `struct`; every error goes to `findings`.

    Paths in `skip` have been reported before and are left out silently. Required keys of the outermost table that are
    missing are reported and stay missing; an inner table without a required key is left out as a whole.
    """
    walker = _Walker(source, findings, skip)
    good = walker.struct(data, _type_info(struct), (), outermost=True)
    return Walked(cast("dict[str, Any]", good), frozenset(walker.spoiled))


@cache
def _type_info(struct: type) -> inspect.StructType:
    return cast("inspect.StructType", inspect.type_info(struct))


_BAD = object()
"""Stands for a value that was reported and is left out."""


class _Walker:
    def __init__(self, source: Source, findings: Findings, skip: Collection[Path]) -> None:
        self._source = source
        self._findings = findings
        self._skip = skip
        self.spoiled: set[Path] = set()

    def value(self, value: Any, kind: inspect.Type, path: Path) -> Any:
        """What is good of `value`, or `_BAD`."""
        if path in self._skip:
            self.spoiled.add(path)
            return _BAD
        kind, extra = _unwrap(kind)
        refusal = _later(value, extra)
        if refusal is not None:
            return self._refuse(path, *refusal, at="key" if "later" in extra else "value")
        alternatives = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        chosen, value = _choose(value, alternatives)
        if chosen is None:
            return self._wrong(value, alternatives, extra, path)
        kind, inner = _unwrap(chosen)
        extra = cast("Extra", {**extra, **inner})
        if isinstance(kind, inspect.StructType):
            return self.struct(value, kind, path)
        if isinstance(kind, inspect.DictType):
            return self._table(value, kind, path)
        if isinstance(kind, inspect.ListType):
            return self._list(value, kind, path)
        return self._scalar(value, kind, alternatives, extra, path)

    def struct(self, value: Mapping[str, Any], kind: inspect.StructType, path: Path, *, outermost: bool = False) -> Any:
        """A table with known keys."""
        fields = {each.encode_name: each for each in kind.fields}
        good = {}
        for key, inner in value.items():
            if key in fields:
                checked = self.value(inner, fields[key].type, (*path, key))
                if checked is not _BAD:
                    good[key] = checked
            else:
                known = [name for name, each in fields.items() if "later" not in _unwrap(each.type)[1]]
                hint = meant(key, fields)
                self._refuse(
                    (*path, key), f'unknown key "{key}"', hint or f"known here: {listed(known, 'and')}", at="key"
                )
        whole = True
        for name, each in fields.items():
            if each.required and name not in value:
                self._findings.add("error", self._source, path, f'the key "{name}" is missing', remedy=_what_for(each))
                whole = False
            elif each.required and name not in good:
                whole = False
        if whole or outermost:
            return good
        self.spoiled.add(path)
        return _BAD

    def _table(self, value: Mapping[str, Any], kind: inspect.DictType, path: Path) -> Any:
        """A table whose keys are names."""
        key_kind, extra = _unwrap(kind.key_type)
        if len(value) < (kind.min_length or 0):
            return self._refuse(path, "is empty", "name at least one")
        good = {}
        for key, inner in value.items():
            complaint = _unfit(key, extra)
            if complaint is not None:
                self._refuse((*path, key), complaint, None, at="key")
                continue
            checked = self.value(inner, kind.value_type, (*path, key))
            if checked is not _BAD:
                good[key] = checked
        return good

    def _list(self, value: list[Any], kind: inspect.ListType, path: Path) -> Any:
        if len(value) < (kind.min_length or 0):
            return self._refuse(path, "is an empty list", "leave it out, or name at least one")
        checked = [self.value(inner, kind.item_type, (*path, index)) for index, inner in enumerate(value)]
        if any(inner is _BAD for inner in checked):
            self.spoiled.add(path)
            return _BAD
        return checked

    def _scalar(
        self, value: Any, kind: inspect.Type, alternatives: tuple[inspect.Type, ...], extra: Extra, path: Path
    ) -> Any:
        if isinstance(kind, inspect.LiteralType):
            return value if value in kind.values else self._wrong(value, alternatives, extra, path)
        if isinstance(kind, inspect.StrType):
            complaint = _unfit(value, extra)
            return str(value) if complaint is None else self._refuse(path, complaint, None)
        if isinstance(kind, inspect.IntType | inspect.FloatType):
            complaint = _out_of_bounds(value, kind)
            return value if complaint is None else self._refuse(path, complaint, None)
        return value

    def _wrong(self, value: Any, alternatives: tuple[inspect.Type, ...], extra: Extra, path: Path) -> Any:
        """A value of a type, or a word, that does not belong here."""
        allowed = _allowed_words(alternatives, extra)
        words = extra.get("words", {})
        word = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else None
        hint = None
        if word is not None and allowed:
            better = words.get(word.lower()) or words.get(word) or nearest(word, allowed)
            hint = f'did you mean "{better}"?' if better else None
        elif isinstance(value, int | float) and not isinstance(value, bool) and any(map(_is_string, alternatives)):
            hint = f'put it in quotes: "{value}"'
        elif isinstance(value, str) and not isinstance(value, Interpolated) and _is_plain_number(value, alternatives):
            hint = f"without quotes: {value}"
        quiet = extra.get("quiet", False)
        found = _kind_of(value) if quiet or not isinstance(value, str | bool | int | float) else show(value)
        return self._refuse(path, f"expected {_expected(alternatives, extra)}, found {found}", hint)

    def _refuse(self, path: Path, message: str, remedy: str | None, *, at: str = "value") -> Any:
        self._findings.add("error", self._source, path, message, remedy=remedy, at="key" if at == "key" else "value")
        self.spoiled.add(path)
        return _BAD


def _unwrap(kind: inspect.Type) -> tuple[inspect.Type, Extra]:
    """The type without its annotation, and what the annotation tells us. Optional keys lose their "unset" half."""
    extra: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata):
        extra = {**(kind.extra or {}), **extra}
        kind = kind.type
    return kind, cast("Extra", extra)


def _later(value: Any, extra: Extra) -> tuple[str, str] | None:
    """Message and remedy where the key or its value comes with a later version."""
    if "later" in extra:
        return "not supported yet", extra["later"]
    if not isinstance(value, str):
        return None
    if value in extra.get("later_values", {}):
        return f'not supported yet: "{value}"', extra["later_values"][value]
    if "later_unless" in extra and value != extra["later_unless"][0]:
        return f"not supported yet: {show(value)}", extra["later_unless"][1]
    return None


def _choose(value: Any, alternatives: tuple[inspect.Type, ...]) -> tuple[inspect.Type | None, Any]:
    """The one of `alternatives` that is meant by `value`, and the value as that type has it."""
    kinds = {type(_unwrap(each)[0]): each for each in alternatives}
    if inspect.AnyType in kinds:
        return kinds[inspect.AnyType], value
    if isinstance(value, Interpolated) and not {inspect.StrType, inspect.LiteralType} & set(kinds):
        value = _from_text(value, kinds)
    wanted: tuple[type, ...] = ()
    if isinstance(value, bool):
        wanted = (inspect.BoolType,)
    elif isinstance(value, str):
        wanted = (inspect.LiteralType, inspect.StrType)
    elif isinstance(value, int):
        wanted = (inspect.IntType, inspect.FloatType)
    elif isinstance(value, float):
        if inspect.FloatType not in kinds and inspect.IntType in kinds and value.is_integer():
            return kinds[inspect.IntType], int(value)
        wanted = (inspect.FloatType,)
    elif isinstance(value, list):
        wanted = (inspect.ListType,)
    elif isinstance(value, dict):
        wanted = (inspect.StructType, inspect.DictType)
    for each in wanted:
        if each in kinds:
            return kinds[each], value
    return None, value


def _from_text(value: Interpolated, kinds: Mapping[type, inspect.Type]) -> Any:
    """What the environment gave, as the number or boolean that is expected; itself when it is none."""
    if inspect.BoolType in kinds and value in {"true", "false"}:
        return value == "true"
    if inspect.IntType in kinds and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return int(value)
    if inspect.FloatType in kinds and re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", value):
        return float(value)
    return value


def _unfit(value: str, extra: Extra) -> str | None:
    """Why the string does not fit its pattern; None when it does."""
    pattern = extra.get("pattern")
    if pattern is None or re.fullmatch(pattern, value):
        return None
    sentence = extra["explain"](value)
    return sentence if extra.get("quiet") or sentence.startswith('"') else f"{show(value)}: {sentence}"


def _out_of_bounds(value: float, kind: inspect.IntType | inspect.FloatType) -> str | None:
    if not math.isfinite(value):
        return f"{value} is no finite number"
    if kind.ge is not None and value < kind.ge:
        return f"{value} is too small; at least {kind.ge:g}"
    if kind.gt is not None and value <= kind.gt:
        return f"{value} is too small; more than {kind.gt:g}"
    if kind.le is not None and value > kind.le:
        return f"{value} is too large; at most {kind.le:,}"
    return None


def _allowed_words(alternatives: tuple[inspect.Type, ...], extra: Extra) -> list[str]:
    """The words that may stand here in this version."""
    words: list[str] = []
    for each in alternatives:
        kind, _ = _unwrap(each)
        if isinstance(kind, inspect.LiteralType):
            words += [str(word) for word in kind.values if word not in extra.get("later_values", {})]
    return words


def _expected(alternatives: tuple[inspect.Type, ...], extra: Extra) -> str:
    """The types that may stand here, in words."""
    says = []
    for each in alternatives:
        kind, _ = _unwrap(each)
        if isinstance(kind, inspect.LiteralType):
            says += [f'"{word}"' for word in _allowed_words((kind,), extra)]
        elif isinstance(kind, inspect.ListType):
            item, _ = _unwrap(kind.item_type)
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


def _kind_of(value: Any) -> str:
    """What a value is, in words."""
    for kind, name in ((bool, "true or false"), (str, "a string"), (int, "a whole number"), (float, "a number")):
        if isinstance(value, kind):
            return name
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"a {type(value).__name__}"


def _is_string(kind: inspect.Type) -> bool:
    return isinstance(_unwrap(kind)[0], inspect.StrType)


def _is_plain_number(value: str, alternatives: tuple[inspect.Type, ...]) -> bool:
    numbers = any(isinstance(_unwrap(each)[0], inspect.IntType | inspect.FloatType) for each in alternatives)
    return numbers and re.fullmatch(r"[0-9]{1,18}(\.[0-9]+)?", value) is not None


def _what_for(each: inspect.Field) -> str | None:
    kind = each.type
    schema = kind.extra_json_schema if isinstance(kind, inspect.Metadata) else None
    description = (schema or {}).get("description")
    return f"{each.encode_name}: {description}" if description else None
