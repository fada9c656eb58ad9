"""A transport in memory that does to frames what networks do: cut, lose what was under way, hang, change a byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from runner.channel.link.transport import Accept, Connection, DownError, Listener, PromptConnection, Transport
from runner.codec.base import Buffer

_QUEUED = 8
T = TypeVar("T")


class Half(PromptConnection):
    """One end of a connection; what is sent comes out of `other`."""

    def __init__(self, wire: Wire, remote: str) -> None:
        self.remote = remote
        self.wire = wire
        self.other: Half = self
        self.why: str | None = None
        self.arrived: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
        self.broken = asyncio.Event()

    async def send(self, *parts: Buffer) -> None:
        if self.why is not None:
            raise DownError(self.why)
        frame = self.wire.pass_on(self, b"".join(parts))
        if frame is not None:
            await self._or_broken(self.other.arrived.put(frame))

    @property
    def ready(self) -> bool:
        return self.wire.direct and self.why is None and not self.other.arrived.full()

    def send_now(self, *parts: Buffer) -> None:
        with contextlib.suppress(DownError):  # the next call tells it
            frame = self.wire.pass_on(self, b"".join(parts))
            if frame is not None:
                self.other.arrived.put_nowait(frame)

    async def receive(self) -> Buffer:
        frame = await self._or_broken(self.arrived.get())
        if frame is None:
            raise DownError("connection ended")
        return frame

    async def _or_broken(self, act: Coroutine[Any, Any, T]) -> T:
        if self.why is not None:
            act.close()
            raise DownError(self.why)
        doing = asyncio.ensure_future(act)
        breaking = asyncio.ensure_future(self.broken.wait())
        try:
            await asyncio.wait((doing, breaking), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise DownError(self.why or "closed")
            return doing.result()
        finally:
            doing.cancel()
            breaking.cancel()

    def close(self, why: str) -> None:
        self._break(why)
        self.other._break("connection reset")

    def _break(self, why: str) -> None:
        if self.why is None:
            self.why = why
            self.broken.set()

    async def finish(self) -> None:
        if self.why is None:
            await self._or_broken(self.other.arrived.put(None))


class Wire(Transport):
    """`fault` says of each frame what becomes of it: "" (it arrives), "cut", "lose" (and cut), "corrupt", "hang".

    `direct`: frames can be sent without waiting, where there is room.
    """

    address = "wire"

    def __init__(self, fault: Callable[[int], str] = lambda _number: "", *, direct: bool = False) -> None:
        self.fault = fault
        self.direct = direct
        self.frames = 0
        self.faults = 0
        self.connections: list[Half] = []
        self.refuses = False
        self._accept: Accept | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random(1)
        self._hung: set[Half] = set()

    def pass_on(self, half: Half, frame: bytes) -> bytes | None:
        if half in self._hung or half.other in self._hung:
            return None
        self.frames += 1
        fault = self.fault(self.frames)
        self.faults += bool(fault)
        if fault == "cut":
            asyncio.get_running_loop().call_soon(half.close, "cut")
        elif fault == "lose":
            half.close("cut")
            raise DownError("cut")
        elif fault == "corrupt":
            place = self._random.randrange(len(frame))
            return frame[:place] + bytes((frame[place] ^ 1 << self._random.randrange(8),)) + frame[place + 1 :]
        elif fault == "hang":
            self._hung.add(half)
            return None
        return frame

    async def connect(self) -> Connection:
        await asyncio.sleep(0)
        if self._accept is None or self.refuses:
            raise DownError("connection refused")
        here, there = Half(self, "listener"), Half(self, "stranger")
        here.other, there.other = there, here
        self.connections.append(here)
        task = asyncio.create_task(self._handle(there))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return here

    async def _handle(self, there: Half) -> None:
        assert self._accept is not None
        try:
            await self._accept(there)
        finally:
            there.close("handled")

    def cut(self) -> None:
        for half in self.connections:
            half.close("cut")
        self.connections.clear()

    async def listen(self, accept: Accept) -> Listener:
        if self._accept is not None:
            raise DownError("address already in use")
        self._accept = accept
        return _Listening(self)

    def forget(self) -> None:
        self._accept = None


class _Listening(Listener):
    address = "wire"

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def close(self) -> None:
        self._wire.forget()
