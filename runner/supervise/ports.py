"""The ports of one run of a program: pipes made, our ends bridged, the program's ends ready to be handed over."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from runner.bridge.answers import AnswerDelivery, OneToOneFeeder
from runner.bridge.batches import Batches
from runner.bridge.collector import Collector
from runner.bridge.exchange import Exchange
from runner.bridge.feeder import Feeder, StreamFeeder
from runner.bridge.frames import FrameIntake
from runner.bridge.guard import predicate
from runner.bridge.inlet import Inlet, Piece
from runner.bridge.intake import Intake
from runner.bridge.logs import InstanceLog, LogReader
from runner.bridge.outlet import Delivery, Outlet
from runner.bridge.portion import Portion
from runner.bridge.sequence import Sequencer
from runner.bridge.spout import Spout
from runner.bridge.states import KeptState
from runner.bridge.zeromq.dealer import DealerExchange
from runner.channel.pipe import PIPE_BYTES, PipeChannel, resize_pipe
from runner.codec.base import Codec
from runner.codec.registry import codec_named
from runner.errors import RunnerError
from runner.launch.base import TakeListener
from runner.protocol.wire import STDIO, ZEROMQ, Wire
from runner.spec.model import Contract, Processor
from runner.supervise import sessions, sockets
from runner.supervise.sessions import Made

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_FIRST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Shared:
    """What the replicas of a processor share: inlets and outlets by port, pipe channels, the sequencer, the state.

    `batches` for contract batch; `folder` is where what is too much for memory may go (None: with temporary files).
    """

    inlets: dict[str, Inlet] = field(default_factory=dict)
    outlets: dict[str, Outlet] = field(default_factory=dict)
    pipes_in: dict[str, PipeChannel] = field(default_factory=dict)
    pipes_out: dict[str, PipeChannel] = field(default_factory=dict)
    sequencer: Sequencer | None = None
    most_window_bytes: int = PIPE_BYTES
    state: KeptState | None = None
    batches: Batches | None = None
    folder: Path | None = None


class Ports:
    """See the module. `theirs` maps the program's descriptor numbers to ours until `hand_over`.

    `portions`: what it is given on these ports, instead of whatever comes.
    """

    def __init__(
        self,
        spec: Processor,
        shared: Shared,
        log: InstanceLog,
        *,
        skip: dict[str, int],
        on_stray: Callable[[bytes], None],
        on_error: Callable[[RunnerError], None],
        on_progress: Callable[[], None],
        on_silent: Callable[[str], None],
        on_finished: Callable[[], None],
        on_nacked: Callable[[Piece, str], bool],
        owner: int = 1,
        portions: Mapping[str, Portion] | None = None,
    ) -> None:
        self.theirs: dict[int, int] = {}
        self.endpoints: dict[str, TakeListener] = {}
        self.env: dict[str, str] = {}
        self.feeders: list[Spout] = []
        self.collectors: list[Intake] = []
        self.logs: list[LogReader] = []
        self.answers: OneToOneFeeder | None = None
        self.exchange: Exchange | None = None
        self._spec = spec
        self._shared = shared
        self._log = log
        self._skip = skip
        self._on_stray = on_stray
        self._on_error = on_error
        self._on_progress = on_progress
        self._on_silent = on_silent
        self._on_finished = on_finished
        self._on_nacked = on_nacked
        self._owner = owner
        self._inlets: Mapping[str, Inlet] = shared.inlets if portions is None else {**shared.inlets, **portions}
        self._owned: list[int] = []
        self._next_named = _FIRST_NAMED
        try:
            self._open()
        except BaseException:
            self.abandon()
            raise

    def _open(self) -> None:
        spec = self._spec
        if spec.bridge == "zeromq":
            self._open_sockets()
        elif spec.contract is Contract.ACKNOWLEDGED:
            self._open_exchange()
        else:
            self._open_inputs()
        for port in spec.writes if self.exchange is None and not self.endpoints else ():
            if port.name in self._shared.pipes_out:
                self._place(port.name, self._shared.pipes_out[port.name].writing_end(), "WRITER")
            else:
                self._collect(port.name, port.codec)
        if self.answers is not None and _STDOUT not in self.theirs:
            self._collect("stdout", spec.stdout_codec)
        self._open_logs()

    def _open_logs(self) -> None:
        """Whatever of stdout and stderr is no port is the log."""
        if _STDOUT not in self.theirs:
            self.logs.append(LogReader(self._pipe_in(_STDOUT), self._log, "stdout"))
        if _STDERR not in self.theirs:
            self.logs.append(LogReader(self._pipe_in(_STDERR), self._log, "stderr"))

    @property
    def answered_by_exit(self) -> bool:
        """Whether nothing but its exit answers what the program was given (batch)."""
        return False

    @property
    def answering(self) -> OneToOneFeeder | Exchange | None:
        """Who waits for answers, where the contract has any."""
        return self.answers or self.exchange

    def _open_sockets(self) -> None:
        """Every port is a ZeroMQ socket's, or all of them together; stdout and stderr are the log."""
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._owned.append(null)
        self.theirs[_STDIN] = null
        if self._spec.contract is Contract.ACKNOWLEDGED:
            dealer = self._open_session(
                partial(DealerExchange, note=self._note, on_error=self._on_error, on_end=self._on_progress), ZEROMQ
            )
            self.exchange = dealer
            self.collectors.append(dealer.intake)
            self.endpoints = {sockets.ENDPOINT: dealer.endpoint.listen}
            return
        feeders, collectors, self.endpoints = sockets.open_plain(
            self._spec,
            self._shared.inlets,
            self._shared.outlets,
            skip=self._skip,
            note=self._note,
            on_error=self._on_error,
            on_progress=self._on_progress,
        )
        self.feeders += feeders
        self.collectors += collectors

    def _note(self, text: str) -> None:
        self._log.line(text.encode(), "stderr")

    def _open_exchange(self) -> None:
        """Contract `acknowledged`: every port goes through stdin and stdout, as frames."""
        exchange = self.exchange = self._open_session(partial(Exchange, self._pipe_out("stdin")), STDIO)
        stdout = self._pipe_in(_STDOUT)
        self.collectors.append(FrameIntake(stdout, exchange, on_error=self._on_error, on_end=self._on_progress))

    def _open_session(self, make: Callable[..., Made], wire: Wire) -> Made:
        shared, state = self._shared, self._shared.state
        assert state is not None
        file = sessions.StateFile.of(state.value, _FIRST_NAMED)
        if file.descriptor is not None:
            self._owned.append(file.descriptor)
            self.theirs[_FIRST_NAMED] = file.descriptor
        self.env = {**sessions.ENV, **file.env}
        exchange = sessions.open_exchange(
            self._spec,
            make,
            inlets=self._inlets,
            outlets=shared.outlets,
            state=state,
            state_file=file.path,
            most_window_bytes=shared.most_window_bytes,
            skip=self._skip,
            log=self._log,
            on_progress=self._on_progress,
            on_silent=self._on_silent,
            on_finished=self._on_finished,
            on_nacked=self._on_nacked,
            owner=self._owner,
            wire=wire,
        )
        self.feeders.append(exchange)
        return exchange

    def _open_inputs(self) -> None:
        for port in self._spec.reads:
            if port.name in self._shared.pipes_in:
                self._place(port.name, self._shared.pipes_in[port.name].reading_end(), "READER")
                continue
            self.feeders.append(self._feeder(port.name, self._pipe_out(port.name)))
        if _STDIN not in self.theirs:
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._owned.append(null)
            self.theirs[_STDIN] = null

    def _pipe_out(self, port: str) -> int:
        """A pipe for what the program reads on `port`; returns our end."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._owned.append(read_end)
        os.set_blocking(write_end, False)
        resize_pipe(write_end, self._spec.in_flight.size_bytes)
        self._place(port, read_end, "READER")
        return write_end

    def _feeder(self, port: str, write_end: int) -> Feeder:
        inlet = self._inlets[port]
        if port != "stdin" or self._spec.contract is not Contract.ONE_TO_ONE:
            return StreamFeeder(write_end, inlet, on_progress=self._on_progress)
        window = self._spec.in_flight
        self.answers = OneToOneFeeder(
            write_end,
            inlet,
            on_progress=self._on_progress,
            window_bytes=window.size_bytes,
            most_window_bytes=self._shared.most_window_bytes,
            window_messages=window.messages,
            sequencer=self._sequencer,
            owner=self._owner,
            suspect_after=self._spec.poison.after,
        )
        return self.answers

    @property
    def _sequencer(self) -> Sequencer | None:
        """What keeps the order of replicas. One program alone answers in order."""
        return self._shared.sequencer if self._spec.replicas > 1 else None

    def _delivery(self, port: str, codec: Codec) -> Delivery:
        """Where what the program writes to `port` is put."""
        outlet = self._shared.outlets.get(port)
        if port == "stdout" and self.answers is not None:
            return AnswerDelivery(self.answers, codec, outlet, self._sequencer)
        assert outlet is not None
        return outlet

    def _collect(self, port: str, codec_name: str) -> None:
        codec = codec_named(codec_name)
        target = {"stdout": _STDOUT, "stderr": _STDERR}.get(port)
        descriptor = self._pipe_in(target, port)
        self.collectors.append(
            Collector(
                descriptor,
                codec,
                self._delivery(port, codec),
                port=port,
                max_message_bytes=self._spec.max_message_bytes,
                skip=self._skip.get(port, 0),
                is_data=predicate(self._spec.guard) if port == "stdout" else None,
                on_stray=self._on_stray,
                on_error=self._on_error,
                on_end=self._on_progress,
            )
        )

    def _pipe_in(self, target: int | None, port: str = "") -> int:
        """A pipe for what the program writes to `target` (None: a named port); returns our end."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._owned.append(write_end)
        os.set_blocking(read_end, False)
        if target != _STDERR:
            resize_pipe(read_end, PIPE_BYTES)
        if target is None:
            self._place(port, write_end, "WRITER")
        else:
            self.theirs[target] = write_end
        return read_end

    def _place(self, port: str, descriptor: int, kind: str) -> None:
        number = {"stdin": _STDIN, "stdout": _STDOUT, "stderr": _STDERR}.get(port)
        if number is None:
            number = self._next_named
            self._next_named += 1
            self.env[sockets.variable(kind, port)] = f"/dev/fd/{number}"
        self.theirs[number] = descriptor

    def handed_over(self) -> None:
        """The program has its ends, or never will: close ours."""
        for descriptor in self._owned:
            os.close(descriptor)
        self._owned.clear()
        for pipe in self._shared.pipes_in.values():
            pipe.release_reading_end()
        for pipe in self._shared.pipes_out.values():
            pipe.release_writing_end()

    def abandon(self) -> None:
        """The program was never started: let go of everything; what was queued stays queued."""
        for descriptor in self._owned:
            os.close(descriptor)
        self._owned.clear()
        for feeder in self.feeders:
            feeder.abandon()
        for collector in self.collectors:
            collector.close()
        for log in self.logs:
            log.close()
