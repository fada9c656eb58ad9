"""What is tried with a program: one function per check, each with a program of its own, each raising Wrong."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from runner.protocol.conformance.peer import CHANNEL, Peer, Wrong
from runner.protocol.conformance.socket_peer import SocketPeer
from runner.protocol.frames import End, Nack, Out, State

MANY = 5_000


@dataclass(frozen=True)
class Target:
    """The program that is tried. `echoes`: it answers each message by itself, on stdout."""

    command: Sequence[str]
    payloads: Sequence[bytes]
    """Messages that it can handle."""
    writes: Sequence[str] = ("stdout",)
    echoes: bool = False
    limit_s: float = 10.0
    state: bytes | None = field(default=None)
    """A state that it understands; None: those that it sent itself are given back to it."""
    zeromq: bool = False
    """It speaks over a DEALER socket."""

    def started(self, *, piece_bytes: int = 1 << 18) -> Peer:
        """The program, running."""
        kind = SocketPeer if self.zeromq else Peer
        return kind(self.command, writes=self.writes, limit_s=self.limit_s, piece_bytes=piece_bytes)

    @contextmanager
    def opened(self, *, piece_bytes: int = 1 << 18) -> Iterator[Peer]:
        """The program, running, its session opened without a state."""
        with self.started(piece_bytes=piece_bytes) as peer:
            peer.open()
            yield peer

    def some(self, count: int) -> list[bytes]:
        """So many messages."""
        return [self.payloads[index % len(self.payloads)] for index in range(count)]


def opens_and_ends(target: Target) -> None:
    """`ready`; without any message: `end`, exit status 0."""
    with target.opened() as peer:
        peer.send(peer.session.end_of("stdin"))
        peer.end()


def answers(target: Target) -> None:
    """Messages are answered while the input waits, one after the other."""
    with target.opened() as peer:
        for payload in target.some(5):
            _expect(target, peer, [payload], peer.deliver(payload))
        _finish(peer)


def answers_before_the_end_is_said(target: Target) -> None:
    """`end` of the port comes while messages are in flight; the session goes on until they are answered."""
    with target.opened() as peer:
        payloads = target.some(3)
        first = peer.deliver(*payloads)
        peer.send(peer.session.end_of("stdin"))
        _expect(target, peer, payloads, first)
        again = peer.deliver(payloads[0], number=1, attempt=2)  # a message may come once more
        _expect(target, peer, payloads[:1], again)
        peer.end()


def torn_writes(target: Target) -> None:
    """Frames come in pieces of one and of three bytes."""
    for piece_bytes in (1, 3):
        with target.opened(piece_bytes=piece_bytes) as peer:
            payloads = target.some(3)
            _expect(target, peer, payloads, peer.deliver(*payloads))
            _finish(peer)


def many(target: Target) -> None:
    """Thousands of messages in one go."""
    with target.opened() as peer:
        payloads = target.some(MANY)
        _expect(target, peer, payloads, peer.deliver(*payloads))
        _finish(peer)


def any_payload(target: Target) -> None:
    """Payloads are bytes: empty ones, newlines, frames within frames, no UTF-8, longer than any pipe."""
    payloads = [
        b"",
        b"\n",
        b"ack 0 1\n",
        bytes(range(256)),
        "é€𝄞".encode(),
        b"\xff\xfe",
        b"end 0\n" * 9,
        b"x" * 3_000_000,
    ]
    with target.opened() as peer:
        _expect(target, peer, payloads, peer.deliver(*payloads))
        _finish(peer)


def unknown_fields(target: Target) -> None:
    """Words that a header may have in later versions are ignored."""
    with target.started() as peer:
        peer.until(lambda: bool(peer.frames), "send `ready`")
        peer.send(peer.wire.alone([b"ack-state 0 0 state=none max=16777216 later=1 more\n"]))
        payload = target.some(1)[0]
        first = peer.session.deliveries.add(1)
        header = b"msg %d %d 1 1 stdin %b later=a=b more\n" % (len(payload), first, CHANNEL.encode())
        peer.send(peer.wire.pairs([header, payload]))
        _expect(target, peer, [payload], first)
        peer.send(peer.wire.alone([b"end 0 stdin later=1\n"]))
        peer.session.end_of("stdin")
        peer.end()


def again(target: Target) -> None:
    """A message that comes again, with its number and a higher attempt, is a message like any other."""
    with target.opened() as peer:
        payload = target.some(1)[0]
        for attempt in (1, 2, 7):
            first = peer.deliver(payload, number=9_007_199_254_740_990, attempt=attempt)
            _expect(target, peer, [payload], first)
        _finish(peer)


def pings(target: Target) -> None:
    """A `ping` while nothing is in flight is answered by one `pong`."""
    with target.opened() as peer:
        for _ in range(3):
            peer.send(peer.session.ping())
            peer.until(lambda: not peer.session.waits_for_pong, "answer a `ping`")
        _expect(target, peer, target.some(1), peer.deliver(*target.some(1)))
        _finish(peer)


def closed_input(target: Target) -> None:
    """The end of stdin without the runner's `end`: the runner has gone, and the program goes as well, without `end`."""
    with target.opened() as peer:
        _expect(target, peer, target.some(1), peer.deliver(*target.some(1)))
        peer.close_input()
        status = peer.exit("exit when its stdin has ended")
        if status == 0 or any(isinstance(frame, End) for frame in peer.frames):
            raise Wrong("it takes the end of its stdin for the end of the session: that is said by `end 0`")


def closed_output(target: Target) -> None:
    """A closed stdout: the program goes."""
    with target.opened() as peer:
        _expect(target, peer, target.some(1), peer.deliver(*target.some(1)))
        parts = peer.session.deliver(target.some(1), number=2, attempt=1, port="stdin", channel=CHANNEL)[1]
        peer.close_output()
        os.write(peer.input, b"".join(parts))
        peer.exit("exit when its stdout is closed")


def terminated(target: Target) -> None:
    """SIGTERM: it exits, its last frame whole, without `end`."""
    with target.opened() as peer:
        _expect(target, peer, target.some(1), peer.deliver(*target.some(1)))
        peer.process.send_signal(signal.SIGTERM)
        peer.exit("exit after SIGTERM")
        if any(isinstance(frame, End) for frame in peer.frames):
            raise Wrong("it sends `end` after SIGTERM: that would say that it is done for good")


def states(target: Target) -> None:
    """States are given back at the start, short ones in the frame and long ones as a file, and go on from there."""
    with target.opened() as peer:
        if not peer.session.stateful:
            return
        payloads = target.some(3)
        _expect(target, peer, payloads, peer.deliver(*payloads))
        peer.until(lambda: bool(peer.states()), "send a `state` while its input waits")
        peer.send(peer.session.committed(len(peer.states())))
        state = peer.states()[-1]
        _finish(peer)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(state)
        for state_file in (None, file.name):
            with target.started() as peer:
                peer.open(None if state_file else state, state_file)
                _expect(target, peer, payloads, peer.deliver(*payloads, number=4))
                _finish(peer)


PROCESSOR: Sequence[Callable[[Target], None]] = (
    opens_and_ends,
    answers,
    answers_before_the_end_is_said,
    torn_writes,
    many,
    any_payload,
    unknown_fields,
    again,
    pings,
    closed_input,
    closed_output,
    terminated,
    states,
)
ENDS_OF_FILES = (closed_input, closed_output)
"""What only pipes have."""


def source_ends(target: Target) -> None:
    """A source writes, sends `end` and exits with status 0."""
    with target.opened() as peer:
        peer.end_by_itself()
        if not any(isinstance(frame, Out) for frame in peer.frames):
            raise Wrong("it wrote nothing")


def source_pings(target: Target) -> None:
    """A source answers a `ping` whatever it waits for."""
    with target.opened() as peer:
        peer.send(peer.session.ping())
        peer.until(lambda: not peer.session.waits_for_pong, "answer a `ping`")


def source_resumes(target: Target) -> None:
    """Killed after a state and started with it, a source goes on where that was: nothing twice or left out."""
    with target.opened() as peer:
        if not peer.session.stateful:
            return
        peer.end_by_itself()
        whole = [frame for frame in peer.frames if isinstance(frame, Out | State)]
    place = next((at for at, frame in enumerate(whole) if isinstance(frame, State)), None)
    if place is None:
        raise Wrong("it is stateful, and sends no `state`")
    state = whole[place]
    assert isinstance(state, State)
    with target.started() as peer:
        peer.open(state.payload)
        peer.end_by_itself()
        rest = [(frame.port, frame.payload) for frame in peer.frames if isinstance(frame, Out)]
    expected = [(frame.port, frame.payload) for frame in whole[place:] if isinstance(frame, Out)]
    if rest != expected:
        raise Wrong(
            f"started with its first state it wrote {len(rest)} outputs, not the {len(expected)} that came after"
        )


SOURCE: Sequence[Callable[[Target], None]] = (source_ends, source_pings, source_resumes)


def _expect(target: Target, peer: Peer, payloads: Sequence[bytes], first: int) -> None:
    """All is answered, by `ack` and the same payloads where the program echoes."""
    peer.settle()
    if not target.echoes:
        return
    written: dict[int, list[tuple[str, bytes]]] = {}
    last = first + len(payloads) - 1
    for frame in peer.frames:
        if isinstance(frame, Out) and first <= frame.delivery <= last:
            written.setdefault(frame.delivery, []).append((frame.port, frame.payload))
    for delivery in range(first, last + 1):
        answer = peer.answered[delivery]
        if isinstance(answer, Nack):
            raise Wrong(f"it sent `nack` for message {delivery}: {answer.reason}")
    got = [output for delivery in sorted(written) for output in written[delivery]]
    expected = [("stdout", payload) for payload in payloads]
    if got != expected:
        wrong = next(
            (at for at, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), min(len(got), len(expected))
        )
        seen = got[wrong][1][:40] if wrong < len(got) else b"nothing"
        raise Wrong(f"it should echo: output {wrong + 1} of {len(expected)} is {seen!r}, {len(got)} came")


def _finish(peer: Peer) -> None:
    peer.send(peer.session.end_of("stdin"))
    peer.end()
