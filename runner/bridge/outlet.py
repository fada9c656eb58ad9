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
        """Take whole messages. Raises CodecError, ContractError or MachineError: it ends the run for good."""


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


def _framed(messages: Sequence[bytes]) -> Batch:
    data = b"".join(messages)
    return Batch((data,), len(messages), len(data))


class Outlet(Delivery):
    """All channels that one port of a processor is joined to; its replicas share it."""

    def __init__(self, port: str, writers: Sequence[Writer], screens: Sequence[Screen | None] = ()) -> None:
        self.port = port
        self._screens = tuple(screens) if any(screens) else ()
        self.writers = tuple(writers)
        self.written = 0
        self.refused = 0
        self.ended = False
        self._verdict: tuple[Batch, list[bytes], list[list[str | None]]] | None = None
        """What was judged last, and is not delivered."""

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
        if not self._screens:
            for writer in self.writers:
                writer.check(batch)
            return
        framed, verdicts = self._judged(batch)
        for writer, wrong in zip(self.writers, verdicts, strict=True):
            fit = [message for message, cause in zip(framed, wrong, strict=True) if cause is None]
            if fit:
                writer.check(_framed(fit))

    def _judged(self, batch: Batch) -> tuple[list[bytes], list[list[str | None]]]:
        """The messages of `batch`; and for each channel what is wrong with each of them (None: nothing)."""
        if self._verdict is None or self._verdict[0] is not batch:
            codec = self.writers[0].codec
            framed = codec.split(batch)
            payloads = [codec.payload(message) for message in framed]
            wrong = [
                [screen.wrong(payload) if screen is not None else None for payload in payloads]
                for screen in self._screens
            ]
            self._verdict = batch, framed, wrong
        return self._verdict[1:]

    def _deliver_screened(self, batch: Batch) -> None:
        """The same, where a channel of the port has a schema. What no channel takes counts as refused by the port."""
        framed, verdicts = self._judged(batch)
        self._verdict = None
        first = self.written + self.refused + self.carried + 1
        taken = [False] * len(framed)
        count = len(framed)
        failed: CodecError | None = None
        for writer, screen, wrong in zip(self.writers, self._screens, verdicts, strict=True):
            fit = []
            for index in range(count):
                cause = wrong[index]
                if screen is None or cause is None:
                    fit.append(index)
                else:
                    writer.refuse(1)
                    screen.on_refused(first + index, self.writers[0].codec.payload(framed[index]), cause)
            try:
                if fit:
                    writer.publish(_framed([framed[index] for index in fit]))
            except CodecError as error:
                failed, error.index = error, fit[error.index]
                count = error.index  # no channel of the port gets more than this one
            for index in fit:
                taken[index] = True
        through = sum(taken[:count])
        self.written += through
        self.refused += count - through
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
        self.ended = True
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
