"""Talks to a real shim over a real socket, written from PROTOCOL.md and not from the runner's own end of it."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

DEADLINE_S = 20.0
CHILDREN = Path(__file__).resolve().parent.parent / "children"


@dataclass(frozen=True, slots=True)
class Ended:
    """The body of an `X`."""

    code: int
    signal: int
    user_us: int = 0
    system_us: int = 0
    resident_kib: int = 0


@dataclass(frozen=True, slots=True)
class Probed:
    """The body of a `Q`. `stage` is empty when the probe was started."""

    code: int
    signal: int
    error: int = 0
    stage: str = ""


KILLED = Probed(-1, 9)


def encode_job(
    command: Sequence[str | bytes],
    *,
    targets: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    folder: str = "/",
    limits: Mapping[int, int] | None = None,
    uid: int = -1,
    gid: int = -1,
    flags: int = 0,
) -> bytes:
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")} if env is None else env
    limits = limits or {}
    parts = [
        struct.pack("<IIiiIIII", 0x314A4E43, flags, uid, gid, len(targets), len(limits), len(command), len(env)),
        *(struct.pack("<I", target) for target in targets),
        *(struct.pack("<IIQ", number, 0, value) for number, value in limits.items()),
    ]
    strings = (folder, *command, *(f"{name}={value}" for name, value in env.items()))
    return b"".join((*parts, *(os.fsencode(text) + b"\0" for text in strings)))


def memfd(data: bytes) -> int:
    descriptor = os.memfd_create("job")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return descriptor


class Shim:
    """A running shim. `wrap` makes the command line of it from the usual one; `listen` is where it is to connect to."""

    def __init__(
        self,
        binary: str,
        *,
        wrap: Callable[[list[str]], list[str]] = lambda command: command,
        extra: Sequence[int] = (),
        listen: Path | None = None,
        **popen: Any,
    ) -> None:
        if listen is None:
            self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.process = subprocess.Popen(
                    wrap([binary, str(theirs.fileno())]), pass_fds=(theirs.fileno(), *extra), **popen
                )
        else:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(str(listen))
                listen.chmod(0o666)
                listener.listen(1)
                listener.settimeout(DEADLINE_S)
                self.process = subprocess.Popen(wrap([binary, str(listen)]), pass_fds=extra, **popen)
                self.socket = listener.accept()[0]
        self.socket.settimeout(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self.socket, [packet], descriptors)

    def receive(self) -> bytes:
        return self.socket.recv(4096)

    def expect(self, kind: str) -> bytes:
        """The body of the next packet, which must be of that kind."""
        packet = self.receive()
        assert packet[:1] == kind.encode(), packet
        return packet[1:]

    def send_job(self, data: bytes, ports: Sequence[int] = (), request: bytes = b"S") -> None:
        job = memfd(data)
        try:
            self.send(request, [job, *ports])
        finally:
            os.close(job)

    def start(self, command: Sequence[str | bytes], ports: Mapping[int, int] | None = None, **job: Any) -> int:
        """Start a program and return its pid; without ports its standard streams are /dev/null."""
        self.send_start(command, ports, **job)
        return self.began()

    def send_start(self, command: Sequence[str | bytes], ports: Mapping[int, int] | None = None, **job: Any) -> None:
        self._send_request(b"S", command, ports, job)

    def send_probe(self, command: Sequence[str | bytes], ports: Mapping[int, int] | None = None, **job: Any) -> None:
        self._send_request(b"P", command, ports, job)

    def probe(self, command: Sequence[str | bytes], ports: Mapping[int, int] | None = None, **job: Any) -> Probed:
        self.send_probe(command, ports, **job)
        return self.probed()

    def probed(self) -> Probed:
        code, number, error, stage = struct.unpack("<iiIB", self.expect("Q"))
        return Probed(code, number, error, chr(stage) if stage else "")

    def _send_request(
        self, request: bytes, command: Sequence[str | bytes], ports: Mapping[int, int] | None, job: dict[str, Any]
    ) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        try:
            ports = dict.fromkeys((0, 1, 2), null) if ports is None else ports
            self.send_job(encode_job(command, targets=list(ports), **job), list(ports.values()), request)
        finally:
            os.close(null)

    def began(self) -> int:
        return int(struct.unpack("<I", self.expect("B"))[0])

    def failed(self) -> tuple[int, str]:
        number, stage = struct.unpack("<IB", self.expect("F"))
        return number, chr(stage)

    def ended(self) -> Ended:
        return Ended(*struct.unpack("<iiQQQ", self.expect("X")))

    def gone(self) -> int:
        return int(struct.unpack("<I", self.expect("G"))[0])

    def asked(self) -> int:
        return int(struct.unpack("<I", self.expect("R"))[0])

    def signal(self, number: int) -> None:
        self.send(b"T" + struct.pack("<I", number))

    def kill(self) -> int:
        """K, for a program that has ended already."""
        self.send(b"K")
        return self.gone()

    def output(self, command: Sequence[str | bytes], **job: Any) -> tuple[bytes, Ended]:
        """Run a program to its end, with its standard output in a pipe."""
        with Pipe() as out, Path(os.devnull).open("r+b") as null:
            self.start(command, {0: null.fileno(), 1: out.writing, 2: null.fileno()}, **job)
            out.close_writing()
            data = out.read_all()
        return data, self.ended()


class Pipe:
    """A pipe whose ends close with the block, and whose reads have a deadline."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._open = {self.reading, self.writing}
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def close_writing(self) -> None:
        self._close(self.writing)

    def _close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        os.close(descriptor)

    def _more(self, deadline_s: float) -> bytes:
        assert wait_readable(self.reading, deadline_s - time.monotonic()), "nothing came, and no end"
        return os.read(self.reading, 65536)

    def read_all(self, within_s: float = DEADLINE_S) -> bytes:
        """Up to the end, which comes when nobody has the writing end any more."""
        deadline_s = time.monotonic() + within_s
        data, self._rest = self._rest, b""
        while more := self._more(deadline_s):
            data += more
        return data

    def read_line(self, within_s: float = DEADLINE_S) -> bytes:
        deadline_s = time.monotonic() + within_s
        while b"\n" not in self._rest:
            more = self._more(deadline_s)
            assert more, f"the end, after {self._rest!r}"
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return line


def wait_readable(descriptor: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0, within_s) * 1000))


@contextmanager
def watching(pids: Sequence[int]) -> Iterator[Callable[[float], list[int]]]:
    """Gives a function that waits until all of these processes have ended and returns those that have not.

    By pidfd, so that a pid that is given out again does not deceive.
    """
    watched = {pid: os.pidfd_open(pid) for pid in pids}

    def wait(within_s: float) -> list[int]:
        deadline_s = time.monotonic() + within_s
        return [pid for pid, fd in watched.items() if not wait_readable(fd, deadline_s - time.monotonic())]

    try:
        yield wait
    finally:
        for descriptor in watched.values():
            os.close(descriptor)


def python(source: str, *arguments: str) -> list[str]:
    """The command line of a small Python program."""
    return [sys.executable, "-I", "-S", "-c", source, *arguments]


def child(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(CHILDREN / name), *arguments]
