"""What comes from a ZeroMQ socket of the program."""

from __future__ import annotations

import os

from runner.bridge.intake import Intake
from runner.bridge.zeromq.endpoint import Endpoint


class SocketIntake(Intake):
    """Mixed into an intake whose descriptor is a connection: it comes after a while, may go, and may come again.

    Only once the program has ended is the end of the connection that of the port.
    """

    endpoint: Endpoint

    def __init__(self, *arguments: object, **more: object) -> None:
        super().__init__(*arguments, **more)  # type: ignore[arg-type]  # a mixin passes on what it is given
        self._first = b""
        self._last = False
        self._closed = False

    @property
    def unconnected(self) -> bool:
        """See `Intake`."""
        return self._descriptor < 0 and not self._closed

    def link(self, descriptor: int, rest: bytes) -> None:
        """The connection is there, and ours; `rest` was read from it already."""
        if self._closed:
            os.close(descriptor)
            return
        self._descriptor = descriptor
        self._first = rest
        if self._begun:
            self._start()

    def nobody_came(self) -> None:
        """See `Taker`."""
        if self._last:
            self.close()

    def begin(self) -> None:
        """See `Intake`."""
        if not self._begun:
            self._begun = True
            if self._descriptor >= 0:
                self._start()

    def _start(self) -> None:
        first, self._first = self._first, b""
        self._loop.add_reader(self._descriptor, self._readable)
        if first:
            self._received(first)

    def _at_end(self) -> None:
        if self._last and not self.endpoint.shaking:
            self.close()
            return
        self._unlink()
        self.endpoint.lost()

    def _unlink(self) -> None:
        """The connection has ended, and another may come."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def program_has_ended(self) -> None:
        """See `Intake`."""
        self._last = True
        if self._descriptor < 0 and not self.endpoint.shaking:
            self.close()

    async def read_to_end(self) -> None:
        """See `Intake`."""
        self.program_has_ended()
        await super().read_to_end()

    def close(self) -> None:
        """See `Intake`."""
        if self._closed:
            return
        self._closed = True
        self.endpoint.close()
        if self._descriptor >= 0:
            super().close()
        else:
            self.ended.set()
            self._on_end()
