"""`order = "keep"` with replicas: answers leave in the order of the messages, whoever gives them first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from runner.channel.base import Reader
from runner.codec.base import Batch
from runner.errors import CodecError


def acknowledge(reader: Reader, answers: Batch, publish: Callable[[Batch], None]) -> None:
    """Publish `answers`; each one that is in the channel acknowledges a message of `reader`."""
    try:
        publish(answers)
    except CodecError as error:
        reader.account.acknowledged += error.index
        raise
    reader.account.acknowledged += answers.count


@dataclass(slots=True, eq=False)
class Slot:
    """The place of the answers to one piece: what has been answered and may not leave yet, and how many are to come.

    `owner` is the instance that holds the piece; None while nobody does.
    """

    home: Sequencer

    reader: Reader
    missing: int
    owner: object | None
    answers: list[Batch] = field(default_factory=list)


class Sequencer:
    """Holds answers back until all earlier ones have left.

    What it holds is bounded: an instance whose answers are not next is `crowded` once `most_bytes` are held, and is
    not read until there is room; the one that holds the next piece is always read, and so are all while nobody does.
    """

    def __init__(self, publish: Callable[[Batch], None], *, most_bytes: int) -> None:
        self._publish = publish
        self._most_bytes = most_bytes
        self._slots: deque[Slot] = deque()
        self._held_bytes = 0
        self._waiting: list[Callable[[], None]] = []
        self._abandoned = False

    def open(self, reader: Reader, messages: int, owner: object, *, after: Slot | None = None) -> Slot:
        """The next place, for the answers to `messages` messages; `after`, made larger, where that is the last one."""
        if after is not None and self._slots and self._slots[-1] is after and after.reader is reader:
            after.missing += messages
            return after
        slot = Slot(self, reader, messages, owner)
        self._slots.append(slot)
        return slot

    def split(self, slot: Slot, messages: int) -> Slot:
        """Leave the last `messages` missing answers of `slot` to a place of their own, right behind it."""
        slot.missing -= messages
        behind = Slot(self, slot.reader, messages, None)
        if not self._abandoned:
            self._slots.insert(self._slots.index(slot) + 1, behind)
        return behind

    def own(self, slot: Slot, owner: object | None) -> None:
        """`owner` holds the piece of `slot` from now on."""
        slot.owner = owner
        self._let_in()

    def put(self, slot: Slot, answers: Batch) -> None:
        """`answers` to the next messages of the slot's piece; publishes whatever may leave.

        Raises CodecError when one cannot be carried: it and whatever waits behind it count as unread.
        """
        if self._abandoned:
            slot.reader.account.unread += answers.count
            return
        slot.answers.append(answers)
        slot.missing -= answers.count
        self._held_bytes += answers.size_bytes
        self._flush()

    def _flush(self) -> None:
        before = self._held_bytes
        while self._slots:
            head = self._slots[0]
            while head.answers:
                answers = head.answers.pop(0)
                self._held_bytes -= answers.size_bytes
                try:
                    acknowledge(head.reader, answers, self._publish)
                except CodecError as error:
                    head.reader.account.unread += answers.count - error.index
                    self.abandon()
                    raise
            if head.missing:
                break
            self._slots.popleft()
        if self._held_bytes < before:
            self._let_in()

    def _let_in(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def crowded(self, owner: object) -> bool:
        """Whether `owner` has to wait with its answers."""
        if self._held_bytes < self._most_bytes or self._abandoned:
            return False
        head = self._slots[0] if self._slots else None
        return head is not None and head.owner is not None and head.owner is not owner

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when something has left or changed hands."""
        self._waiting.append(callback)

    def held_messages(self, reader: Reader) -> int:
        """Answers to messages of `reader` that wait for earlier ones."""
        return sum(batch.count for slot in self._slots if slot.reader is reader for batch in slot.answers)

    def abandon(self) -> None:
        """The processor has failed: answers that can never leave, now or later, count their messages as unread."""
        self._abandoned = True
        for slot in self._slots:
            slot.reader.account.unread += sum(batch.count for batch in slot.answers)
        self._slots.clear()
        self._held_bytes = 0
        self._let_in()
