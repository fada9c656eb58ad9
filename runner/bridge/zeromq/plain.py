"""Contract `stream` over ZeroMQ: what the program reads comes to its PULL socket, what it writes from its PUSH socket.

A message is one ZeroMQ message of one part. What was written into the connection is the program's: at its death nobody
knows what it made of that. What was not, the message that was cut in two among it, goes to the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from runner.bridge.collector import Collector
from runner.bridge.feeder import StreamFeeder
from runner.bridge.inlet import Inlet
from runner.bridge.outlet import Delivery
from runner.bridge.zeromq.endpoint import Endpoint
from runner.bridge.zeromq.intake import SocketIntake
from runner.bridge.zeromq.spout import SocketSpout
from runner.codec.zeromq import ZEROMQ, ZeromqDecoder
from runner.errors import RunnerError
from runner.protocol.zmtp import PeerError, Splitter, pong

Note = Callable[[str], None]

_END = b"\0\0"
_READ_BYTES = 64 << 10
_LOOK_FIRST_S = 0.001
_LOOK_LAST_S = 0.1


class PullFeeder(SocketSpout, StreamFeeder):
    """Channel to the program's PULL socket. `says_end`: an empty message is its end, else somebody has to tell it.

    `input_ended` comes true when all is in the hands of the program's process, and not of the kernel.
    """

    def __init__(
        self, inlet: Inlet, *, on_progress: Callable[[], None], note: Note, says_end: bool, size_bytes: int
    ) -> None:
        super().__init__(-1, inlet, on_progress=on_progress)
        self.endpoint = Endpoint(inlet.port, ours=b"PUSH", theirs=b"PULL", taker=self, note=note, size_bytes=size_bytes)
        self._says_end = says_end
        self._ending = False
        self._splitter = Splitter()

    def link(self, descriptor: int, rest: bytes) -> None:
        """See `Taker`."""
        self._connected(descriptor)
        self._splitter = Splitter()
        self._loop.add_reader(descriptor, self._readable)
        if self._ending and self._says_end:
            self._rest, self.input_closed = [_END], False  # whoever comes back would wait for it
        if rest:
            self._heard(rest)
        self.wake()

    def nobody_came(self) -> None:
        """See `Taker`."""

    def wake(self) -> None:
        """See `Spout`. Whoever is not there can still be told by a signal that nothing comes."""
        super().wake()
        if self._flowing and self._descriptor < 0 and not (self._says_end or self._rest) and self.inlet.ended:
            self._close_input()

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionResetError:
            data = b""
        if data:
            self._heard(data)
        else:
            self._lost()

    def _heard(self, data: bytes) -> None:
        """A PULL socket has nothing to say, but its library may ask whether we are there."""
        try:
            for _ in self._splitter.feed(data):
                pass
        except PeerError:
            self._lost()
            return
        self.answer(self._splitter.pongs)

    def _closed_by_program(self) -> None:
        self._lost()

    def _lost(self) -> None:
        self._disconnected()
        self._rewind()
        self.endpoint.lost()

    def _disconnected(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
        super()._disconnected()

    def _rewind(self) -> None:
        """Whoever comes next is sent the message that was cut in two, whole, and what comes behind it."""
        self._rest = []
        last = self._held[-1] if self._held else None
        if last is None or self.written_bytes >= last.end:
            return
        codec = self.inlet.codec
        whole, size_bytes = codec.locate(last.batch, max(0, self.written_bytes - last.start))
        self.written_bytes = last.start + size_bytes
        self._rest = list(codec.skip(last.batch, whole)[1].parts)

    def _refill(self) -> bool:
        if not self._ending:
            return super()._refill() or bool(self._rest)  # the end, from `_close_input`
        if self._says_end and not self.input_closed:
            self.input_closed = True
            self._on_progress()
        return False

    def _close_input(self) -> None:
        if self._ending:
            return
        self._ending = True
        if self._says_end:
            self._rest = [_END]
        else:
            self._look_whether_read(_LOOK_FIRST_S)

    def _look_whether_read(self, next_s: float) -> None:
        """The kernel does not say when it has nothing left: look now and then."""
        if self._stopped:
            return
        if self.unread_bytes or self._rest:
            self._loop.call_later(next_s, self._look_whether_read, min(_LOOK_LAST_S, 2 * next_s))
            return
        self.input_closed = True
        self._on_progress()

    def stop(self) -> None:
        """See `Spout`."""
        self.endpoint.close()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
        super().stop()


class PushCollector(SocketIntake, Collector):
    """The program's PUSH socket to channels. `skip` as in `Collector`."""

    def __init__(
        self,
        delivery: Delivery,
        *,
        port: str,
        max_message_bytes: int,
        skip: int,
        note: Note,
        on_error: Callable[[RunnerError], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(
            -1,
            ZEROMQ,
            delivery,
            port=port,
            max_message_bytes=max_message_bytes,
            skip=skip,
            on_error=on_error,
            on_end=on_end,
        )
        self._most_bytes = max_message_bytes
        self.endpoint = Endpoint(port, ours=b"PULL", theirs=b"PUSH", taker=self, note=note, size_bytes=_READ_BYTES)

    def _take(self, data: bytes) -> bool:
        taken = super()._take(data)
        decoder = self._decoder
        assert isinstance(decoder, ZeromqDecoder)
        if decoder.pings:
            answers = b"".join(filter(None, map(pong, decoder.pings)))
            decoder.pings.clear()
            if taken and answers:
                self._answer(answers)
        return taken

    def _answer(self, answers: bytes) -> None:
        try:
            os.write(self._descriptor, answers)
        except OSError:
            return  # who does not read gets no answer

    def _unlink(self) -> None:
        super()._unlink()
        self._decoder = ZEROMQ.decoder(self._most_bytes)
