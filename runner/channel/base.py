"""The channel contract: writers at one end, readers at the other, messages in batches between them.

Obligations:
- Before the first batch, every processor that takes part has asked for its `Writer` or its `Reader`.
- A batch given to `Writer.publish` is in the channel when the call returns: every reader that has not left gets all
  of its messages, whole, in order (per writer), in its own framing.
- A channel never refuses for want of room. A writer asks `full` after each batch and, while it is true, reads no
  more from its program; it is called back when there is room. So a channel holds at most its capacity and one batch
  of each writer.
- When every writer has ended, readers find `ended` true; what is queued is still theirs.
- All calls are made on the event loop's thread; callbacks come on it too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from runner.codec.base import Batch, Codec


@dataclass(slots=True)
class Account:
    """What became of one reader's messages. Each field is counted where it happens; none is derived."""

    carried: int = 0
    replayed: int = 0
    acknowledged: int = 0
    dead: int = 0
    dropped: int = 0
    indeterminate: int = 0
    unread: int = 0


class Reader(ABC):
    """One processor's end of a channel; its replicas compete for the messages."""

    channel: str
    processor: str
    codec: Codec
    account: Account
    epoch: str = ""
    """Within it numbers are never given twice. A channel that lives as long as the run has none of its own."""
    number: int = 0
    """That of the first message of the batch that `take` returned last, from 1."""
    claims: bool = False
    """Whether what is taken is to be on record as handed out before anybody gets it; set by who reads, once."""
    outside: bool = False
    """Whether no processor reads it, but something outside of the pipeline, which has no instances and no inlet."""
    before: int = 0
    """All up to this number had an outcome when it was opened."""
    held: int = 0
    """Messages that were taken and have no outcome yet; counted by readers that are `outside`."""
    left_before: bool = False
    """Whether it had left for good in an earlier part of the run, which was cut short."""
    on_data: Callable[[], None]
    """Called when messages came or the channel ended; set by who reads."""
    on_replayed: Callable[[int, int], None] | None = None
    """Called with a number and a count when messages have an outcome that came back from dead letters. Their numbers
    are below 1: they are none of the channel's any more."""

    @property
    @abstractmethod
    def queued_messages(self) -> int:
        """Messages that wait here and are handed to nobody."""

    @property
    @abstractmethod
    def queued_bytes(self) -> int:
        """Their bytes, framed as this reader wants them."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether every writer has ended. Messages may still be queued, or come back."""

    @property
    @abstractmethod
    def left(self) -> bool:
        """Whether this reader wants no more."""

    @abstractmethod
    def take(
        self, *, most_bytes: int | None = None, most_messages: int | None = None, never_over: int | None = None
    ) -> Batch | None:
        """The next messages, in order; None when nothing is queued.

        `number` says which those are. Without bounds it is whatever the channel has in one piece. With bounds the batch
        fits them, but for a first message that is longer than `most_bytes`; one that is longer than `never_over` bytes
        stays where it is (None).
        """

    def acknowledge(self, number: int, messages: int) -> None:
        """The messages from `number` on are done with (contracts that answer)."""
        self.account.acknowledged += messages
        if number < 1 and self.on_replayed is not None:
            self.on_replayed(number, messages)

    def die(self, number: int) -> None:
        """The message `number` killed its program and is set aside."""
        del number
        self.account.dead += 1

    def passed(self, number: int, messages: int) -> None:  # noqa: B027 - most have nothing to do
        """A program under `stream` has read the messages from `number` on; `was_read` tells later how that ended."""

    def was_read(self, messages: int, *, handled: bool) -> None:
        """A program under `stream` has ended that had read so many: acknowledged if `handled`, else indeterminate.

        Which ones nobody needs to know here: `passed` was told.
        """
        if handled:
            self.account.acknowledged += messages
        else:
            self.account.indeterminate += messages

    def came_back(self, number: int, batch: Batch) -> bool:
        """The messages of `batch`, from `number` on, were taken and not read.

        Whether this reader hands them out again itself; else who took them does.
        """
        del number, batch
        return False

    def let_go(self) -> None:  # noqa: B027 - most set nothing aside
        """Nobody takes anything for now: what was set aside for the next `take` is on record as handed out no more."""

    @abstractmethod
    def leave(self, *, for_good: bool = False) -> None:
        """Want no more: what is queued, and whatever is published from now on, counts as unread.

        It holds up nobody. Unless it is `for_good`, a durable channel keeps it for the next run.
        """


class Writer(ABC):
    """One processor's end of a channel; its replicas share it."""

    codec: Codec
    """The framing of what is published."""

    @abstractmethod
    def publish(self, batch: Batch) -> None:
        """Put `batch` into the channel.

        Raises CodecError, with the message's number in the channel, when a message cannot be carried to a reader; the
        `index` messages before it are in the channel, it is counted as refused, and those after it are not taken.
        """

    @abstractmethod
    def check(self, batch: Batch) -> None:
        """Raises the CodecError that `publish` would raise, and counts the message as refused. Publishes nothing."""

    @abstractmethod
    def refuse(self, messages: int) -> None:
        """So many messages that were written are not put into the channel: they do not fit its schema."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether the writer should wait."""

    @property
    def ahead(self) -> bool:
        """Whether so much is queued already that it is better to let the readers catch up for a moment.

        Not a bound: memory that is soon used again is memory that is still in the processor's cache.
        """
        return False

    @property
    @abstractmethod
    def blocked_by(self) -> tuple[Reader, ...]:
        """The readers that make it wait."""

    @property
    def trouble(self) -> str | None:
        """Why it waits where no reader makes it wait; None: nothing but readers do."""
        return None

    @abstractmethod
    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the channel is no longer full."""

    @property
    @abstractmethod
    def wanted(self) -> bool:
        """Whether any reader has not left."""

    carried: int = 0
    """How many messages this processor had published in an earlier part of the run, which was cut short."""
    ended_before: bool = False
    """Whether it had ended for good in that part."""
    durable: bool = False
    """Whether what is published outlives the runner."""

    @abstractmethod
    def end(self, *, for_good: bool = False) -> None:
        """Nothing more comes from this processor. May be called more than once.

        `for_good`: it has ended as it should, so a durable channel puts that on record.
        """


@dataclass(frozen=True, slots=True)
class Outside:
    """What a channel that has something outside of the pipeline at one end asks of the run.

    `fail` ends the run at once: the end outside cannot go on, with a cause. `stop` ends it in order. `warn` tells a
    person.
    """

    fail: Callable[[str], None]
    stop: Callable[[str], None]
    warn: Callable[[str], None]


class Channel(ABC):
    """A channel of one kind. `counted` is False where the runner does not see the messages (`pipe`)."""

    kind: str
    counted: bool = True
    name: str
    written: int = 0
    refused: int = 0

    @property
    def listens(self) -> str | None:
        """Where it listens, for people, at the port that was free when it began; None: its port is in the file."""
        return None

    @property
    def far_trouble(self) -> str | None:
        """Why nobody is there at its far end, where it has one that somebody has to come to; None: it is joined."""
        return None

    @property
    @abstractmethod
    def readers(self) -> tuple[Reader, ...]:
        """All readers, in the order of the file."""

    @abstractmethod
    def open_reader(self, processor: str, codec: Codec) -> Reader:
        """The reading end for `processor`; once per processor and channel, before anything is published."""

    @abstractmethod
    def open_writer(self, processor: str, codec: Codec) -> Writer:
        """The writing end for `processor`; once per processor and port, after all readers."""

    @abstractmethod
    def on_readers_left(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the last reader has left."""

    def on_ended(self, callback: Callable[[], None]) -> None:  # noqa: B027 - most have no writer but processors
        """Call `callback` when a writer that is outside of the pipeline has ended."""

    def room(self) -> None:  # noqa: B027 - most see for themselves
        """What it stores may have room again."""

    def hold_up_nobody(self) -> None:  # noqa: B027 - most hold up nobody whose readers have left
        """The run is ended at once: nobody waits for room any more."""

    async def live(self, outside: Outside) -> None:
        """Move messages between it and what is outside of the pipeline, until nothing more comes; most have nothing.

        Called once, after all ends are open; the run waits for it. An end outside that is wrong is told to `outside`.
        """
        del outside

    def stop(self) -> None:  # noqa: B027 - most have nothing to do
        """The run is being stopped: nothing more is to come from outside. What is on its way out goes on."""

    def abandon(self) -> None:  # noqa: B027 - most have nothing to do
        """The run is ended at once: `live` ends as soon as it can, whatever it has not done."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; nothing is read or published after it."""
