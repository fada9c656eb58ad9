"""The runner's side of one session with one running program, over its stdin and stdout, or over a ZeroMQ socket."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from runner.protocol.errors import ProtocolError
from runner.protocol.frames import Ack, Buffer, Frame, Nack, Out, State
from runner.protocol.session import Phase, Session
from runner.protocol.wire import STDIO

MAX_PAYLOAD_BYTES = 16 << 20
CHANNEL = "kit@1"
_READ_BYTES = 1 << 18


class Wrong(Exception):  # noqa: N818  (a finding about a program, not an error of ours)
    """What the program did wrong, in a sentence."""


class Peer:
    """Starts `command`; a context that leaves nothing behind. `writes` are the ports that it may write to.

    With `piece_bytes` no write to it is longer than that.
    """

    wire = STDIO
    """How frames are carried."""

    def __init__(
        self, command: Sequence[str], *, writes: Sequence[str], limit_s: float, piece_bytes: int = 1 << 18
    ) -> None:
        self.session = Session(reads=["stdin"], writes=writes, max_payload_bytes=MAX_PAYLOAD_BYTES, wire=self.wire)
        self.frames: list[Frame] = []
        """All that it has sent."""
        self.answered: dict[int, Ack | Nack] = {}
        """By delivery; an `ack` of several stands under each."""
        self._limit_s = limit_s
        self._piece_bytes = piece_bytes
        self._unsent: deque[memoryview] = deque()
        self._ended = False
        self._input = self._output = -1
        self.process = self._start(command)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        process = started(command, {}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno())
        process.stdin.close()
        process.stdout.close()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    def _close(self) -> None:
        self.close_input()
        self.close_output()

    # -- what there is to know

    def outputs(self, delivery: int) -> list[tuple[str, bytes]]:
        """What it answered to this message so far, as (port, payload)."""
        return [
            (each.port, each.payload) for each in self.frames if isinstance(each, Out) and each.delivery == delivery
        ]

    def states(self) -> list[bytes]:
        """The states that it has sent."""
        return [each.payload for each in self.frames if isinstance(each, State)]

    @property
    def input(self) -> int:
        """The descriptor of its stdin."""
        return self._input

    # -- what to do

    def send(self, parts: Sequence[Buffer]) -> None:
        """To be written while it is waited for something."""
        self._unsent.extend(memoryview(part) for part in parts if len(part))

    def open(self, state: bytes | None = None, state_file: str | None = None) -> None:
        """Wait for `ready` and answer it."""
        self.until(lambda: self.session.phase is not Phase.OPENING, "send `ready`")
        self.send(self.session.opening(state, state_file))

    def deliver(self, *payloads: bytes, number: int = 0, attempt: int = 1) -> int:
        """Send messages, numbered as the deliveries are unless `number` says where to begin; the first delivery."""
        number = number or self.session.deliveries.next
        first, parts = self.session.deliver(payloads, number=number, attempt=attempt, port="stdin", channel=CHANNEL)
        self.send(parts)
        return first

    def settle(self) -> None:
        """Wait until everything is answered."""
        deliveries = self.session.deliveries
        self.until(lambda: not deliveries.in_flight, "answer all messages (it must not wait for more of them)")

    def end(self) -> None:
        """Say that all is over, and wait for its `end` and its exit with status 0."""
        if self.session.phase is Phase.OPEN:
            self.send(self.session.end())
        self.until(lambda: self.session.phase is Phase.ENDED, "send `end` after the runner's last `end`")
        status = self.exit("exit after its `end`")
        if status != 0:
            raise Wrong(f"it ended with exit status {status} after its `end`")

    def end_by_itself(self) -> None:
        """Wait for the `end` of a source, confirming its states, and for its exit with status 0."""
        confirmed = 0

        def ended() -> bool:
            nonlocal confirmed
            states = len(self.states())
            if states > confirmed:
                confirmed = states
                self.send(self.session.committed(states))
            return self.session.phase is Phase.ENDED

        self.until(ended, "send `end`")
        self.end()

    def close_input(self) -> None:
        """Close its stdin."""
        self._unsent.clear()
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def close_output(self) -> None:
        """Close its stdout: what it writes from now on fails."""
        if self._output >= 0:
            os.close(self._output)
            self._output = -1
        self._ended = True

    def exit(self, what: str) -> int:
        """Wait until its output ends and it exits; its status, negative for a signal."""
        self._wait(lambda: self._ended, what)
        try:
            return self.process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            raise Wrong(f"it did not {what} within {self._limit_s:g} s") from None

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Write and read until `reached`. Raises Wrong, naming `what` it should have done."""
        self._wait(lambda: self._ended or reached(), what)
        if not reached():
            raise Wrong(f"it ended with exit status {self.exit('exit')}, and did not {what}")

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._limit_s
        while not reached():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise Wrong(f"it did not {what} within {self._limit_s:g} s")
            for descriptor, events in self._awaited().poll(left_s * 1000):
                if self._unsent and (descriptor == self._input or events & select.POLLOUT):
                    self._write()
                else:
                    self._look_at(descriptor)

    def _awaited(self) -> select.poll:
        poll = select.poll()
        if not self._ended:
            poll.register(self._output, select.POLLIN)
        if self._unsent:
            poll.register(self._input, select.POLLOUT)
        return poll

    def _look_at(self, descriptor: int) -> None:
        """Something has happened to what is waited for."""
        del descriptor
        self._read()

    def _write(self) -> None:
        try:
            written = os.write(self._input, self._piece())
        except (BrokenPipeError, ConnectionResetError):
            self._unsent.clear()  # its end is seen at its output
            return
        except BlockingIOError:
            return
        while written:
            part = self._unsent.popleft()
            if written < len(part):
                self._unsent.appendleft(part[written:])
            written -= min(written, len(part))

    def _piece(self) -> bytes | memoryview:
        if len(self._unsent[0]) >= self._piece_bytes:
            return self._unsent[0][: self._piece_bytes]
        several = []
        size = 0
        for part in self._unsent:
            if size + len(part) > self._piece_bytes:
                break
            several.append(part)
            size += len(part)
        return b"".join(several)

    def _read(self) -> None:
        try:
            data = os.read(self._output, _READ_BYTES)
        except ConnectionResetError:
            data = b""
        self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            if data:
                found = self.session.receive(data)
            else:
                self._ended = True
                self.session.finish()
                return
        except ProtocolError as error:
            raise Wrong(str(error)) from error
        self.frames += found
        for frame in found:
            if isinstance(frame, Ack):
                self.answered.update(dict.fromkeys(range(frame.first, frame.last + 1), frame))
            elif isinstance(frame, Nack):
                self.answered[frame.delivery] = frame


def started(command: Sequence[str], env: Mapping[str, str], *, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    """The program, in a session of its own."""
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        env={**os.environ, "CONNECTOR_PROTOCOL": "1", **env},
        start_new_session=True,
        bufsize=0,
    )
