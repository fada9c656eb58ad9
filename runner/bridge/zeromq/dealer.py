"""Contract `acknowledged` over ZeroMQ: the frames of a session come from and go to one DEALER socket of the program."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from runner.bridge.exchange import Exchange
from runner.bridge.frames import FrameIntake
from runner.bridge.inlet import Inlet
from runner.bridge.step import Committer
from runner.bridge.zeromq.endpoint import Endpoint
from runner.bridge.zeromq.intake import SocketIntake
from runner.bridge.zeromq.plain import Note
from runner.bridge.zeromq.spout import SocketSpout
from runner.errors import RunnerError
from runner.protocol.session import Phase, Session
from runner.protocol.wire import MessageDecoder

GONE_AFTER_S = 1.0
"""A program that has closed its socket in the middle of a session, and does not end, is restarted after that."""


class DealerExchange(SocketSpout, Exchange):
    """See the module and `Exchange`. A session is one connection: what it loses when that ends cannot be told."""

    def __init__(
        self,
        inlets: Mapping[str, Inlet],
        committer: Committer,
        session: Session,
        *,
        note: Note,
        on_error: Callable[[RunnerError], None],
        on_end: Callable[[], None],
        **more: Any,
    ) -> None:
        super().__init__(-1, inlets, committer, session, **more)
        size_bytes = self._window.size_bytes
        self.endpoint = Endpoint(
            "the protocol", ours=b"DEALER", theirs=b"DEALER", taker=self, note=note, size_bytes=size_bytes
        )
        self.intake = DealerIntake(self, on_error=on_error, on_end=on_end)
        self._gone: asyncio.TimerHandle | None = None

    def link(self, descriptor: int, rest: bytes) -> None:
        """See `Taker`."""
        if not self._stopped:
            self._connected(os.dup(descriptor))
        self.intake.link(descriptor, rest)
        self.wake()

    def nobody_came(self) -> None:
        """See `Taker`."""
        self.intake.nobody_came()

    def receive(self, data: bytes) -> None:
        """See `Exchange`."""
        super().receive(data)
        decoder = self._session.decoder
        assert isinstance(decoder, MessageDecoder)
        self.answer(decoder.pongs)

    def lost(self) -> None:
        """The connection has ended, and the program has not, as far as we know."""
        self._disconnected()
        if self._session.phase is Phase.OPENING:
            self._session.begin_again()
            self.endpoint.lost()
        elif not self.said_end and not self._stopped and self._gone is None:
            self._gone = self._loop.call_later(GONE_AFTER_S, self._told.silent, "closed its socket before its `end`")

    def _closed_by_program(self) -> None:
        self._disconnected()  # the rest is told by who reads

    def _close_input(self) -> None:
        self.input_closed = True

    def stop(self) -> None:
        """See `Spout`; who reads may still have to let it in."""
        if self._gone is not None:
            self._gone.cancel()
        super().stop()

    def abandon(self) -> None:
        """See `Spout`."""
        self.endpoint.close()
        super().abandon()


class DealerIntake(SocketIntake, FrameIntake):
    """What the program says."""

    def __init__(
        self, exchange: DealerExchange, *, on_error: Callable[[RunnerError], None], on_end: Callable[[], None]
    ) -> None:
        super().__init__(-1, exchange, on_error=on_error, on_end=on_end)
        self.endpoint = exchange.endpoint
        self._dealer = exchange

    def _at_end(self) -> None:
        if self._last and not self.endpoint.shaking:
            self.close()
            return
        self._unlink()
        self._dealer.lost()
