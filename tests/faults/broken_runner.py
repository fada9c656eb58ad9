"""The runner with its one-to-one bridge broken on purpose: after a death it forgets what was unanswered.

The negative control of the kill harness: run in place of `python -m runner`, the harness must report a loss.
`PATCHES` are what is broken: (module, owner, name, replacement made from the original).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

Replacement = Callable[[Any], Any]
PATCHES: tuple[tuple[str, str, str, Replacement], ...] = ()


def break_it() -> None:
    """Put every replacement in place; a name that is not there any more is an error."""
    for module_name, owner_name, name, replacement in PATCHES:
        owner = getattr(importlib.import_module(module_name), owner_name)
        setattr(owner, name, replacement(getattr(owner, name)))


def main() -> None:
    """Break the runner, then run it."""
    break_it()
    cli = importlib.import_module("runner.cli")
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
