"""A proxy on loopback TCP that does to connections what networks do, each time it is told to.

Runner and runner (or server) speak to it as to each other. It runs in a thread of the test, and what it does is bound
to bytes that went through, not to time: a cut is in the middle of whatever is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Self, TypeVar

T = TypeVar("T")
_READ_BYTES = 64 << 10
_SPRING_LIMIT_S = 90.0
"""So long may pass until the bytes have gone through that a fault waits for."""
_GONE_LIMIT_S = 60.0
"""So long may pass until both ends have let go of a connection that is dead in one direction."""
_DELAY_S = 0.05
_SLOW_BYTES_PER_S = 100_000.0
_RESET = struct.pack("ii", 1, 0)


class Way(StrEnum):
    """Which bytes: those of who connects (forth) or of who listens (back)."""

    FORTH = "forth"
    BACK = "back"

    @property
    def other(self) -> Way:
        return Way.BACK if self is Way.FORTH else Way.FORTH


class What(StrEnum):
    """What becomes of a connection, or of all."""

    RESET = "reset"  # both ends get an RST after so many bytes
    FINISH = "finish"  # an end of the stream after so many bytes, the rest is thrown away
    CORRUPT = "corrupt"  # one byte is another
    DEAD = "dead"  # after so many bytes nothing comes any more, and nobody is told
    LOSE = "lose"  # for a while what is sent is thrown away
    STALL = "stall"  # for a while nothing is passed on
    DELAY = "delay"  # for a while each piece comes late
    THROTTLE = "throttle"  # for a while it is slow
    AWAY = "away"  # for a while nobody listens, and all connections are reset


@dataclass(frozen=True)
class Fault:
    """One of them. `after_bytes` of the direction pass first; `for_s` is how long it lasts; `change`: see CORRUPT."""

    what: What
    way: Way
    after_bytes: int = 0
    for_s: float = 0.0
    change: int = 1

    def __str__(self) -> str:
        return f"{self.what} {self.way} after {self.after_bytes} B for {self.for_s:.2f} s"


class _CutError(Exception):
    """The connection is to be reset."""


@dataclass(eq=False)
class _Trap:
    """A fault that waits for its bytes; `sprung` has the connection that it caught."""

    fault: Fault
    left_bytes: int
    sprung: asyncio.Future[_Link]


@dataclass(eq=False)
class _Link:
    """One connection: a socket to each end.

    `cut_off`: directions whose end has been passed on, what comes after it is thrown away. `dead`: those in which
    nothing is passed on any more, not even an end or a reset. `let_go`: who connected has ended it, `over`: both have.
    """

    near: socket.socket
    far: socket.socket
    cut_off: set[Way] = field(default_factory=set)
    dead: set[Way] = field(default_factory=set)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def ends(self, way: Way) -> tuple[socket.socket, socket.socket]:
        """Where bytes of that way come from, and where they go to."""
        return (self.near, self.far) if way is Way.FORTH else (self.far, self.near)


@dataclass
class _Flow:
    """What becomes of all bytes of one direction now."""

    usual_bytes_per_s: float
    bytes_per_s: float = 0.0
    delay_s: float = 0.0
    loses: bool = False
    trap: _Trap | None = None
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.mend()

    def worsen(self, what: What) -> None:
        """From now on."""
        if what is What.LOSE:
            self.loses = True
        elif what is What.STALL:
            self.open.clear()
        elif what is What.DELAY:
            self.delay_s = _DELAY_S
        else:
            self.bytes_per_s = _SLOW_BYTES_PER_S

    def mend(self) -> None:
        """All is well again."""
        self.loses, self.delay_s, self.bytes_per_s = False, 0.0, self.usual_bytes_per_s
        self.open.set()

    async def held_up(self, size_bytes: int) -> None:
        """Wait as long as so many bytes have to."""
        await self.open.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.bytes_per_s:
            await asyncio.sleep(size_bytes / self.bytes_per_s)


class Proxy:
    """Listens at `port`, and joins each connection to the port `target`. Use as a context manager."""

    def __init__(self, target: int, bytes_per_s: float = 0.0, *, listener_keeps: bool = False) -> None:
        self.target = target
        self.listener_keeps = listener_keeps
        """Who listens keeps a dead connection as long as it likes, or finds out by asking our kernel, which answers."""
        self.bytes_per_s = bytes_per_s
        """Never more than this goes forth; 0: as much as can."""
        self.port = 0
        self.connections = 0
        """How many have been joined so far."""
        self.passed_bytes = dict.fromkeys(Way, 0)
        self.wrong: list[BaseException] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._flows: dict[Way, _Flow] = {}
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert not self.wrong, self.wrong

    def _do(self, act: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(act, self._loop).result()

    def make(self, fault: Fault) -> bool:
        """Make one fault; returns when it is over.

        Of a changed byte: whether the connection that it came through has ended soon after, which those that are used
        for nothing by anybody do not need to.
        """
        return self._do(self._make(fault))

    # -- all below is the proxy's own thread

    async def _open(self) -> None:
        self._flows = {way: _Flow(self.bytes_per_s if way is Way.FORTH else 0.0) for way in Way}
        self._listen()

    async def _close(self) -> None:
        await self._away()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.settimeout(0)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(64)
        self.port = listening.getsockname()[1]
        self._listening = listening
        self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """By hand: a connection that `sock_accept` has when it is cancelled is nobody's."""
        try:
            near, _ = listening.accept()
        except OSError:
            return
        task = self._loop.create_task(self._join(near))
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, near))

    def _done(self, near: socket.socket, task: asyncio.Task[None]) -> None:
        near.close()  # of a task that never began as well
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.wrong.append(error)

    async def _away(self) -> None:
        """Nobody listens, and all connections are reset."""
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, near: socket.socket) -> None:
        far = socket.socket()
        for each in (near, far):
            each.settimeout(0)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(near, far)
        reset = True
        try:
            await self._loop.sock_connect(far, ("127.0.0.1", self.target))
            self.connections += 1
            self._links.add(link)
            reset = await self._carry(link)
        except OSError:
            pass  # nobody is at the target, which who came here has to bear
        finally:
            self._links.discard(link)
            for each in (near, far):
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.close()
            link.let_go.set()
            link.over.set()

    async def _carry(self, link: _Link) -> bool:
        """Both directions until their ends; whether it was cut."""
        tasks = [self._loop.create_task(self._relay(link, way)) for way in Way]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(
                result, OSError | _CutError | asyncio.CancelledError
            ):
                raise result
        return any(task.exception() is not None for task in done)

    async def _relay(self, link: _Link, way: Way) -> None:
        """One direction. A reset of either end is raised; of one that is behind a dead direction nobody hears."""
        source, sink = link.ends(way)
        while data := await self._next(link, way, source):
            try:
                await self._pass_on(link, way, sink, data)
            except OSError:
                if way.other not in link.dead:
                    raise
                await self._drain(source)
                return
        if way not in link.dead:
            with contextlib.suppress(OSError):  # that end may have gone as well
                sink.shutdown(socket.SHUT_WR)

    async def _next(self, link: _Link, way: Way, source: socket.socket) -> bytes:
        """What comes next; nothing: the end."""
        data = b""
        try:
            data = await self._loop.sock_recv(source, _READ_BYTES)
        except OSError:
            if way not in link.dead and not self._flows[way].loses:
                raise
        if not data and way is Way.FORTH:
            link.let_go.set()
        if not data and self._flows[way].loses:
            link.dead.add(way)
        return data

    async def _drain(self, source: socket.socket) -> None:
        """Take whatever still comes, until that end has had enough too."""
        with contextlib.suppress(OSError):
            while await self._loop.sock_recv(source, _READ_BYTES):
                pass

    async def _pass_on(self, link: _Link, way: Way, sink: socket.socket, data: bytes) -> None:
        flow = self._flows[way]
        await flow.held_up(len(data))
        if flow.loses or way in link.dead or way in link.cut_off:
            return
        trap = flow.trap
        if trap is not None:
            if trap.left_bytes < len(data):
                flow.trap = None
                await self._spring(trap, link, sink, data)
                return
            trap.left_bytes -= len(data)
        self.passed_bytes[way] += len(data)
        await self._loop.sock_sendall(sink, data)

    async def _spring(self, trap: _Trap, link: _Link, sink: socket.socket, data: bytes) -> None:
        fault, at = trap.fault, trap.left_bytes
        if not trap.sprung.done():
            trap.sprung.set_result(link)
        if fault.what is What.CORRUPT:
            await self._loop.sock_sendall(sink, data[:at] + bytes((data[at] ^ fault.change,)) + data[at + 1 :])
            return
        await self._loop.sock_sendall(sink, data[:at])
        if fault.what is What.RESET:
            raise _CutError
        if fault.what is What.FINISH:
            link.cut_off.add(fault.way)
            sink.shutdown(socket.SHUT_WR)
        else:
            link.dead.add(fault.way)

    # -- faults

    async def _make(self, fault: Fault) -> bool:
        if fault.what in (What.RESET, What.FINISH, What.CORRUPT, What.DEAD):
            return await self._catch(fault)
        if fault.what is What.AWAY:
            await self._away()
            await asyncio.sleep(fault.for_s)
            self._listen()
            return True
        flow = self._flows[fault.way]
        flow.worsen(fault.what)
        await asyncio.sleep(fault.for_s)
        flow.mend()
        return True

    async def _catch(self, fault: Fault) -> bool:
        flow = self._flows[fault.way]
        trap = flow.trap = _Trap(fault, fault.after_bytes, self._loop.create_future())
        try:
            async with asyncio.timeout(_SPRING_LIMIT_S):
                link = await trap.sprung
        except TimeoutError:
            raise AssertionError(f"{fault.after_bytes} bytes did not come in {_SPRING_LIMIT_S} s: {fault}") from None
        finally:
            flow.trap = None
        limit_s = fault.for_s if fault.what is What.CORRUPT else _GONE_LIMIT_S
        try:
            async with asyncio.timeout(limit_s):
                await (link.let_go if self.listener_keeps else link.over).wait()
        except TimeoutError:
            if fault.what is not What.CORRUPT:
                raise AssertionError(f"an end still holds its connection after {limit_s} s: {fault}") from None
            return False
        return True
