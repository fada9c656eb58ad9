"""Holds a raw document against its struct and finds every error at once.

msgspec itself stops at the first error. This walk is driven by `msgspec.inspect`, so a new key in
`runner.spec.document` needs nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, cast

from msgspec import Struct, inspect

from runner.spec.findings import Findings, Source, listed, show
from runner.spec.interpolate import Interpolated
from runner.spec.kinds import (
    allowed_words,
    choose,
    expected,
    is_plain_number,
    is_string,
    kind_of,
    later,
    out_of_bounds,
    unfit,
    unwrap,
    what_for,
)
from runner.spec.scanner import Path
from runner.spec.values import Extra
from runner.spec.words import meant, nearest


class Walked(Struct, frozen=True):
    """What is good of a document, and the paths of what is not.

    `spoiled` has the path of each key or element that was left out of `data`, unknown keys included.
    """

    data: dict[str, Any]
    spoiled: frozenset[Path] = frozenset()

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
        kind, extra = unwrap(kind)
        refusal = later(value, extra)
        if refusal is not None:
            return self._refuse(path, *refusal, at="key" if "later" in extra else "value")
        alternatives = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        chosen, value = choose(value, alternatives)
        if chosen is None:
            return self._wrong(value, alternatives, extra, path)
        kind, inner = unwrap(chosen)
        extra = cast("Extra", {**extra, **inner})
        match kind:
            case inspect.StructType():
                good = self.struct(value, kind, path)
            case inspect.DictType():
                good = self._table(value, kind, path)
            case inspect.ListType():
                good = self._list(value, kind, path)
            case _:
                good = self._scalar(value, kind, alternatives, extra, path)
        return good

    def struct(self, value: Mapping[str, Any], kind: inspect.StructType, path: Path, *, outermost: bool = False) -> Any:
        """A table with known keys."""
        fields = {each.encode_name: each for each in kind.fields}
        good = {}
        hints = ""
        for key, inner in value.items():
            if key in fields:
                checked = self.value(inner, fields[key].type, (*path, key))
                if checked is not _BAD:
                    good[key] = checked
            else:
                known = [name for name, each in fields.items() if "later" not in unwrap(each.type)[1]]
                others = (
                    f"known here: {listed(known, 'and')}" if len(known) <= 8 else '"connector schema" lists the keys'
                )
                hint = meant(key, fields)
                hints += hint or ""
                self._refuse((*path, key), f'unknown key "{key}"', hint or others, at="key")
        whole = True
        for name, each in fields.items():
            if each.required and name not in value and f'"{name}"' not in hints:
                message = f'the key "{name}" is missing'
                self._findings.add("error", self._source, path, message, remedy=what_for(each), at="key")
            whole = whole and (name in good or not each.required)
        if whole or outermost:
            return good
        self.spoiled.add(path)
        return _BAD

    def _table(self, value: Mapping[str, Any], kind: inspect.DictType, path: Path) -> Any:
        """A table whose keys are names."""
        _, extra = unwrap(kind.key_type)
        if len(value) < (kind.min_length or 0):
            return self._refuse(path, "is empty", "name at least one")
        good = {}
        for key, inner in value.items():
            complaint = unfit(key, extra)
            if complaint is not None:
                self._refuse((*path, key), complaint, None, at="key")
                continue
            checked = self.value(inner, kind.value_type, (*path, key))
            if checked is not _BAD:
                good[key] = checked
        if len(good) < (kind.min_length or 0):
            self.spoiled.add(path)
            return _BAD
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
            complaint = unfit(value, extra)
            return str(value) if complaint is None else self._refuse(path, complaint, None)
        if isinstance(kind, inspect.IntType | inspect.FloatType):
            complaint = out_of_bounds(value, kind)
            return value if complaint is None else self._refuse(path, complaint, None)
        return value

    def _wrong(self, value: Any, alternatives: tuple[inspect.Type, ...], extra: Extra, path: Path) -> Any:
        """A value of a type, or a word, that does not belong here."""
        allowed = allowed_words(alternatives, extra)
        words = extra.get("words", {})
        word = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else None
        hint = None
        if word is not None and allowed:
            better = words.get(word.lower()) or words.get(word) or nearest(word, allowed)
            hint = f'did you mean "{better}"?' if better else None
        elif extra.get("quiet"):
            hint = None
        elif isinstance(value, int | float) and not isinstance(value, bool) and any(map(is_string, alternatives)):
            hint = f'put it in quotes: "{value}"'
        elif isinstance(value, str) and not isinstance(value, Interpolated) and is_plain_number(value, alternatives):
            hint = f"without quotes: {value}"
        quiet = extra.get("quiet", False)
        found = kind_of(value) if quiet or not isinstance(value, str | bool | int | float) else show(value)
        return self._refuse(path, f"expected {expected(alternatives, extra)}, found {found}", hint)

    def _refuse(self, path: Path, message: str, remedy: str | None, *, at: str = "value") -> Any:
        self._findings.add("error", self._source, path, message, remedy=remedy, at="key" if at == "key" else "value")
        self.spoiled.add(path)
        return _BAD
