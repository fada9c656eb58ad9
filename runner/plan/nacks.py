"""When a message that its program refuses again and again is set aside. Pure: no clock, no message.

A nack names its message, so nobody has to search. But a program also nacks what fails for want of a database: what
tells the two apart is whether other messages succeed meanwhile, and for how long it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

APART_S = 1.0
"""Nacks of one message count once in so many seconds: what is in the way of one alone is often over soon."""
LONE_APART_S = 10.0
"""The same where nothing else has succeeded since its first nack, and nothing will any more."""
FEW = 3
"""More messages than that which are all refused, with no success since, look like trouble elsewhere."""


@dataclass(frozen=True, slots=True)
class Nacks:
    """So many nacks of one message in a row count; the last of them did at `at_s`, when `answered` had succeeded.

    When it was refused first, `first` messages had succeeded.
    """

    count: int
    at_s: float
    answered: int
    first: int


def after_nack(before: Nacks | None, *, now_s: float, answered: int, left: int | None) -> Nacks:
    """With one nack more. `answered`: how many messages of the processor have been acknowledged and committed by now.

    It counts when another message has been since the last one that counted. `left` None: others may still come to
    that. Else there is nothing but so many messages, each of which has been refused, and nothing will come: then those
    that succeeded after its first nack have to do, or, where few are left, before it.
    """
    if before is None:
        return Nacks(1, now_s, answered, answered)
    apart_s = APART_S
    if left is None:
        counts = answered > before.answered
    elif answered > before.first:
        counts = True
    else:
        counts, apart_s = answered > 0 and left <= FEW, LONE_APART_S
    if not counts or now_s - before.at_s < apart_s:
        return before
    return Nacks(before.count + 1, now_s, answered, before.first)
