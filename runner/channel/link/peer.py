"""What both sides of a link have in common: a far runner, with which one connection after the other is talked over."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from runner.channel.link.frames import Bye, Frame, Hello, Ping, Refused, decode, encode
from runner.channel.link.transport import HEADER_BYTES, Connection, DownError, RefusedError
from runner.channel.network import Here, Queue, far_name
from runner.clock import Clock, monotonic
from runner.codec.base import Buffer

FRAME_BYTES = 1 << 20
"""A frame has at most this many bytes of messages; one longer message has a frame of its own."""


def frame_bound(most_message_bytes: int) -> int:
    """The most bytes of one frame where messages have at most so many, their framing not counted."""
    return most_message_bytes + FRAME_BYTES + HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `beat_s`: how often each side says that it is there; `silent_s`: when the other counts as gone.

    `hello_s` bounds the first exchange, `linger_s` how long a reader that has all waits to be told that this is known,
    `patience_s` how long nobody may be there before a person is told.
    """

    hello_s: float = 10.0
    beat_s: float = 5.0
    silent_s: float = 15.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0
    linger_s: float = 10.0
    patience_s: float = 1.0


TIMING = Timing()


class Peer(ABC):
    """One runner at the other end of a channel: what was sent to it or came from it, whatever becomes of connections.

    `finished` is set when there is nothing more to do with it.
    """

    role: Literal["writer", "reader"]

    def __init__(
        self, runner: str, queue: Queue, here: Here, timing: Timing = TIMING, clock: Clock = monotonic
    ) -> None:
        self.runner = runner
        self.name = far_name(runner)
        self.queue = queue
        self.here = here
        self.timing = timing
        self.finished = asyncio.Event()
        self.connection: Connection | None = None
        self.down = "nobody has come yet"
        """Why there is no connection."""
        self.down_since_s = clock()
        self.on_finished: Callable[[], None] = lambda: None
        self.on_joined: Callable[[], None] = lambda: None
        self._clock = clock
        self._wake = asyncio.Event()
        self._heard_s = 0.0

    @abstractmethod
    def hello(self) -> Hello:
        """What we say first."""

    @abstractmethod
    def judge(self, theirs: Hello) -> None:
        """Whether we can talk, by what the other side said first. Raises RefusedError."""

    @abstractmethod
    async def act(self, connection: Connection) -> None:
        """Send whatever there is to send, until all is done."""

    @abstractmethod
    def take(self, frame: Frame) -> None:
        """Handle one frame that came. Raises DownError; RunnerError where the run cannot go on."""

    @abstractmethod
    def stop(self) -> None:
        """The run is being stopped."""

    @abstractmethod
    def connection_lost(self) -> None:
        """The connection is no more."""

    async def talk(self, connection: Connection, theirs: Hello) -> None:
        """Go on over `connection` until it is down or all is done. Raises DownError, and RunnerError."""
        self.judge(theirs)
        self._heard_s = self._clock()
        self.connection = connection
        self.on_joined()
        try:
            await first_of(self.act(connection), connection.hand_to(self._hear), self._beat(connection))
        except DownError as error:
            self.down = str(error)
            raise
        finally:
            self.connection = None
            self.down_since_s = self._clock()
            self.connection_lost()

    def _hear(self, frame: Buffer) -> None:
        """What came over the connection. Raises as `take` does."""
        value = decode(frame)
        self._heard_s = self._clock()
        if isinstance(value, Ping):
            return
        if isinstance(value, Refused):
            raise RefusedError(value.why) if value.final else DownError(value.why)
        if isinstance(value, Bye) and not value.final:
            raise DownError(value.why)
        self.take(value)

    async def _beat(self, connection: Connection) -> None:
        """Close a connection that is silent: a cut cable says nothing. Part of a frame is not silence."""
        before = connection.progress()
        while True:
            await asyncio.sleep(self.timing.beat_s)
            progress = connection.progress()
            if progress != before:
                before, self._heard_s = progress, self._clock()
            silent_s = self._clock() - self._heard_s
            if silent_s > self.timing.silent_s:
                why = f"nothing was heard of it for {silent_s:.0f} s"
                connection.close(why)
                raise DownError(why)
            self.moved()

    def moved(self) -> None:
        """There may be something to send, or nothing more to do."""
        self._wake.set()

    def finish(self) -> None:
        """There is nothing more to do with it."""
        if not self.finished.is_set():
            self.finished.set()
            self._wake.set()
            self.on_finished()

    def trouble(self) -> str | None:
        """Why it takes or sends nothing, as a sentence; None: it is there, or is not needed any more."""
        if self.connection is not None or self.finished.is_set():
            return None
        return f"{self.called} is not there: {self.down}"

    def missing_for(self, seconds: float) -> bool:
        """Whether there has been no connection for so long."""
        return self.connection is None and self._clock() - self.down_since_s >= seconds

    @property
    def called(self) -> str:
        """What people call it."""
        return f"runner `{self.runner}`" if self.runner else "the other end"


async def first_of(*acts: Coroutine[Any, Any, None]) -> None:
    """Run all until the first returns or raises, which is what becomes of all of them."""
    tasks = [asyncio.ensure_future(each) for each in acts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()


async def exchange(connection: Connection, ours: Hello | None, within_s: float) -> Hello:
    """Send `ours`, if it is known before, and wait for theirs. Raises DownError."""
    try:
        async with asyncio.timeout(within_s):
            if ours is not None:
                await connection.send(encode(ours))
            frame = decode(await connection.receive())
    except TimeoutError as error:
        raise DownError("it does not say who it is") from error
    if isinstance(frame, Refused):
        raise RefusedError(frame.why) if frame.final else DownError(frame.why)
    if isinstance(frame, Bye):
        raise DownError(frame.why)
    if not isinstance(frame, Hello):
        raise DownError("it does not say who it is")
    return frame


def check_fit(ours: Hello, theirs: Hello) -> None:
    """Raises RefusedError where two that say these do not belong together."""
    why = unfit(ours, theirs)
    if why is not None:
        raise RefusedError(why)


def unfit(ours: Hello, theirs: Hello) -> str | None:
    """Why two that say these do not belong together; None: they do."""
    if theirs.link != ours.link:
        return f"it speaks version {theirs.link} of the link protocol, and this runner version {ours.link}"
    if (theirs.pipeline, theirs.channel) != (ours.pipeline, ours.channel):
        there, here = (f"channel `{each.channel}` of pipeline `{each.pipeline}`" for each in (theirs, ours))
        return f"it is for {there}, and this is {here}"
    if theirs.role == ours.role:
        return f"both ends are {ours.role}s of the channel"
    if theirs.codec != ours.codec:
        return f'it frames messages as "{theirs.codec}", and this end as "{ours.codec}"'
    return None
