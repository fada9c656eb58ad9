"""`order = "keep"` with replicas: answers leave in the order of the messages, whoever gives them first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from runner.channel.base import Reader
from runner.codec.base import Batch
from runner.errors import CodecError


def acknowledge(reader: Reader, number: int, answers: Batch, publish: Callable[[Batch], None]) -> None:
    """Publish `answers`; each one that is in the channel acknowledges a message of `reader`, from `number` on."""
    try:
        publish(answers)
    except CodecError as error:
        reader.acknowledge(number, error.index)
        raise
    reader.acknowledge(number, answers.count)


@dataclass(slots=True, eq=False)
class Slot:
    """The place of the answers to one piece: what has been answered and may not leave yet, and how many are to come.

    `number` is that of the message whose answer leaves next. `owner` is the instance that holds the piece; None while
    nobody does.
    """

    home: Sequencer

    reader: Reader
    number: int
    missing: int
    owner: object | None
    answers: list[Batch] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The number after that of its last message."""
        return self.number + sum(batch.count for batch in self.answers) + self.missing


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

    def open(self, reader: Reader, number: int, messages: int, owner: object, *, after: Slot | None = None) -> Slot:
        """The next place, for the answers to the messages from `number` on.

        It is `after`, made larger, where that is the last one and they follow upon its messages.
        """
        last = self._slots[-1] if self._slots else None
        if after is not None and last is after and after.reader is reader and after.end == number:
            after.missing += messages
            return after
        slot = Slot(self, reader, number, messages, owner)
        self._slots.append(slot)
        return slot

    def split(self, slot: Slot, messages: int) -> Slot:
        """Leave the last `messages` missing answers of `slot` to a place of their own, right behind it."""
        slot.missing -= messages
        behind = Slot(self, slot.reader, slot.end, messages, None)
        if not self._abandoned:
            self._slots.insert(self._slots.index(slot) + 1, behind)
        return behind

    def give_up(self, slot: Slot) -> None:
        """The first missing answer of `slot`, which holds none, will never come; publishes whatever may leave now.

        Raises CodecError as `put`.
        """
        if self._abandoned:
            return
        slot.missing -= 1
        slot.number += 1
        self._flush()
        self._let_in()

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
                number, head.number = head.number, head.number + answers.count
                try:
                    acknowledge(head.reader, number, answers, self._publish)
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
