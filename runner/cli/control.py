"""Asking a runner that is at work, over its control socket (`runner.supervise.control`)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from runner.errors import MachineError
from runner.supervise.control import Wrong, short_path

_ANSWER_S = 60.0
_AGAIN_S = 0.02
_LINE = msgspec.json.Decoder(dict[str, msgspec.Raw])


def at_work(folder: Path) -> bool:
    """Whether a runner that can be asked has the state in `folder`. Raises MachineError."""
    connection = _connected(folder)
    if connection is not None:
        connection.close()
    return connection is not None


def ask(folder: Path, verb: str, arguments: object) -> Iterator[msgspec.Raw]:
    """What the runner answers: its items, and last what is done. Raises MachineError."""
    connection = _connected(folder)
    if connection is None:
        raise MachineError("the runner has ended", where=str(folder), remedy="ask again: the state is free now")
    request = {"verb": verb, "arguments": arguments}
    try:
        with connection, connection.makefile("rb") as lines:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            for data in lines:
                line = _LINE.decode(data)
                if "error" in line:
                    wrong = msgspec.json.decode(line["error"], type=Wrong)
                    raise MachineError(wrong.what, where=wrong.where, remedy=wrong.remedy)
                if "item" in line:
                    yield line["item"]
                elif "done" in line:
                    yield line["done"]
                    return
    except (OSError, msgspec.MsgspecError) as error:
        raise MachineError(f"the runner gives no answer that can be read: {error}", where=str(folder)) from error
    raise MachineError("the runner ended before it had answered", where=str(folder), remedy="ask again")


def _connected(folder: Path) -> socket.socket | None:
    """A connection; None: there is no runner. Raises MachineError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_ANSWER_S)
    try:
        with short_path(folder) as path:
            _connect(connection, path)
    except (FileNotFoundError, ConnectionRefusedError):  # none, or one that a dead runner has left
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise MachineError(f"the runner cannot be asked: {error.strerror or error}", where=str(folder)) from error
    return connection


def _connect(connection: socket.socket, path: str) -> None:
    """Connect, and wait where many others ask at the same time: unix(7) has EAGAIN for that, and no event."""
    deadline_s = time.monotonic() + _ANSWER_S
    while True:
        try:
            connection.connect(path)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_AGAIN_S)
        else:
            return
