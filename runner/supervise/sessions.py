"""Contract `acknowledged`: the session of one run of a program, made of its spec and of what its replicas share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from runner.bridge.exchange import Blame, Exchange, Told, Window
from runner.bridge.heartbeat import Beat
from runner.bridge.inlet import Inlet, Piece
from runner.bridge.logs import InstanceLog
from runner.bridge.outlet import Outlet
from runner.bridge.states import KeptState
from runner.bridge.step import Committer
from runner.launch.memory_files import sealed_file
from runner.protocol.frames import MOST_INLINE_STATE_BYTES, VERSION
from runner.protocol.session import Session
from runner.protocol.wire import STDIO, Wire
from runner.spec.model import Processor, Resume

Made = TypeVar("Made", bound=Exchange)

BEAT = Beat()
READY_WITHIN_S = 60.0
"""A program without a `ready` of its own must have said so by then."""


@dataclass(slots=True)
class StateFile:
    """A state that is too long for a frame, as a file that the program is given open: `descriptor`, or None.

    It is in memory and sealed: every home can read it, nobody can change it, and it goes with who has it.
    """

    descriptor: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    path: str | None = None

    @classmethod
    def of(cls, value: bytes | None, number: int) -> StateFile:
        """The file for `value`, which the program will have as descriptor `number`; none where there is no need."""
        if value is None or len(value) <= MOST_INLINE_STATE_BYTES:
            return cls()
        descriptor = sealed_file("state", [value])
        path = f"/dev/fd/{number}"
        return cls(descriptor, {"CONNECTOR_STATE_FILE": path}, path)


ENV = {"CONNECTOR_PROTOCOL": str(VERSION)}


def no_states(spec: Processor) -> str | None:
    """Why a program may not be stateful here; None where it may."""
    if spec.replicas > 1:
        return f"it has {spec.replicas} replicas"
    if spec.is_source and spec.resume is not Resume.SELF:
        return f'it is a source with resume = "{spec.resume}", and only "self" goes on from a state'
    return None


def open_exchange(
    spec: Processor,
    make: Callable[..., Made],
    *,
    inlets: Mapping[str, Inlet],
    outlets: Mapping[str, Outlet],
    state: KeptState,
    state_file: str | None,
    most_window_bytes: int,
    skip: Mapping[str, int],
    log: InstanceLog,
    on_progress: Callable[[], None],
    on_silent: Callable[[str], None],
    on_finished: Callable[[], None],
    on_nacked: Callable[[Piece, str], bool],
    owner: int,
    wire: Wire = STDIO,
) -> Made:
    """The runner's side of the session, made by `make` from all that does not depend on how frames are carried."""
    session = Session(
        reads=[port.name for port in spec.reads],
        writes=[port.name for port in spec.writes],
        max_payload_bytes=spec.max_message_bytes,
        no_states=no_states(spec),
        wire=wire,
    )

    def log_lines(level: str, text: str) -> None:
        for line in text.splitlines():
            log.line((line if level == "info" else f"{level}: {line}").encode(), "stderr")

    window = spec.in_flight
    return make(
        inlets,
        Committer(spec.writes, outlets, state, skip),
        session,
        state=state,
        state_file=state_file,
        window=Window(window.size_bytes, window.messages, max(window.size_bytes, most_window_bytes)),
        beat=BEAT,
        told=Told(on_progress, log_lines, on_silent, on_finished, on_nacked),
        blame=Blame(owner, spec.poison.after),
    )
