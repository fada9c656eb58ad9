"""The containers that attached processors run in, as their shims: who has come, who is free, who waits for one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import deque
from collections.abc import Callable
from pathlib import PurePosixPath

from runner.launch.attached_folder import AttachedFolder
from runner.launch.container_log import ContainerLog, first_packet
from runner.launch.peer import peer_of
from runner.launch.shim_client import VERSION, Hello, ShimConnection, decode_hello

_HELLO_S = 10.0
_SPARE = 16
_WAITING = 16
_NO_DESCRIPTOR_S = 1.0
_STOPPED = 128 + 15


class Seat:
    """One container, as the shim in it. `inside` is the bridge folder as it sees it, `pid` the shim (0: not seen).

    `asked`: somebody has asked it to stop. `leaving`: that is about it alone, and it goes when its program has ended.
    """

    def __init__(self, bridge: Bridge, channel: socket.socket, hello: Hello, log: ContainerLog) -> None:
        self.inside = str(PurePosixPath(hello.path).parent)
        self.pid = peer_of(channel)
        self.asked = False
        self.leaving = False
        self.taken = False
        self.on_leaving: Callable[[], None] | None = None
        self.connection = ShimConnection(channel, on_lost=self._lost, on_stop_requested=self._asked)
        self._bridge = bridge
        self._log = log

    def write_log(self, text: str) -> bool:
        """Write a line into its log; False: it has none, or that is behind."""
        return self._log.write(text)

    @property
    def usable(self) -> bool:
        """Whether another program can be started in it."""
        return not self.connection.lost and not self.leaving

    def leave(self) -> None:
        """It alone is to stop: its program is asked to end, and at the latest by `let_go` it is gone."""
        self.leaving = True
        if self.on_leaving is not None:
            self.on_leaving()
        else:
            self.let_go()

    def let_go(self) -> None:
        """Its container may end: what still runs in it is killed."""
        self.connection.tell_over(_STOPPED)
        self.forget()

    def break_off(self) -> None:
        """Nobody knows what runs in it: the shim kills that, and comes back."""
        self.connection.close()
        self.forget()

    def close_log(self) -> None:
        """Its log gets no more lines."""
        self._log.close()

    def forget(self) -> None:
        """It is not there any more."""
        self.close_log()
        self._bridge.forget(self)

    def _lost(self) -> None:
        self.forget()

    def _asked(self) -> None:
        if not self.asked:
            self.asked = True
            self._bridge.on_asked()


class Bridge:
    """The door of one processor.

    `on_asked` is called when a container is asked to stop, `on_come` when one has come after the end, and `on_misfit`,
    with a sentence, when somebody is turned away that a person should know of.
    """

    def __init__(
        self,
        folder: AttachedFolder,
        replicas: int,
        *,
        on_asked: Callable[[], None],
        on_come: Callable[[], None],
        on_misfit: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.on_asked = on_asked
        self.seats: set[Seat] = set()
        self.over: int | None = None
        self._most = replicas + _SPARE
        self._expected = 0
        self._on_come = on_come
        self._on_misfit = on_misfit
        self._replicas = replicas
        self._closed = False
        self._free: deque[Seat] = deque()
        self._waiters: deque[asyncio.Future[Seat]] = deque()
        self._greeting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._listener = folder.listen(_WAITING)
        self._loop.add_reader(self._listener.fileno(), self._knocked)

    @property
    def missing(self) -> bool:
        """Whether a container that was here is away."""
        return len(self.seats) < self._expected

    def ask(self, *, standby: bool) -> asyncio.Future[Seat]:
        """A future of a free seat; to be cancelled, or given to `withdraw`, by who does not want it any more.

        Who stands by gets one after all who are missed.
        """
        future: asyncio.Future[Seat] = self._loop.create_future()
        while self._free and not future.done():
            seat = self._free.popleft()
            if seat.usable:
                seat.taken = True
                future.set_result(seat)
        if not future.done():
            (self._waiters.append if standby else self._waiters.appendleft)(future)
        return future

    def withdraw(self, future: asyncio.Future[Seat]) -> None:
        """Nobody wants it any more."""
        if not future.cancel() and not future.cancelled():
            self.give_back(future.result())
        with contextlib.suppress(ValueError):
            self._waiters.remove(future)

    def give_back(self, seat: Seat) -> None:
        """Nothing runs in it; another may have it."""
        seat.taken = False
        seat.on_leaving = None
        if not seat.usable:
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                seat.taken = True
                waiter.set_result(seat)
                return
        self._free.append(seat)

    def forget(self, seat: Seat) -> None:
        """It is not there any more; one that was let go is not expected back."""
        if seat in self.seats and seat.leaving:
            self._expected -= 1
        self.seats.discard(seat)
        with contextlib.suppress(ValueError):
            self._free.remove(seat)

    def tell_over(self, code: int) -> None:
        """The run is over: all that are here, and whoever comes from now on, may end."""
        self.over = code
        self._expected -= len(self.seats)
        for seat in list(self.seats):
            seat.connection.tell_over(code)
            seat.close_log()
        self.seats.clear()

    async def close(self) -> None:
        """Nobody is let in any more, and who is here is left alone. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for task in self._greeting:
            task.cancel()
        if self._greeting:
            await asyncio.wait(self._greeting)
        for seat in list(self.seats):
            seat.connection.close()
            seat.close_log()
        self.seats.clear()
        self.folder.close()

    def _knocked(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                self._loop.remove_reader(self._listener.fileno())  # it would knock on
                self._loop.call_later(_NO_DESCRIPTOR_S, self._open_again)
            return
        if len(self.seats) + len(self._greeting) >= self._most:
            channel.close()
            many = f"far more shims than it has instances ({self._replicas}) connect at its socket"
            self._on_misfit(f"{many}: the rest are turned away")
            return
        channel.setblocking(False)  # noqa: FBT003 - the library's own shape
        task = self._loop.create_task(self._greet(channel))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    def _open_again(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._knocked)

    async def _greet(self, channel: socket.socket) -> None:
        """Let in who says hello soon; anybody else is turned away."""
        log = ContainerLog(None)
        try:
            async with asyncio.timeout(_HELLO_S):
                said, log = await first_packet(channel)
                hello = decode_hello(said)
        except (OSError, TimeoutError):
            hello = None
        except asyncio.CancelledError:
            channel.close()
            raise
        if hello is None or hello.version != VERSION:
            log.close()
            channel.close()
            if hello is not None:
                other = f"a shim of another version ({hello.version}, not {VERSION})"
                self._on_misfit(f"{other} is turned away: restart its container")
            return
        seat = Seat(self, channel, hello, log)
        if self.over is not None:
            log.close()
            seat.connection.tell_over(self.over)
            self._expected -= 1
            self._on_come()
            return
        seat.connection.welcome()
        self.seats.add(seat)
        self._expected = max(self._expected, len(self.seats))
        self.give_back(seat)
