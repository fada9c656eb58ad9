"""The runner with its bridge broken on purpose: what a dead program leaves unanswered is forgotten, not sent again.

The negative control of the kill harness: run in place of `python -m runner`, the harness must report a loss. The
ledger is made to lie as well (`forgotten` messages count as acknowledged), so nothing but the sink's file tells.
`PATCHES` are what is broken: (module, owner, name, replacement made from the original).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

Replacement = Callable[[Any], Any]


def forget(_original: Any) -> Any:
    """`Inlet.give_back` that gives nothing back."""

    def give_back(_inlet: Any, pieces: Any) -> None:
        for piece in pieces:
            piece.reader.account.acknowledged += piece.batch.count

    return give_back


PATCHES: tuple[tuple[str, str, str, Replacement], ...] = (("runner.bridge.inlet", "Inlet", "give_back", forget),)


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
