"""The transport contract: what carries the frames of a link, whole and in order, from one runner to the other.

A transport may lose its connection at any time and need not say what of the last frames arrived: the link above it
numbers, acknowledges and repeats. It need not check bytes either: every frame has a checksum of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from runner.codec.base import Buffer
from runner.errors import RunnerError

MOST_UNSENT_BYTES = 1 << 20
"""More than this does not wait in a connection to be sent."""
HEADER_BYTES = 64
"""A frame is at most this longer than the messages that it carries."""


class DownError(Exception):
    """The connection is no more, or was never there; its text says why, as the end of a sentence."""


class RefusedError(DownError):
    """The other side wants nothing of us, and another try would bring the same."""


class Connection(ABC):
    """One connection. All calls are made on the event loop's thread; at most one `send` at a time.

    Frames are received one by one (`receive`) or handed over (`hand_to`), never both at the same time.
    """

    remote: str
    """Who is at the other end, for people: an address."""

    @abstractmethod
    async def send(self, *parts: Buffer) -> None:
        """Send the bytes of `parts` as one frame; returns when at most MOST_UNSENT_BYTES wait. Raises DownError."""

    @abstractmethod
    async def receive(self) -> Buffer:
        """The next frame. Whoever gets it may keep it. Raises DownError."""

    async def hand_to(self, take: Callable[[Buffer], None]) -> None:
        """Call `take` with each frame, as early as can be, until it raises or the connection is down: raises that."""
        while True:
            take(await self.receive())

    def progress(self) -> int:
        """A number that changes while bytes come, also those of a frame that is not whole; always 0: nobody knows."""
        return 0

    @abstractmethod
    def close(self, why: str) -> None:
        """Close it at once: what is not sent is lost; `send` and `receive` raise DownError with `why` from now on.

        May be called more than once; the first reason stays.
        """

    @abstractmethod
    async def finish(self) -> None:
        """Send what waits, then close; returns when that is done or has failed. The caller bounds the time."""


class PromptConnection(Connection):
    """A connection that can also send without waiting."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether `send_now` may be called now; False: only `send`."""

    @abstractmethod
    def send_now(self, *parts: Buffer) -> None:
        """As `send`, without waiting; what fails is told by whatever is called next."""


class Listener(ABC):
    """A listening address."""

    address: str
    """Where it listens, for people, its port filled in."""

    @abstractmethod
    async def close(self) -> None:
        """Listen no more. Connections that were accepted are not touched."""


Accept = Callable[[Connection], Awaitable[None]]
"""Is given each accepted connection, in a task of the transport's; the connection is closed when it returns."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a listener and a connection allow: bytes of a frame, connections that have not said who they are."""

    frame_bytes: int
    strangers: int = 16


class Transport(ABC):
    """How a channel's two runners reach each other. Made of the channel's `Network`."""

    address: str
    """Where, for people: "tcp://127.0.0.1:7400"."""

    @abstractmethod
    async def connect(self) -> Connection:
        """A new connection. Raises DownError (it is tried again), RunnerError for what no other try mends (keys)."""

    @abstractmethod
    async def listen(self, accept: Accept) -> Listener:
        """Listen. Raises DownError while the address is taken (it is tried again), RunnerError for what stays wrong."""


def cannot_listen(address: str, why: str, remedy: str | None = None) -> RunnerError:
    """The error of a listener that will never work."""
    return RunnerError(f"cannot listen at {address}: {why}", remedy=remedy)
