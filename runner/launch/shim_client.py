"""The runner's end of the shim protocol (`shim/PROTOCOL.md`): packets in, packets out, futures for the answers."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from runner.errors import BugError, LaunchError, MachineError
from runner.events import Exited, Usage
from runner.launch.base import ShimLostError
from runner.launch.memory_files import memory_file

_MAGIC = 0x314A4E43
_HEADER = struct.Struct("<IIiiIIII")
_LIMIT = struct.Struct("<IIQ")
_FAILED = struct.Struct("<IB")
_EXITED = struct.Struct("<iiQQQ")
_PROBED = struct.Struct("<iiIB")
_VERSION = struct.Struct("<I")
VERSION = 1
LARGEST_PACKET_BYTES = 256
_INHERIT = 1

_STAGES = {
    "j": "its job could not be read",
    "f": "no process could be made",
    "p": "a port could not be handed over",
    "l": "a resource limit was refused",
    "u": "its user could not be set",
    "c": "its folder cannot be entered",
    "x": "it cannot be executed",
    "b": "a program is running already",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a program, as a shim gets it.

    `directory` "": the shim's own. `env` is all of its environment, or, with `inherit_env`, goes over the shim's own.
    `ports` maps its descriptor numbers to ours, `limits` RLIMIT_* numbers to values (soft and hard). `uid` and `gid`
    -1: as they are.
    """

    command: tuple[str, ...]
    directory: str
    env: Mapping[str, str] = field(repr=False)
    ports: Mapping[int, int]
    limits: Mapping[int, int] = field(default_factory=dict)
    uid: int = -1
    gid: int = -1
    inherit_env: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """What a shim that stays says first: its protocol's version, and the path of the socket as it sees it."""

    version: int
    path: str


def decode_hello(packet: bytes) -> Hello | None:
    """The hello in `packet`; None when it is none."""
    if packet[:1] != b"H" or len(packet) <= 1 + _VERSION.size or b"\0" in packet[1 + _VERSION.size :]:
        return None
    path = os.fsdecode(packet[1 + _VERSION.size :])
    return Hello(_VERSION.unpack_from(packet, 1)[0], path) if "/" in path else None


def encode_job(job: Job) -> bytes:
    """The job as the protocol lays it out."""
    variables = [f"{name}={value}" for name, value in job.env.items()]
    strings = [job.directory, *job.command, *variables]
    return b"".join(
        (
            _HEADER.pack(
                _MAGIC,
                _INHERIT if job.inherit_env else 0,
                job.uid,
                job.gid,
                len(job.ports),
                len(job.limits),
                len(job.command),
                len(variables),
            ),
            b"".join(struct.pack("<I", target) for target in job.ports),
            b"".join(_LIMIT.pack(resource, 0, value & (2**64 - 1)) for resource, value in job.limits.items()),
            b"".join(os.fsencode(text) + b"\0" for text in strings),
        )
    )


class ShimConnection:
    """One connected shim.

    `on_lost` is called once, when the socket ends before `close`; `on_stop_requested` when somebody asks the shim to
    stop by a signal (an engine that stops its container).
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        on_lost: Callable[[], None] = lambda: None,
        on_stop_requested: Callable[[], None] = lambda: None,
    ) -> None:
        self._socket = connection
        self._socket.setblocking(False)  # noqa: FBT003 - the library's own shape
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._on_stop_requested = on_stop_requested
        self._lost = False
        self._started: asyncio.Future[int] | None = None
        self._exited: asyncio.Future[Exited] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._probed: asyncio.Future[Exited] | None = None
        self._loop.add_reader(connection.fileno(), self._readable)

    @property
    def lost(self) -> bool:
        """Whether the shim is not there any more."""
        return self._lost

    async def start(self, job: Job) -> int:
        """Start the program; see `Handle.start`."""
        if self._lost:
            raise ShimLostError("cannot be started: its shim has died")
        self._send_job(b"S", job)  # first: nobody would ask a future whose job was never sent
        self._started = self._loop.create_future()
        self._exited = self._loop.create_future()
        return await self._started

    async def exited(self) -> Exited:
        """Wait for the end of the program; a lost shim counts as killed by SIGKILL."""
        if self._exited is None:
            raise BugError("a program that was never started was waited for")
        return await asyncio.shield(self._exited)

    def signal(self, signal_number: int) -> None:
        """See `Handle.signal`."""
        self._send(b"T" + struct.pack("<I", signal_number))

    async def kill_tree(self) -> None:
        """SIGKILL every descendant of the shim; returns when none is left, or when the shim is lost."""
        if self._lost:
            return
        if self._gone is None:
            self._gone = self._loop.create_future()
            self._send(b"K")
        await asyncio.shield(self._gone)

    async def probe(self, job: Job) -> Exited:
        """Run a second program beside the first; see `Handle.probe`. One that comes while another runs waits for it."""
        while self._probed is not None:
            await asyncio.wait((self._probed,))
        if self._lost:
            raise ShimLostError("cannot be started: its shim has died")
        self._send_job(b"P", job)
        self._probed = self._loop.create_future()
        try:
            return await asyncio.shield(self._probed)
        except asyncio.CancelledError:
            self._send(b"k")
            raise

    def welcome(self) -> None:
        """Tell a shim that stays that it is wanted here."""
        self._send(b"W")

    def tell_over(self, code: int) -> None:
        """Tell it that the run is over: it kills everything, and exits with `code`."""
        self._send(b"O" + struct.pack("<i", code))
        self.close()

    def close(self) -> None:
        """Close the socket: the shim kills what it started and ends."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        self._end()

    def _send_job(self, packet: bytes, job: Job) -> None:
        memory = memory_file("connector-job", [encode_job(job)])
        try:
            socket.send_fds(self._socket, [packet], [memory, *job.ports.values()], socket.MSG_NOSIGNAL)
        except OSError as error:
            raise ShimLostError(f"cannot be started: its shim has died ({os.strerror(error.errno or 0)})") from error
        finally:
            os.close(memory)

    def _send(self, packet: bytes) -> None:
        if self._lost:
            return
        try:
            self._socket.send(packet, socket.MSG_NOSIGNAL)
        except OSError:
            self._lose()

    def _readable(self) -> None:
        try:
            packet = self._socket.recv(LARGEST_PACKET_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            packet = b""
        try:
            if packet:
                self._handle(packet)
            else:
                self._lose()
        except (struct.error, OverflowError):
            self._lose()  # that is no shim: a program may connect at the socket of its own container

    def _handle(self, packet: bytes) -> None:
        kind, body = packet[:1], packet[1:]
        if kind == b"B" and self._started is not None and not self._started.done():
            self._started.set_result(struct.unpack("<I", body)[0])
        elif kind == b"F" and self._started is not None and not self._started.done():
            number, stage = _FAILED.unpack(body)
            self._started.set_exception(_launch_error(number, chr(stage)))
        elif kind == b"X" and self._exited is not None and not self._exited.done():
            code, signal_number, user_us, system_us, rss_kib = _EXITED.unpack(body)
            usage = Usage((user_us + system_us) / 1e6, rss_kib * 1024)
            self._exited.set_result(Exited(None if code < 0 else code, signal_number or None, usage))
        elif kind == b"G" and self._gone is not None:
            self._gone.set_result(None)
            self._gone = None
        elif kind == b"Q" and self._probed is not None:
            probed, self._probed = self._probed, None
            code, signal_number, number, stage = _PROBED.unpack(body)
            if stage:
                probed.set_exception(_launch_error(number, chr(stage)))
                probed.exception()  # whoever asked may have gone
            else:
                probed.set_result(Exited(None if code < 0 else code, signal_number or None))
        elif kind == b"R":
            self._on_stop_requested()

    def _lose(self) -> None:
        if self._lost:
            return
        self.close()
        self._on_lost()

    def _end(self) -> None:
        self._lost = True
        if self._started is not None and not self._started.done():
            self._started.set_exception(ShimLostError("cannot be started: its shim has died"))
        if self._exited is not None and not self._exited.done():
            self._exited.set_result(Exited(None, None))
        if self._gone is not None:
            self._gone.set_result(None)
            self._gone = None
        if self._probed is not None:
            self._probed.set_result(Exited(None, None))
            self._probed = None


def _launch_error(number: int, stage: str) -> LaunchError | MachineError:
    reason = f"{_STAGES.get(stage, stage)}: {os.strerror(number)}"
    if stage == "f" or number in {errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
        return MachineError(f"cannot be started: {reason}", remedy="free some, or raise the limit of this user")
    if number == errno.ENOENT and stage == "x":
        remedy = "the program is not there, or the interpreter in its first line is not"
    elif number == errno.ENOEXEC:
        remedy = "it is no program for this machine; a script needs a first line such as #!/bin/sh"
    elif number == errno.E2BIG:
        remedy = "arguments and environment are too long; one string may have at most 128 KiB"
    else:
        remedy = None
    return LaunchError(f"cannot be started: {reason}", remedy=remedy)
