"""A listening address: whoever comes is counted from when he is accepted, and what all of them hold is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Any

from runner.channel import tls
from runner.channel.link.reasons import reason
from runner.channel.link.transport import cannot_listen
from runner.channel.plain.base import Host
from runner.channel.plain.line import Line, Make
from runner.spec.model import Network
from runner.units import format_size

_LOOK_AGAIN_S = 0.25
_BACKLOG = 64
_SPARE_BYTES = 256 << 10
_GONE_AGAIN = {errno.ECONNABORTED, errno.EPROTO}


class Visitor(Line):
    """Somebody who came. `busy`: he waits for us, so that his silence is no fault of his."""

    def __init__(self, door: Door, make: Make, *, busy: bool) -> None:
        super().__init__(make)
        self.busy = busy
        self.heard_s = asyncio.get_running_loop().time()
        self.held_bytes = 0
        self.pending: Callable[[bytes], int] | None = None
        """Told of all that comes, it says how much is no whole message; None: all is, until `hold` says otherwise."""
        self._door = door
        self._deadline: asyncio.TimerHandle | None = None

    def expect(self, within_s: float | None, why: str = "") -> None:
        """Cut the connection for `why`, unless this is called again within that time (None: whenever)."""
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = None if within_s is None else loop.call_later(within_s, self.cut, why)

    def cut(self, why: str) -> None:
        """End the connection at once: it has come to a bound."""
        self.why = why
        self._door.host.hit(why, self.remote)
        self.hold(0)
        self.abort()

    def hold(self, held_bytes: int) -> None:
        """So many bytes of what he sent are no whole message yet; nothing is held of who has gone."""
        if self.lost.is_set():
            held_bytes = 0
        self._door.held_bytes += held_bytes - self.held_bytes
        self.held_bytes = held_bytes

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._door.came(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self.heard_s = asyncio.get_running_loop().time()
        held_bytes = self.held_bytes + len(data) if self.pending is None else self.pending(data)
        if self.pending is None and held_bytes > self._door.most_message_bytes + _SPARE_BYTES:
            held_bytes = len(data)  # no message is so long: it was something else
        self.hold(held_bytes)
        if self._door.held_bytes > self._door.most_held_bytes:
            self._door.free()
        if self.transport is not None and not self.transport.is_closing():
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self.expect(None)
        self.hold(0)
        self._door.went(self)


class Door:
    """See the module. `busy`: visitors wait for us unless somebody says otherwise."""

    def __init__(self, network: Network, host: Host, *, address: str, busy: bool) -> None:
        self.host = host
        self.held_bytes = 0
        self.most_message_bytes = max(network.max_message_bytes, host.bounds.request_bytes)
        self.most_held_bytes = host.bounds.most_held_bytes(network.max_message_bytes)
        self._address = address
        self._busy = busy
        self._where = (network.host or "127.0.0.1", network.port)
        self._tls = None if network.tls is None else tls.listening(network.tls)
        self._visitors: set[Visitor] = set()
        """All who came and have not gone; those who shake hands among them."""
        self._first_s: float | None = None
        self._refusal = b""

    async def serve(self, make: Make, *, first_s: float | None = None, refusal: bytes = b"") -> None:
        """Give everybody who comes a protocol that `make` makes, for ever.

        Who does not make the protocol call `Visitor.expect` within `first_s` is let go; who finds no place is told
        `refusal`. Raises RunnerError for an address that can never be listened at.
        """
        self._first_s, self._refusal = first_s, refusal
        sockets = await self._listening()
        self.host.listening(sockets[0].getsockname()[1])
        self.host.tell("nobody has come yet")
        try:
            async with asyncio.TaskGroup() as group:
                for each in sockets:
                    group.create_task(self._accept(each, make, group))
        finally:
            for each in sockets:
                each.close()

    def close(self) -> None:
        """End what connections there still are."""
        for visitor in list(self._visitors):
            visitor.abort()

    def came(self, visitor: Visitor) -> None:
        """A visitor can speak."""
        if self._first_s is not None:
            visitor.expect(self._first_s, f"is let go: he asked for nothing within {self._first_s:g} s")

    def went(self, visitor: Visitor) -> None:
        """A visitor is connected no more."""
        self._visitors.discard(visitor)

    def free(self) -> None:
        """Too much is held: who holds most is let go."""
        largest = max(self._visitors, key=lambda visitor: visitor.held_bytes)
        most = format_size(self.most_held_bytes)
        largest.cut(f"is let go: together they have sent {most} that are no whole messages, and he the most")

    # -- accepting

    async def _accept(self, listening: socket.socket, make: Make, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno not in _GONE_AGAIN:  # as too many open files
                    self.host.hit(f"cannot be let in: {reason(error)}")
                    await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            if len(self._visitors) >= self.host.bounds.peers and not self._made_room():
                self.host.hit(f"is turned away: {self.host.bounds.peers} are connected", address[0])
                self._refuse(connection)
                continue
            visitor = Visitor(self, make, busy=self._busy)
            self._visitors.add(visitor)
            group.create_task(self._let_in(connection, address, visitor))

    async def _let_in(self, connection: socket.socket, address: Any, visitor: Visitor) -> None:
        """Until the connection can be spoken on."""
        bounds = self.host.bounds
        with_tls = {"ssl_handshake_timeout": bounds.handshake_s, "ssl_shutdown_timeout": bounds.close_s}
        tls.accepted.set(connection)  # of this task and what it calls
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: visitor,
                connection,
                ssl=self._tls,
                **(with_tls if self._tls is not None else {}),
            )
        except OSError as error:
            connection.close()
            self.host.hit(f"cannot be let in: {reason(error)}", address[0])
        finally:
            if visitor.transport is None:
                self.went(visitor)

    def _made_room(self) -> bool:
        """Whether somebody was let go who has been silent for long."""
        silent_s = self.host.bounds.silent_s
        latest_s = asyncio.get_running_loop().time() - silent_s
        silent = [each for each in self._visitors if each.transport and not each.busy and each.heard_s <= latest_s]
        if not silent:
            return False
        longest = min(silent, key=lambda visitor: visitor.heard_s)
        longest.cut(f"is let go: he was silent for {silent_s:g} s, and all places were taken")
        self.went(longest)
        return True

    def _refuse(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._refusal and self._tls is None:
                connection.send(self._refusal)
        connection.close()

    # -- listening

    async def _listening(self) -> list[socket.socket]:
        """The sockets, once their address is free."""
        while True:
            try:
                return await self._bound()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # whoever has it may go
                    raise cannot_listen(self._address, reason(error)) from error
            self.host.tell("somebody else listens there")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _bound(self) -> list[socket.socket]:
        name, port = self._where
        found = await asyncio.get_running_loop().getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        bound: list[socket.socket] = []
        missing: OSError | None = None
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                if not port and bound:  # the one that was free at the first address
                    address = (address[0], bound[0].getsockname()[1], *address[2:])  # noqa: PLW2901
                try:
                    bound.append(_listener(family, kind, protocol, address))
                except OSError as error:
                    if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                        raise
                    missing = error  # a name may stand for ::1 as well, on a machine that has none
        except BaseException:
            for each in bound:
                each.close()
            raise
        if not bound:
            raise missing or OSError(errno.EADDRNOTAVAIL, "it has no address")
        return bound


def _listener(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)  # noqa: FBT003 - positional only
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
