"""Where a ZeroMQ socket of a program connects: a listening unix socket, at which one at a time is let in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

from runner.protocol.zmtp import GREETING, Handshake, PeerError

SHAKE_WITHIN_S = 10.0
"""A peer that has not said what it is by then makes room for another."""
_REFUSED_PAUSE_S = 0.1
"""How long nobody is let in after one who was refused: one who tries again and again costs next to nothing."""
_READ_BYTES = 64 << 10


class Taker(Protocol):
    """Whom the connections are for."""

    def link(self, descriptor: int, rest: bytes) -> None:
        """A socket of the program is there, and `descriptor` is ours to keep; `rest` is what it has sent already."""

    def nobody_came(self) -> None:
        """Who had knocked was refused, or has gone."""


class Endpoint:
    """See the module. `ours` and `theirs` are the socket types; `note` is given a line for the log.

    `size_bytes` bounds what the kernel keeps of what is written. The taker tells `lost` when its connection has ended.
    """

    def __init__(
        self,
        port: str,
        *,
        ours: bytes,
        theirs: bytes,
        taker: Taker,
        note: Callable[[str], None],
        size_bytes: int,
    ) -> None:
        self._port = port
        self._ours = ours
        self._theirs = theirs
        self._taker = taker
        self._note = note
        self._size_bytes = size_bytes
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._peer: socket.socket | None = None
        self._handshake: Handshake | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._noted: set[str] = set()
        self._linked = False

    def listen(self, listener: socket.socket) -> None:
        """Let the program in at `listener`, which is ours from now on."""
        self._listener = listener
        self._loop.add_reader(listener, self._knock)

    @property
    def shaking(self) -> bool:
        """Whether somebody is being let in right now."""
        return self._peer is not None

    def lost(self) -> None:
        """The connection has ended: the next may come."""
        self._linked = False
        self._open_again()

    def close(self) -> None:
        """Let nobody in any more. May be called more than once."""
        self._cancel_timer()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        if self._peer is not None:
            self._loop.remove_reader(self._peer)
            self._peer.close()
            self._peer = None

    def _open_again(self) -> None:
        self._cancel_timer()
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._knock)

    def _knock(self) -> None:
        assert self._listener is not None
        self._loop.remove_reader(self._listener)
        if self._linked:
            self._say("another socket wants to connect, and waits: there is one at a time")
            return
        try:
            peer, _ = self._listener.accept()
        except OSError:  # it has gone again, or there are no descriptors left for now
            self._pause()
            return
        peer.setblocking(False)  # noqa: FBT003 - the library's own shape
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(1, self._size_bytes // 2))
        self._peer, self._handshake = peer, Handshake(self._ours, self._theirs)
        self._timer = self._loop.call_later(SHAKE_WITHIN_S, self._refuse, "it does not say what it is")
        self._loop.add_reader(peer, self._heard)
        self._send(GREETING)

    def _send(self, data: bytes) -> None:
        """A few bytes, which fit, unless the peer has gone or plays games."""
        assert self._peer is not None
        try:
            sent = self._peer.send(data)
        except OSError:
            return  # its end is seen by who reads
        if sent < len(data):
            self._refuse("it does not read")

    def _heard(self) -> None:
        peer, handshake = self._peer, self._handshake
        assert peer is not None
        assert handshake is not None
        try:
            data = peer.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._refuse("it has gone before it was let in" if handshake.begun else None)
            return
        try:
            answer = handshake.feed(data)
        except PeerError as error:
            self._refuse(str(error))
            return
        if answer:
            self._send(answer)
        if handshake.done and self._peer is not None:
            self._let_in(peer, handshake.rest)

    def _let_in(self, peer: socket.socket, rest: bytes) -> None:
        self._loop.remove_reader(peer)
        self._cancel_timer()
        self._peer = self._handshake = None
        self._linked = True
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._knock)
        self._taker.link(peer.detach(), rest)

    def _refuse(self, why: str | None) -> None:
        """Send it away; `why` None: it went by itself."""
        assert self._peer is not None
        self._loop.remove_reader(self._peer)
        self._peer.close()
        self._peer = self._handshake = None
        if why is not None:
            self._say(f"a connection was refused: {why}")
        self._cancel_timer()
        self._pause()
        self._taker.nobody_came()

    def _pause(self) -> None:
        self._timer = self._loop.call_later(_REFUSED_PAUSE_S, self._open_again)

    def _say(self, text: str) -> None:
        if text not in self._noted and len(self._noted) < 16:
            self._noted.add(text)
            self._note(f"zeromq: {self._port}: {text}")

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
