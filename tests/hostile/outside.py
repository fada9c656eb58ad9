"""What the attempts are aimed at, all of it the test's own, and how it is seen from outside what came of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.connector import until
from tests.engine import docker

IMAGE = "python:3.13-slim-trixie"

VICTIM = """
import ctypes, os, pathlib, signal, sys
folder, token = pathlib.Path(sys.argv[1]), os.environ["VICTIM_TOKEN"]
signals = os.open(folder / "signals", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for number in (signal.SIGUSR1, signal.SIGURG):
    signal.signal(number, lambda number, frame: os.write(signals, b"%d\\n" % number))
kept = ctypes.create_string_buffer(token.encode(), 64)
(folder / "part").write_text(str(ctypes.addressof(kept)))
os.rename(folder / "part", folder / "address")
while True:
    signal.pause()
"""


class Victim:
    """A process of the test's own that counts the signals it gets and holds `token` in its memory."""

    def __init__(self, folder: Path, token: str) -> None:
        self._folder = folder
        self.mark = f"victim-{uuid.uuid4().hex}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(folder), self.mark], env={**os.environ, "VICTIM_TOKEN": token}
        )
        until((folder / "address").exists, "the victim")
        self.pid = self._process.pid
        self.address = int((folder / "address").read_text())

    def signals(self, number: int) -> int:
        """How many of these it got."""
        return (self._folder / "signals").read_text().split().count(str(int(number)))

    @property
    def unharmed(self) -> bool:
        """It lives, runs, and nobody traces it."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return "State:\tS" in status and "TracerPid:\t0" in status

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Listeners:
    """Sockets that the test listens on; who comes is counted by name."""

    folder: Path
    abstract: str = field(default_factory=lambda: f"connector-hostile-{uuid.uuid4().hex}")
    came: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wake, self._woken = socket.socketpair()
        self._sockets: dict[socket.socket, str] = {}
        self.loopback = self._inet("loopback", socket.AF_INET, "127.0.0.1")
        self.loopback_v6 = self._inet("loopback-v6", socket.AF_INET6, "::1")
        self.path = str(self.folder / "listener")
        self._unix("path", self.path)
        Path(self.path).chmod(0o666)
        self._unix("abstract", "\0" + self.abstract)
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.bind(("127.0.0.1", 0))
        self.datagram: tuple[str, int] = datagram.getsockname()
        self._sockets[datagram] = "datagram"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _inet(self, name: str, family: socket.AddressFamily, host: str) -> tuple[str, int]:
        listening = socket.create_server((host, 0), family=family)
        self._sockets[listening] = name
        address = listening.getsockname()
        return address[0], address[1]

    def _unix(self, name: str, path: str) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(path)
        listening.listen()
        self._sockets[listening] = name

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._woken, *self._sockets], [], [])
            for each in ready:
                if each is self._woken:
                    return
                name = self._sockets[each]
                self.came[name] = self.came.get(name, 0) + 1
                if name == "datagram":
                    _, sender = each.recvfrom(64)
                    each.sendto(b"pong", sender)
                else:
                    each.accept()[0].close()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for each in (*self._sockets, self._wake, self._woken):
            each.close()


SERVER = """
import socket
with socket.create_server(("0.0.0.0", 4000)) as listening:
    print("listening", flush=True)
    while True:
        listening.accept()[0].close()
        print("came", flush=True)
"""


class ContainerListener:
    """A container of the test's own that listens, on a network of the test's own that this machine can reach."""

    def __init__(self) -> None:
        self._name = f"connector-hostile-{uuid.uuid4().hex}"
        docker("network", "create", self._name)
        self._id = ""
        try:
            self._id = docker("run", "--detach", "--rm", "--network", self._name, IMAGE, "python3", "-c", SERVER)
            until(lambda: "listening" in docker("logs", self._id), "the container that listens")
            shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            self.address = (docker("inspect", "--format", shown, self._id), 4000)
        except BaseException:
            self.close()
            raise

    @property
    def came(self) -> int:
        """How many have connected."""
        return docker("logs", self._id).count("came")

    def close(self) -> None:
        if self._id:
            docker("rm", "--force", "--volumes", self._id)
        docker("network", "rm", self._name)


@contextlib.contextmanager
def shared_memory(token: str) -> Iterator[tuple[int, str]]:
    """A System V segment that everybody may read, and a file in /dev/shm; both hold `token`."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(0, 64, 0o1666)  # IPC_PRIVATE, IPC_CREAT
    assert segment >= 0, os.strerror(ctypes.get_errno())
    file = Path(f"/dev/shm/connector-hostile-{uuid.uuid4().hex}")
    try:
        address = libc.shmat(segment, None, 0)
        ctypes.memmove(address, token.encode(), len(token))
        libc.shmdt(ctypes.c_void_p(address))
        file.write_text(token)
        file.chmod(0o666)
        yield segment, str(file)
    finally:
        libc.shmctl(segment, 0, None)  # IPC_RMID
        file.unlink(missing_ok=True)


def file_handle(path: Path) -> bytes:
    """The struct file_handle of a file (name_to_handle_at(2))."""

    class Handle(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_char * 128))

    handle, mount = Handle(size=128), ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0)
    assert got == 0, os.strerror(ctypes.get_errno())
    return bytes(handle)[: 8 + handle.size]


def processes_with(mark: str) -> list[int]:
    """The living processes of this machine that have `mark` in their command line, in whatever container."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in Path(entry.path, "cmdline").read_bytes() and not is_zombie(int(entry.name)):
                    found.append(int(entry.name))
    return found


def processes_of_user(uid: int) -> list[int]:
    """The living processes of this machine with that user."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid and not is_zombie(int(entry.name)):
                    found.append(int(entry.name))
    return found


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def cpu_s(pids: list[int]) -> float:
    """CPU time of these processes together, so far."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def kill(pids: list[int]) -> None:
    """SIGKILL to processes of the test's own."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def unix_sockets_of(pids: list[int]) -> list[str]:
    """The paths of the unix sockets that these processes hold open or listen on."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for each in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    where = str(each.readlink())
                    if where.startswith("socket:["):
                        inodes.add(where[8:-1])
    paths = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[6] in inodes and words[7].startswith("/"):
            paths.add(words[7])
    return sorted(paths)
