"""The runner with a link that soon loses patience: `python hasty.py WAY run …` in place of `python -m runner run …`.

A connection counts as gone after 2 silent seconds in place of 15, so that a thousand half-open connections can be had.
WAY is `whole`, or how the link is broken on purpose: the negative controls of the link's faults. Then the ledger, which
would tell of most at once, is switched off, so that the sink has to.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runner.channel.link import frames, kinds, receiver, tcp, websocket, zeromq
from runner.channel.link.frames import Data, End, Frame, Hello
from runner.channel.link.peer import Timing
from runner.channel.link.receiver import Receiver
from runner.channel.link.sender import Sender
from runner.supervise.run import Run

HASTY = Timing(hello_s=3.0, beat_s=0.5, silent_s=2.0, first_wait_s=0.05, longest_wait_s=0.5)


def hasty(way: str = "whole") -> tuple[str, ...]:
    """The command of a runner that is hasty, and broken in this way."""
    assert way in WAYS
    return (sys.executable, str(Path(__file__)), way)


def _checks_nothing() -> None:
    """Whatever comes is what was sent."""
    frames.checksum = lambda _data, _before: 0  # type: ignore[attr-defined]


def _takes_all() -> None:
    """The reader takes what comes, whatever its number."""
    take = Receiver.take

    def take_(receiver: Receiver, frame: Frame) -> None:
        if isinstance(frame, Data | End):
            receiver._position = replace(receiver._position, number=frame.number - 1)
        take(receiver, frame)

    Receiver.take = take_  # type: ignore[assignment]


def _counts_nothing() -> None:
    """What was not acknowledged is sent again, whatever the other side has, which takes all that comes.

    It acknowledges late, so that there is something at each cut.
    """
    receiver._MOMENT_S = 0.2
    judge = Sender.judge

    def judge_(sender: Sender, theirs: Hello) -> None:
        judge(sender, replace(theirs, received=0, ended=False))

    Sender.judge = judge_  # type: ignore[assignment]
    _takes_all()


def _forgets() -> None:
    """What was not acknowledged when a connection went down is not sent again; the reader does not miss it."""
    judge = Sender.judge

    def judge_(sender: Sender, theirs: Hello) -> None:
        judge(sender, theirs)
        sender._to_send.clear()

    Sender.judge = judge_  # type: ignore[assignment]
    _takes_all()


def _says_nothing(*_: Any) -> list[str]:
    """`Run._wrong`: the ledger is in order, whatever is in it."""
    return []


WAYS: dict[str, Callable[[], None]] = {
    "whole": lambda: None,
    "checks-nothing": _checks_nothing,
    "counts-nothing": _counts_nothing,
    "forgets": _forgets,
}


def main() -> None:
    """Change what is to be changed, then run it."""
    way = sys.argv.pop(1)
    for module in (tcp, websocket):
        module._CONNECT_S = HASTY.hello_s  # type: ignore[attr-defined]
    tcp._HANDSHAKE_S = zeromq._HANDSHAKE_S = HASTY.hello_s
    kinds.link_ends = partial(kinds.link_ends, timing=HASTY)
    WAYS[way]()
    if way != "whole":
        Run._wrong = _says_nothing  # type: ignore[assignment, method-assign]
    sys.exit(importlib.import_module("runner.cli").main())


if __name__ == "__main__":
    main()
