"""What a name of the pipeline file stands for: built in, or brought by an installed package as entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from runner.errors import RunnerError


def plugged(
    name: str,
    built_in: Mapping[str, tuple[str, str]],
    group: str,
    *,
    what: str,
    those: str,
    check: Callable[[Any], bool] | None = None,
) -> Any:
    """The object of that name: of `built_in` (module and attribute by name), else of the entry points of `group`.

    Raises RunnerError when there is none, when it cannot be loaded, or when `check` says that a package brought
    something else; `what` is one of them there and `those` several.
    """
    if name in built_in:
        module, attribute = built_in[name]
        return getattr(import_module(module), attribute)
    from importlib.metadata import entry_points  # 20 ms that what is built in does not need

    found = entry_points(group=group)
    if name not in found.names:
        known = ", ".join(f'"{each}"' for each in sorted({*built_in, *found.names}))
        raise RunnerError(f'there is no {what} "{name}"', remedy=f"known {those}: {known}")
    try:
        loaded = found[name].load()
    except Exception as error:
        raise RunnerError(
            f'the {what} "{name}" cannot be loaded from {found[name].value}: {error}',
            remedy="install the package again, or ask those who make it",
        ) from error
    if check is not None and not check(loaded):
        raise RunnerError(f'{found[name].value} is not a {what} of the name "{name}"')
    return loaded
