"""Contract `acknowledged`: one session with one run of a program, both directions.

Outputs of a message are held until its `ack`; then they, the acknowledgement and (where the session is stateful) the
state are committed in one step. What is not committed when the program dies is dropped, or handed out again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runner.bridge.handed import EACH_BYTES, Handed, Span, by_reader, returning
from runner.bridge.heartbeat import Beat, Heartbeat
from runner.bridge.inlet import SEVERAL, Inlet, Piece
from runner.bridge.left import InputLeft
from runner.bridge.spout import Spout
from runner.bridge.states import KeptState
from runner.bridge.step import Committer
from runner.bridge.uncommitted import Step, Uncommitted
from runner.channel.base import Reader
from runner.codec.base import Buffer
from runner.errors import CodecError, ContractError
from runner.protocol.errors import ProtocolError
from runner.protocol.frames import Ack, End, Frame, Log, Nack, Out, Pong, Ready, State
from runner.protocol.session import Phase, Session

_TAKE_BYTES = 64 << 10
_JOINED_BYTES = 256 << 10
_NACKED_AGAIN_S = 0.001
_NACKED_LONG_S = 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be handed out and not answered; and (bytes only) answered and not covered by a state."""

    size_bytes: int
    messages: int | None
    uncommitted_bytes: int


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told what: `opened` and `progress` of the session, `log` (level, line) of what is to be logged.

    `silent` says why the program counts as gone. `ended` is called in the step that commits the program's `end`.
    `nacked` is told of a message and the reason given, and says whether that message is set aside.
    """

    progress: Callable[[], None]
    log: Callable[[str, str], None]
    silent: Callable[[str], None]
    ended: Callable[[], None]
    nacked: Callable[[Piece, str], bool]


@dataclass(frozen=True, slots=True)
class Blame:
    """Whose messages these are (the replica `owner`), and how many deaths in a row make them suspect."""

    owner: int = 1
    after: int = 3


class Exchange(Spout):
    """See the module. `inlets` by port; a source has none. Nothing is written before `begin` and the `ready` frame."""

    port = "stdin"

    def __init__(
        self,
        descriptor: int,
        inlets: Mapping[str, Inlet],
        committer: Committer,
        session: Session,
        *,
        state: KeptState,
        state_file: str | None,
        window: Window,
        beat: Beat,
        told: Told,
        blame: Blame,
    ) -> None:
        super().__init__(descriptor)
        self.opened = asyncio.Event()
        self.blamed = False
        """Whether its program died in a way that may be the fault of a message; said before `settle`."""
        self.answered = 0
        self.committed = 0
        """How many messages have been acknowledged, for good."""
        self.pending_bytes = 0
        self.pending_messages = 0
        self.committer = committer
        self._inlets = dict(inlets)
        self._session = session
        self._state = state
        self._state_file = state_file
        self._window = window
        self._told = told
        self._blame = blame
        self._heartbeat = Heartbeat(beat, self._ping, self._excused, told.silent)
        self._handed = Handed()
        self._turn = 0
        self._reading = list(inlets)
        self._to_say: list[Buffer] = []
        self._safe = self._said_safe = 0
        self._window_full = False
        self._uncommitted = Uncommitted(self._name_of)
        self._retried = 0
        """How many messages are in flight that were so at a death: until there are none, nothing new is."""
        self._alone = 0
        """How many of them were so at several deaths."""
        self._settled = False
        for inlet in inlets.values():
            inlet.attach(self)

    # -- to the program

    def begin(self) -> None:
        """See `Spout`; the session is open."""
        self._heartbeat.begin()
        super().begin()

    @property
    def readers(self) -> tuple[Reader, ...]:
        """See `Spout`."""
        return tuple(reader for inlet in self._inlets.values() for reader in inlet.readers)

    @property
    def said_end(self) -> bool:
        """Whether the program has said that nothing more comes from it."""
        return self._session.phase is Phase.ENDED

    @property
    def input_ended(self) -> bool:
        """See `Spout`; there is no end of input that a source could be told of."""
        return self._refused or self._session.phase in {Phase.ENDING, Phase.ENDED} or not self._inlets

    @property
    def starved(self) -> bool:
        """See `Spout`."""
        waiting = self._rest or self.pending_messages or any(each.queued_messages for each in self._inlets.values())
        return bool(self._inlets) and not (self.input_ended or waiting or self.unread_bytes)

    @property
    def window_full(self) -> bool:
        """Whether messages wait because too much is unanswered."""
        return self._window_full and bool(self.pending_messages or self._uncommitted.covered.spans)

    @property
    def done(self) -> bool:
        """Whether all that there was is answered and committed."""
        waiting = self.pending_messages or self._uncommitted.waiting
        return not (waiting or any(inlet.queued_messages for inlet in self._inlets.values()))

    @property
    def only_nacked(self) -> bool:
        """Whether everything that has no outcome yet has been nacked before."""
        return not self._uncommitted.waiting and all(span.given.piece.nacks is not None for span in self._open())

    @property
    def in_flight(self) -> list[tuple[object, int]]:
        """See `Spout`: what is not committed."""
        return by_reader([*self._uncommitted.spans, *self._open()])

    def _refill(self) -> bool:
        if self._session.phase is Phase.OPENING:
            return False
        if self._safe > self._said_safe:
            self._said_safe = self._safe
            self._to_say += self._session.committed(self._safe)
        if not self._to_say and self._session.phase is Phase.OPEN and self._inlets:
            self._to_say = self._messages() or self._ends()
        if self.said_end and not self._to_say:
            self._close_input()
            return False
        self._rest, self._to_say = self._to_say, []
        return bool(self._rest)

    def _messages(self) -> list[Buffer]:
        """The next messages within the window, as frames."""
        found = self._take()
        if found is None:
            return []
        port, inlet, piece = found
        payloads = inlet.codec.payloads(piece.batch)
        number, channel = piece.identity
        first, parts = self._session.deliver(payloads, number=number, attempt=piece.attempt, port=port, channel=channel)
        beside_bytes = list(map(len, parts[::2]))
        self._handed.add(first, inlet, piece, payloads, position=self.written_bytes, beside_bytes=beside_bytes)
        self._retried += piece.batch.count if piece.returns else 0
        self._alone += piece.batch.count if piece.returns >= SEVERAL else 0
        inlet.unanswered += piece.batch.count
        self.pending_messages += piece.batch.count
        self.pending_bytes += sum(map(len, payloads)) + EACH_BYTES * len(payloads)
        return [b"".join(parts)] if piece.batch.size_bytes <= _JOINED_BYTES else parts

    def _take(self) -> tuple[str, Inlet, Piece] | None:
        """The next messages for the program: its ports take turns.

        Nothing new comes before what was in work at a death is answered; what was at several comes one by one. So it
        shows soon who kills a program that has many in work at once, and answers others each time before it dies.
        """
        window, uncommitted = self._window, self._uncommitted
        room_bytes = min(window.size_bytes, window.uncommitted_bytes - uncommitted.covered_bytes) - self.pending_bytes
        room_messages = max(1, room_bytes // EACH_BYTES)
        if window.messages is not None:
            room_messages = min(room_messages, window.messages - self.pending_messages)
        pending = self.pending_messages or uncommitted.covered.spans
        nacked_bytes = sum(inlet.delayed_bytes for inlet in self._inlets.values())
        new = not self._retried and nacked_bytes < window.uncommitted_bytes
        self._window_full = bool(pending) and (room_bytes < window.size_bytes // 4 or room_messages <= 0)
        ports = list(self._inlets)
        for _ in ports if not (self._window_full or self._alone) else ():
            port = ports[self._turn % len(ports)]
            self._turn += 1
            inlet = self._inlets[port]
            alone = inlet.next_returns(self._blame.owner) >= SEVERAL
            piece = None
            if not (alone and self.pending_messages):
                piece = inlet.take(
                    owner=self._blame.owner,
                    most_bytes=max(1, min(room_bytes, _TAKE_BYTES)),
                    most_messages=1 if alone else max(1, room_messages),
                    never_over=room_bytes if pending else None,
                    new=new,
                )
            if piece is not None:
                return port, inlet, piece
            self._window_full = self._window_full or bool(pending and inlet.waiting_for(self._blame.owner))
        return None

    def _ends(self) -> list[Buffer]:
        """The end of each port that has ended, and of all once nothing can come again."""
        parts: list[Buffer] = []
        for port in [port for port in self._reading if self._inlets[port].exhausted]:
            self._reading.remove(port)
            parts += self._session.end_of(port)
        if not self._reading and all(inlet.ended and not inlet.unanswered for inlet in self._inlets.values()):
            parts += self._session.end()
            self._told.progress()
        return parts

    def _ping(self) -> bool:
        """Ask for a sign of life, where the protocol allows it."""
        if self._session.phase is not Phase.OPEN or self.pending_messages or self._refused:
            return False
        if self._session.waits_for_pong:
            return True
        self._to_say += self._session.ping()
        self.wake()
        return True

    def _excused(self) -> bool:
        """Whether nobody reads what it writes for now: that is no silence."""
        return any(outlet.full for outlet in self.committer.outlets)

    # -- from the program

    def receive(self, data: bytes) -> None:
        """What it wrote. Raises ContractError and CodecError, which end its run for good."""
        self._heartbeat.heard()
        try:
            frames = self._session.receive(data)
        except ProtocolError as error:
            self._handle(self._session.rescued())
            raise self._numbered(error) from error
        self._handle(frames)

    def _numbered(self, error: ProtocolError) -> ContractError:
        """`error` with the message that was being answered."""
        return ContractError(f"{error.what}; {self._oldest()}", remedy=error.remedy)

    def _name_of(self, delivery: int) -> str:
        """The message of a delivery."""
        return self._handed.find(delivery, delivery)[0].name()

    def _oldest(self) -> str:
        span = next(iter(self._open()), None)
        return "no message was in flight" if span is None else f"the oldest in flight is {span.name()}"

    def finish(self, *, clean: bool) -> None:
        """The program has ended (`clean`: with exit 0), and all that it wrote is here. Raises ContractError."""
        if clean or self.said_end:
            try:
                self._session.finish()
            except ProtocolError as error:
                raise self._numbered(error) from error

    def _handle(self, frames: list[Frame]) -> None:
        """Take each frame; all that they commit is committed together. Raises ContractError and CodecError."""
        uncommitted, stateful = self._uncommitted, self._session.stateful
        for frame in frames:
            if type(frame) is Out:
                uncommitted.hold(frame, stateful=stateful)
            else:
                self._other(frame)
        if not uncommitted.step.empty:
            self._commit(uncommitted.step)
        self.wake()

    def _other(self, frame: Frame) -> None:
        match frame:
            case Ack(first, last):
                spans = self._answer(first, last)
                self._uncommitted.acknowledge(first, last, spans, stateful=self._session.stateful)
            case State():
                self._uncommitted.cover(frame)
            case Nack():
                self._nack(frame)
            case Ready():
                self._open_session()
            case Log(level, text):
                self._told.log(level, text)
            case Pong():
                self._heartbeat.answered()
            case End():
                self._uncommitted.end()

    def _open_session(self) -> None:
        value = self._state.value if self._session.stateful else None
        state_file = self._state_file if value is not None else None
        self._to_say = [*self._session.opening(value, state_file), *self._to_say]
        self.opened.set()

    def _answer(self, first: int, last: int) -> list[Span]:
        spans = self._handed.answer(first, last)
        for span in spans:
            span.given.inlet.unanswered -= span.count
            self.pending_messages -= span.count
            self.pending_bytes -= span.weight_bytes
            self.answered += span.count
            if span.given.piece.returns:
                self._retried -= span.count
            if span.given.piece.returns >= SEVERAL:
                self._alone -= span.count
        return spans

    def _nack(self, nack: Nack) -> None:
        """It comes again, later each time that it is nacked again; the others do not wait for it."""
        (span,) = self._answer(nack.delivery, nack.delivery)
        self._uncommitted.drop(nack.delivery)
        piece, inlet = span.again(), span.given.inlet
        self._told.log("warning", f"nack of {span.name()}, attempt {span.given.piece.attempt}: {nack.reason}")
        if self._told.nacked(piece, nack.reason):
            inlet.set_aside(piece)
            return
        repeated = piece.attempt - 2
        least_s = min(_NACKED_LONG_S, _NACKED_AGAIN_S * 2.0 ** min(repeated, 20)) if repeated else 0.0
        inlet.give_back_later(piece, max(least_s, nack.delay_ms / 1000))

    def _commit(self, step: Step) -> None:
        try:
            self.committer.commit(step.outputs, step.spans, step.state, self._confirm)
        except CodecError as error:
            raise CodecError(f"{error.what}; {self._answered_by(step)}", remedy=error.remedy) from error
        self._uncommitted.begin_anew()
        for span in step.spans:
            self.committed += span.count
            span.given.inlet.count_answers(span.count)
        if step.ended:
            self._told.ended()
        if self.done:
            self._told.progress()
        for inlet in {id(span.given.inlet): span.given.inlet for span in step.spans}.values():
            if not inlet.unanswered and inlet.ended:
                inlet.wake()  # of all replicas: none gets its end while one of them may leave something

    @staticmethod
    def _answered_by(step: Step) -> str:
        return f"what was being committed begins with {step.spans[0].name()}" if step.spans else "it answers nothing"

    def _confirm(self, number: int) -> None:
        """All states up to this one are safe."""
        self._safe = max(self._safe, number)
        self.wake()

    # -- its end

    def stop(self) -> None:
        """See `Spout`."""
        self._heartbeat.stop()
        for inlet in self._inlets.values():
            inlet.detach(self)
        super().stop()

    def _open(self) -> list[Span]:
        """Everything that is not answered, in the order in which it was handed out."""
        ranges = self._session.deliveries.unanswered() if not self._settled else ()
        return [span for first, last in ranges for span in self._handed.find(first, last)]

    def settle(self) -> InputLeft:
        """See `Spout`: whatever is not committed comes again, to whoever is next."""
        unanswered = self._open()
        read_bytes = self.written_bytes - min(self._left_bytes, self.written_bytes)
        begun, unread = returning(self._uncommitted.spans, unanswered, read_bytes)
        for span in unanswered:
            span.given.inlet.unanswered -= span.count
        self._handed, self._uncommitted = Handed(), Uncommitted(self._name_of)
        self._settled = True
        self.pending_messages = self.pending_bytes = 0
        owner, after = self._blame.owner, self._blame.after
        for inlet in self._inlets.values():
            if self.blamed:
                inlet.blame(begun[inlet], owner=owner, answered=self.committed > 0, after=after)
            else:
                inlet.give_back(begun[inlet], owner=owner)
            inlet.give_back(unread[inlet], owner=owner)
        self._check_possible(self._left_bytes)
        return InputLeft(
            ended=self.said_end,
            unread=sum(span.count for span in unanswered),
            consumed=self.answered,
            unanswered=sum(span.count for span in unanswered),
            touched=sum(piece.batch.count for pieces in begun.values() for piece in pieces),
        )
