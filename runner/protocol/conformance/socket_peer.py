"""The same as `Peer`, over a DEALER socket of the program."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runner.protocol.conformance.peer import Peer, Wrong, started
from runner.protocol.wire import ZEROMQ
from runner.protocol.zmtp import GREETING, Handshake, PeerError

_STDERR = 2


class SocketPeer(Peer):
    """See the module. Its stdout is its log, and goes where stderr does."""

    wire = ZEROMQ

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        self._folder = tempfile.TemporaryDirectory(prefix="connector-kit-")
        path = str(Path(self._folder.name, "endpoint"))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._handshake = Handshake(b"DEALER", b"DEALER")
        self._connected = False
        self._exited = -1
        process = started(command, {"CONNECTOR_ENDPOINT": f"ipc://{path}"}, stdin=subprocess.DEVNULL, stdout=_STDERR)
        self._exited = os.pidfd_open(process.pid)
        return process

    def _close(self) -> None:
        super()._close()
        self._listener.close()
        self._folder.cleanup()
        os.close(self._exited)

    def _awaited(self) -> select.poll:
        poll = select.poll()
        if not self._connected:
            poll.register(self._listener, select.POLLIN)
            poll.register(self._exited, select.POLLIN)
        elif not self._ended:
            wanted = select.POLLIN | (select.POLLOUT if self._unsent and self._handshake.done else 0)
            poll.register(self._output, wanted)
        return poll

    def _look_at(self, descriptor: int) -> None:
        if descriptor == self._exited:
            self._ended = True
        elif descriptor == self._listener.fileno():
            connection, _ = self._listener.accept()
            connection.setblocking(False)  # noqa: FBT003 - the library's own shape
            connection.send(GREETING)
            self._connected = True
            self._output = connection.detach()
            self._input = os.dup(self._output)
        else:
            self._read()

    def _take(self, data: bytes) -> None:
        handshake = self._handshake
        if data and not handshake.done:
            try:
                os.write(self._output, handshake.feed(data))
            except PeerError as error:
                raise Wrong(f"its connection is of no use: {error}") from error
            data = handshake.rest
            if not data or not handshake.done:
                return
        super()._take(data)
