"""The control socket of a running pipeline: other processes of its user ask, the runner answers.

It is `control` in the state folder. A connection carries one request, a line of JSON: `verb` and `arguments`. The
answer is lines of JSON: any number of `item`, then `done` or `error`. Nothing of what is asked can stop the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from runner.errors import RunnerError

NAME = "control"
MOST_REQUEST_BYTES = 64 << 10
_MOST_CONNECTIONS = 8
_REQUEST_S = 5.0
_SEND_S = 30.0
_AGAIN_S = 1.0
_PEER = struct.Struct("3i")

Verb = Callable[[msgspec.Raw], AsyncIterator[Any]]
"""Takes the arguments, yields items, and last what is `done`. Raises RunnerError and msgspec.ValidationError."""


class Request(msgspec.Struct, frozen=True):
    """What is asked."""

    verb: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Wrong(msgspec.Struct, frozen=True):
    """A RunnerError."""

    what: str
    where: str | None = None
    remedy: str | None = None


Line = dict[str, Any]
"""One line of an answer: `item`, `done` or `error` and what that is."""

_REQUEST = msgspec.json.Decoder(Request)


@contextlib.contextmanager
def short_path(folder: Path) -> Any:
    """The path of the socket in `folder`, short enough for a socket's address, however long that of the folder is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


class Control:
    """See the module. `folder` is held by this runner, so a socket that is there was left by one that has died."""

    def __init__(self, folder: Path, verbs: Mapping[str, Verb]) -> None:
        self._folder = folder
        self._verbs = dict(verbs)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Be there to be asked. Raises OSError."""
        (self._folder / NAME).unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # not inheritable (PEP 446)
        try:
            os.fchmod(server.fileno(), 0o600)  # unix(7): on Linux what is bound gets these permissions, at once
            with short_path(self._folder) as path:
                server.bind(path)
            server.listen(_MOST_CONNECTIONS)
            server.setblocking(False)  # noqa: FBT003 - positional only
        except OSError:
            server.close()
            raise
        self._socket = server

    def close(self) -> None:
        """Be gone."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                (self._folder / NAME).unlink(missing_ok=True)

    async def serve(self) -> None:
        """Answer until cancelled."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(_MOST_CONNECTIONS)
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                try:
                    connection, _ = await loop.sock_accept(self._socket)
                except OSError:  # no descriptor is left, say
                    room.release()
                    await asyncio.sleep(_AGAIN_S)
                    continue
                group.create_task(self._talk(connection, room))

    async def _talk(self, connection: socket.socket, room: asyncio.Semaphore) -> None:
        try:
            with connection, contextlib.suppress(OSError, TimeoutError):
                connection.setblocking(False)  # noqa: FBT003 - positional only
                refused = _refused(connection)
                if refused is not None:
                    await _send(connection, {"error": Wrong(refused)})
                    return
                async for line in self._lines(await _received(connection)):
                    await _send(connection, line)
        finally:
            room.release()

    async def _lines(self, data: bytes) -> AsyncIterator[Line]:
        """The answer to a request."""
        try:
            request = _REQUEST.decode(data)
            verb = self._verbs.get(request.verb)
            if verb is None:
                yield {"error": Wrong(f"this runner does not know `{request.verb}`")}
                return
            last = None
            async for item in verb(request.arguments):
                if last is not None:
                    yield {"item": last}
                last = msgspec.Raw(msgspec.json.encode(item))
            yield {"done": last}
        except RunnerError as error:
            yield {"error": Wrong(error.what, error.where, error.remedy)}
        except (msgspec.MsgspecError, RecursionError) as error:
            yield {"error": Wrong(f"no request that this runner understands: {error}")}


async def _received(connection: socket.socket) -> bytes:
    """The request; at most what is allowed, and in time. Raises TimeoutError and OSError."""
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(_REQUEST_S):
        while b"\n" not in data and len(data) < MOST_REQUEST_BYTES:
            more = await loop.sock_recv(connection, MOST_REQUEST_BYTES - len(data))
            if not more:
                break
            data += more
    return data


async def _send(connection: socket.socket, line: Line) -> None:
    async with asyncio.timeout(_SEND_S):
        await asyncio.get_running_loop().sock_sendall(connection, msgspec.json.encode(line) + b"\n")


def _refused(connection: socket.socket) -> str | None:
    """Why the other side may not ask; None: it may.

    The permissions of the socket keep other users out. Whoever is in another PID namespace is in a sandbox or a
    container, which may be one of the pipeline's own where it sees the folder and has the same uid.
    """
    pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid not in {0, os.geteuid()}:
        return "only the user of the runner may ask it"
    try:
        same = pid > 0 and os.stat(f"/proc/{pid}/ns/pid").st_ino == os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116
    except OSError:
        same = False
    return None if same else "the runner is asked from outside of its container, or from inside of a sandbox"
