"""What is allowed when: one session with one running program, seen from the runner."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum

from runner.protocol import encoder
from runner.protocol.deliveries import Deliveries
from runner.protocol.errors import ProtocolError
from runner.protocol.frames import VERSION, Ack, Buffer, End, Frame, Log, Nack, Out, Pong, Ready, State
from runner.protocol.wire import STDIO, FrameDecoder, Wire


class Phase(Enum):
    """The states of a session, as in the table of docs/protocol.md."""

    OPENING = "opening"
    """The program runs and has not said `ready`."""
    OPEN = "open"
    ENDING = "ending"
    """The runner has said its last `end`; nothing is in flight."""
    ENDED = "ended"
    """The processor has said `end`."""


class Session:
    """Checks what comes in, makes what goes out. Uncommitted outputs are the caller's to keep.

    `no_states` says why this program may not be stateful; None: it may. `wire` is how frames are carried.
    """

    def __init__(
        self,
        *,
        reads: Collection[str],
        writes: Collection[str],
        max_payload_bytes: int,
        no_states: str | None = None,
        wire: Wire = STDIO,
    ) -> None:
        self.phase = Phase.OPENING
        self.stateful = False
        self.deliveries = Deliveries()
        self.decoder: FrameDecoder = wire.decoder(writes, max_payload_bytes)
        self._wire = wire
        self._writes = writes
        self._max_payload_bytes = max_payload_bytes
        self._reading = set(reads)
        self._no_states = no_states
        self._rescued: list[Frame] = []
        self._checked = 0
        self._states = 0
        self._confirmed = 0
        self._token = 0
        self.waits_for_pong = False

    # -- from the processor

    def receive(self, data: bytes) -> list[Frame]:
        """What was read, as frames that are allowed. Raises ProtocolError; `rescued` has what came before it."""
        late: ProtocolError | None = None
        try:
            found = self.decoder.feed(data)
        except ProtocolError as error:
            found, late = self.decoder.rescued(), error
        self._check(found)
        if late is not None:
            self._rescued = found
            raise late
        return found

    def begin_again(self) -> None:
        """Before `ready`, the program has another connection: what was cut short on the one before is forgotten."""
        assert self.phase is Phase.OPENING
        self.decoder = self._wire.decoder(self._writes, self._max_payload_bytes)

    def rescued(self) -> list[Frame]:
        """The good frames before the error that `receive` raised."""
        return self._rescued

    def finish(self) -> None:
        """Its output has ended, and should have done so between frames. Raises ProtocolError."""
        self.decoder.finish()

    def _check(self, found: list[Frame]) -> None:
        deliveries = self.deliveries
        for index, frame in enumerate(found):
            if type(frame) is Out and (self.phase is Phase.OPEN or self.phase is Phase.ENDING):
                if frame.delivery == 0 or deliveries.is_open(frame.delivery):
                    continue
                wrong = ("not-in-flight", f"`out` in answer to message {frame.delivery:,}, {self._why(frame.delivery)}")
            else:
                problem = self._problem(frame)
                if problem is None:
                    continue
                wrong = problem
            self._rescued = found[:index]
            raise ProtocolError(*wrong, frame=self._checked + index + 1)
        self._checked += len(found)

    def _problem(self, frame: Frame) -> tuple[str, str] | None:
        """Take a frame; or (code, what) when it is not allowed now."""
        kind = type(frame).__name__.lower()
        if self.phase is Phase.ENDED:
            return "after-end", f"`{kind}` after `end`"
        if isinstance(frame, Ready):
            return self._open(frame)
        if isinstance(frame, Log):
            return None
        if self.phase is Phase.OPENING:
            return "not-ready", f"`{kind}` before `ready`"
        return self._take(frame)

    def _take(self, frame: Frame) -> tuple[str, str] | None:
        """Take a frame of an open session."""
        match frame:
            case Ack(first, last):
                return self._answer("ack", first, last)
            case Nack(delivery):
                return self._answer("nack", delivery, delivery)
            case State(number):
                return self._state(number)
            case Pong(token):
                if not self.waits_for_pong or token != self._token:
                    return "wrong-pong", f"`pong` {token} answers no ping"
                self.waits_for_pong = False
            case End():
                self.phase = Phase.ENDED
        return None

    def _open(self, frame: Ready) -> tuple[str, str] | None:
        if self.phase is not Phase.OPENING:
            return "twice-ready", "a second `ready`"
        if frame.version != VERSION:
            return "wrong-version", f"it speaks version {frame.version} of the protocol"
        if frame.stateful and self._no_states is not None:
            return "not-stateful", f"it wants to keep state, and may not: {self._no_states}"
        self.phase = Phase.OPEN
        self.stateful = frame.stateful
        return None

    def _answer(self, kind: str, first: int, last: int) -> tuple[str, str] | None:
        if self.stateful and first != self.deliveries.floor + 1 and self.deliveries.is_open(first):
            return "out-of-order", f"`{kind}` of message {first:,}, {self.deliveries.floor + 1:,} is the oldest"
        if self.deliveries.answer(first, last):
            return None
        if first == last:
            return "not-in-flight", f"`{kind}` of message {first:,}, {self._why(first)}"
        return "not-in-flight", f"`{kind}` of messages {first:,} to {last:,}, not all of which are in flight"

    def _state(self, number: int) -> tuple[str, str] | None:
        if not self.stateful:
            return "not-stateful", "`state` in a session that was not opened as stateful"
        if number != self._states + 1:
            return "wrong-state-number", f"state {number:,} comes after state {self._states:,}"
        self._states += 1
        return None

    def _why(self, delivery: int) -> str:
        return "which was never sent" if not 0 < delivery < self.deliveries.next else "which is answered already"

    # -- to the processor: each returns parts to be written in order, payloads not copied

    def opening(self, state: Buffer | None, state_file: str | None = None) -> list[Buffer]:
        """The answer to `ready`, before anything else: the last committed state, if there is one."""
        assert self.phase is Phase.OPEN
        parts = encoder.opening(max_payload_bytes=self._max_payload_bytes, state=state, state_file=state_file)
        return self._wire.pairs(parts)

    def deliver(
        self, payloads: Sequence[Buffer], *, number: int, attempt: int, port: str, channel: str
    ) -> tuple[int, list[Buffer]]:
        """Consecutive messages of a channel (NAME@EPOCH): the delivery number of the first, and the parts."""
        assert self.phase is Phase.OPEN
        first = self.deliveries.add(len(payloads))
        parts = encoder.messages(payloads, delivery=first, number=number, attempt=attempt, port=port, channel=channel)
        return first, self._wire.pairs(parts)

    def end_of(self, port: str) -> list[Buffer]:
        """No new message comes on `port`; what was nacked, or left by another replica, still may."""
        self._reading.remove(port)
        return self._wire.alone(encoder.end(port))

    def end(self) -> list[Buffer]:
        """All ports have ended, nothing is in flight and nothing will come again."""
        assert self.phase is Phase.OPEN
        assert not self._reading
        assert not self.deliveries.in_flight
        self.phase = Phase.ENDING
        return self._wire.alone(encoder.end(None))

    def ping(self) -> list[Buffer]:
        """Only while nothing is in flight, and one at a time."""
        assert not self.waits_for_pong
        self.waits_for_pong = True
        self._token += 1
        return self._wire.alone(encoder.ping(self._token))

    def committed(self, number: int) -> list[Buffer]:
        """All states up to `number`, and what they cover, are committed."""
        assert self._confirmed < number <= self._states
        self._confirmed = number
        return self._wire.alone(encoder.committed(number))
