"""The runner broken on purpose, in one of WAYS: `python broken.py WAY run …` in place of `python -m runner run …`.

The negative controls of the kill suites: each way must be caught, every time. The ledger, which would tell of most of
them at once, is switched off, so that the sinks and the store have to.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runner.protocol.frames import Out

LATER_S = 0.4
Replacement = Callable[[Any], Any]


def _forgets(_original: Any) -> Any:
    """`Inlet.give_back`: what a dead program leaves unanswered is forgotten, not sent again."""

    def give_back(_inlet: Any, pieces: Any, **_: Any) -> None:
        for piece in pieces:
            piece.reader.acknowledge(piece.number, piece.batch.count)

    return give_back


def _overtakes(original: Any) -> Any:
    """`Inlet.give_back`: what comes back comes late, and other messages before it."""

    def give_back(inlet: Any, pieces: Any, **more: Any) -> None:
        asyncio.get_running_loop().call_later(LATER_S, partial(original, inlet, list(pieces), **more))

    return give_back


def _repeats(original: Any) -> Any:
    """`OneToOneFeeder._account`: what a dead program has answered already is sent again as well."""

    def account(feeder: Any, unread: int) -> Any:
        for piece in feeder._pending:
            piece.reader.account.acknowledged -= piece.answered
            piece.answered = 0
        return original(feeder, unread)

    return account


def _lets_out(original: Any) -> Any:
    """`Exchange._handle`: an output leaves at once, and not with its `ack`."""

    def handle(exchange: Any, frames: list[Any]) -> None:
        for out in (frame for frame in frames if isinstance(frame, Out)):
            exchange.committer.commit([out], [], None, exchange._confirm)
        original(exchange, [frame for frame in frames if not isinstance(frame, Out)])

    return handle


def _says_nothing(_original: Any) -> Any:
    """`Run._wrong`: the ledger is in order, whatever is in it."""
    return lambda *_: []


def _cursor_later(original: Any) -> Any:
    """`DurableReader.acknowledge`: an answer is committed before what it answers is."""

    def acknowledge(reader: Any, number: int, messages: int) -> None:
        asyncio.get_running_loop().call_later(LATER_S, original, reader, number, messages)

    return acknowledge


def _cursor_first(original: Any) -> Any:
    """`AnswerDelivery._publish`: what is answered is committed before its answer is."""

    def publish(delivery: Any, batch: Any) -> None:
        asyncio.get_running_loop().call_later(LATER_S, original, delivery, batch)

    return publish


@dataclass(frozen=True)
class Way:
    """What is broken: `name` of `owner` in `module` is replaced."""

    module: str
    owner: str
    name: str
    replacement: Replacement

    def break_it(self) -> None:
        """Put the replacement in place; a name that is not there any more is an error."""
        owner = getattr(importlib.import_module(self.module), self.owner)
        setattr(owner, self.name, self.replacement(getattr(owner, self.name)))


WAYS = {
    "forgets": Way("runner.bridge.inlet", "Inlet", "give_back", _forgets),
    "overtakes": Way("runner.bridge.inlet", "Inlet", "give_back", _overtakes),
    "repeats": Way("runner.bridge.answers", "OneToOneFeeder", "_account", _repeats),
    "lets-out": Way("runner.bridge.exchange", "Exchange", "_handle", _lets_out),
    "cursor-later": Way("runner.channel.durable", "DurableReader", "acknowledge", _cursor_later),
    "cursor-first": Way("runner.bridge.answers", "AnswerDelivery", "_publish", _cursor_first),
}

LEDGER = Way("runner.supervise.run", "Run", "_wrong", _says_nothing)


def broken(way: str) -> tuple[str, ...]:
    """The command of a runner that is broken in this way."""
    assert way in WAYS
    return (sys.executable, str(Path(__file__)), way)


def main() -> None:
    """Break the runner, then run it."""
    for way in (LEDGER, WAYS[sys.argv.pop(1)]):
        way.break_it()
    cli = importlib.import_module("runner.cli")
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
