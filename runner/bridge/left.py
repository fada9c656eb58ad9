"""What a run of a program left of its input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InputLeft:
    """See the module.

    `ended`: it was given the end of its input and had read everything before. `unread` counts messages, the torn one
    included. `unanswered` counts messages it had read whole and not answered (one-to-one; else 0), the first of which
    `first_unanswered` names; `touched` counts the torn one as well.
    """

    ended: bool
    unread: int
    consumed: int
    unanswered: int = 0
    first_unanswered: str = ""
    touched: int = 0
