"""One output port of a processor: where its messages are delivered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from runner.bridge.screen import Screen
from runner.channel.base import Reader, Writer
from runner.codec.base import Batch
from runner.errors import CodecError


class Room(ABC):
    """Whether there is room for what a program writes."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether the program should not be read for now."""

    @property
    def ahead(self) -> bool:
        """Whether so much waits already that reading on at once gains nothing."""
        return False

    @abstractmethod
    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when it is worth asking again."""

    @property
    @abstractmethod
    def blocked_by(self) -> tuple[Reader, ...]:
        """The readers that make it wait."""

    @property
    def trouble(self) -> str | None:
        """See `Writer.trouble`."""
        return None


class Delivery(Room):
    """Where a collector puts the messages that it read."""

    @abstractmethod
    def deliver(self, batch: Batch) -> None:
        """Take whole messages. Raises RunnerError, mostly CodecError or ContractError: it ends the run for good."""


class RoomOf(Room):
    """Room in all of several."""

    def __init__(self, rooms: Sequence[Room]) -> None:
        self._rooms = tuple(rooms)

    @property
    def full(self) -> bool:
        """See `Room`."""
        return any(room.full for room in self._rooms)

    @property
    def ahead(self) -> bool:
        """See `Room`."""
        return any(room.ahead for room in self._rooms)

    def when_room(self, callback: Callable[[], None]) -> None:
        """See `Room`."""
        for room in self._rooms:
            if room.full:
                room.when_room(callback)
                return
        callback()

    @property
    def blocked_by(self) -> tuple[Reader, ...]:
        """See `Room`."""
        return tuple(reader for room in self._rooms for reader in room.blocked_by)

    @property
    def trouble(self) -> str | None:
        """See `Room`."""
        return next((room.trouble for room in self._rooms if room.trouble is not None), None)


def _fits(screen: Screen | None, writer: Writer, number: int, payload: bytes) -> bool:
    """Whether the message may go into the channel of `writer`; one that may not is refused."""
    cause = screen.wrong(payload) if screen is not None else None
    if screen is None or cause is None:
        return True
    writer.refuse(1)
    screen.on_refused(number, payload, cause)
    return False


class Outlet(Delivery):
    """All channels that one port of a processor is joined to; its replicas share it."""

    def __init__(self, port: str, writers: Sequence[Writer], screens: Sequence[Screen | None] = ()) -> None:
        self.port = port
        self._screens = tuple(screens) if any(screens) else ()
        self.writers = tuple(writers)
        self.written = 0
        self.refused = 0

    def deliver(self, batch: Batch) -> None:
        """See `Delivery`."""
        if self._screens:
            self._deliver_screened(batch)
            return
        refused: CodecError | None = None
        for writer in self.writers:
            try:
                writer.publish(batch)
            except CodecError as error:
                refused = error
                batch, _ = writer.codec.skip(batch, error.index)  # no channel of the port gets more than this one
        self.written += batch.count
        if refused is not None:
            raise refused

    def check(self, batch: Batch) -> None:
        """Raises the CodecError that `deliver` would raise; delivers nothing."""
        for writer in self.writers:
            writer.check(batch)

    def _deliver_screened(self, batch: Batch) -> None:
        """The same, where a channel of the port has a schema. What no channel takes counts as refused by the port."""
        codec = self.writers[0].codec
        framed = codec.split(batch)
        payloads = [codec.payload(message) for message in framed]
        taken = [False] * len(framed)
        first = self.written + self.refused + self.carried + 1
        failed: CodecError | None = None
        for writer, screen in zip(self.writers, self._screens, strict=True):
            fit = [index for index, payload in enumerate(payloads) if _fits(screen, writer, first + index, payload)]
            try:
                if fit:
                    data = b"".join(framed[index] for index in fit)
                    writer.publish(Batch((data,), len(fit), len(data)))
            except CodecError as error:
                failed, error.index = error, fit[error.index]
                del payloads[error.index :]  # no channel of the port gets more than this one
            for index in fit:
                taken[index] = True
        through = sum(taken[: len(payloads)])
        self.written += through
        self.refused += len(payloads) - through
        if failed is not None:
            raise failed

    @property
    def full(self) -> bool:
        """See `Delivery`."""
        for writer in self.writers:  # noqa: SIM110 - asked after every read: a generator would cost as much again
            if writer.full:
                return True
        return False

    @property
    def ahead(self) -> bool:
        """See `Delivery`."""
        for writer in self.writers:  # noqa: SIM110 - as in `full`
            if writer.ahead:
                return True
        return False

    def when_room(self, callback: Callable[[], None]) -> None:
        """See `Delivery`."""
        for writer in self.writers:
            if writer.full:
                writer.when_room(callback)
                return
        callback()

    @property
    def blocked_by(self) -> tuple[Reader, ...]:
        """See `Delivery`."""
        return tuple(reader for writer in self.writers for reader in writer.blocked_by)

    @property
    def trouble(self) -> str | None:
        """See `Delivery`."""
        return next((writer.trouble for writer in self.writers if writer.trouble is not None), None)

    @property
    def wanted(self) -> bool:
        """Whether any reader of any of its channels has not left."""
        return any(writer.wanted for writer in self.writers)

    def end(self, *, for_good: bool) -> None:
        """Nothing more comes from this processor's port. See `Writer.end`."""
        for writer in self.writers:
            writer.end(for_good=for_good)

    @property
    def carried(self) -> int:
        """How many messages were delivered here in an earlier part of the run."""
        return max(writer.carried for writer in self.writers)

    @property
    def ended_before(self) -> bool:
        """Whether all of it had ended for good then."""
        return all(writer.ended_before for writer in self.writers)
