"""How far one reader has come in one channel: a value, and what makes a new one of it.

Messages are numbered from 1. Each has at most one outcome: acknowledged, indeterminate, dead or dropped. Up to `base`
all have one. Beyond it, `done` are those that have one already (replicas answer in any order), and `claimed` those that
were handed out by a contract that cannot tell whether they are read twice (`stream`): they are committed as claimed
before the bytes are written to the program.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from runner.codec.base import Buffer
from runner.errors import BugError
from runner.store.ranges import Range, Ranges, added, covers, gaps, meets, removed, sound, total
from runner.store.sealed import SealError, seal, unseal

_Stored = tuple[int, list[Range], list[Range], int, int, int, int, int]
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Stored)


class Cursor(msgspec.Struct, frozen=True):
    """See the module. The counts say what became of the messages that have an outcome since the reader is known.

    `begun` messages were passed before it was there (a reader that joined late), so that
    begun + acknowledged + indeterminate + dead + dropped is `base` and the numbers in `done`. Of the indeterminate,
    `read` are with programs that run on: they may be acknowledged yet.
    """

    base: int = 0
    done: Ranges = ()
    claimed: Ranges = ()
    acknowledged: int = 0
    indeterminate: int = 0
    dead: int = 0
    dropped: int = 0
    read: int = 0

    @property
    def outcomes(self) -> int:
        """How many messages have an outcome, those before the reader was there among them."""
        return self.base + total(self.done)

    @property
    def begun(self) -> int:
        """How many messages were passed before the reader was there."""
        return self.outcomes - self.acknowledged - self.indeterminate - self.dead - self.dropped

    @property
    def handed_out(self) -> int:
        """How many messages are claimed and have no outcome."""
        return total(self.claimed)

    def open_ranges(self, last: int) -> Ranges:
        """Which messages up to number `last` have no outcome; the claimed are among them."""
        return gaps(self.done, self.base + 1, last)

    def acknowledge(self, number: int, count: int) -> Cursor:
        """`count` messages from `number` on are acknowledged."""
        return self._settled(number, count, acknowledged=count)

    def mark_indeterminate(self, number: int, count: int) -> Cursor:
        """`count` messages from `number` on were read, and nobody knows what became of them."""
        moved = self._settled(number, count)
        return replace(moved, indeterminate=moved.indeterminate + count)

    def mark_read(self, number: int, count: int) -> Cursor:
        """`count` messages from `number` on were read by a program that runs on; `settle_read` tells how that ended."""
        return self._settled(number, count, indeterminate=count, read=count)

    def settle_read(self, count: int, *, handled: bool) -> Cursor:
        """A program has ended that had read `count` messages: they are acknowledged if `handled`."""
        if not 0 <= count <= self.read:
            raise BugError(f"{count:,} messages are settled, and {self.read:,} were read")
        moved = replace(self, read=self.read - count)
        if not handled:
            return moved
        return replace(moved, acknowledged=self.acknowledged + count, indeterminate=self.indeterminate - count)

    def mark_dead(self, number: int, count: int) -> Cursor:
        """`count` messages from `number` on are dead letters."""
        moved = self._settled(number, count)
        return replace(moved, dead=moved.dead + count)

    def drop(self, number: int, count: int) -> Cursor:
        """`count` messages from `number` on are dropped."""
        moved = self._settled(number, count)
        return replace(moved, dropped=moved.dropped + count)

    def claim(self, number: int, count: int) -> Cursor:
        """`count` messages from `number` on are about to be handed out; none of them is claimed or has an outcome."""
        last = self._checked(number, count)
        if meets(self.claimed, number, last):
            raise BugError(f"messages {number:,} to {last:,} are claimed twice")
        return self._with(self.base, self.done, added(self.claimed, number, last))

    def unclaim(self, number: int, count: int) -> Cursor:
        """`count` claimed messages from `number` on came back unread."""
        last = self._checked(number, count)
        if not covers(self.claimed, number, last):
            raise BugError(f"messages {number:,} to {last:,} come back and were not claimed")
        return replace(self, claimed=removed(self.claimed, number, last))

    def after_crash(self) -> Cursor:
        """After the runner died: whatever was claimed, or read and not settled, is indeterminate."""
        moved = replace(self, read=0)
        for first, last in self.claimed:
            moved = moved.mark_indeterminate(first, last - first + 1)
        return moved

    def _checked(self, number: int, count: int) -> int:
        """The last of `count` messages that have no outcome yet."""
        last = number + count - 1
        if count < 1 or number <= self.base or (self.done and meets(self.done, number, last)):
            raise BugError(f"messages {number:,} to {last:,} have an outcome already (up to {self.base:,} all have)")
        return last

    def _settled(
        self, number: int, count: int, *, acknowledged: int = 0, indeterminate: int = 0, read: int = 0
    ) -> Cursor:
        """With an outcome for them, counted where it is said which."""
        last = self._checked(number, count)
        claimed = removed(self.claimed, number, last) if self.claimed else ()
        base, done = self.base, self.done
        if number > base + 1:
            done = added(done, number, last)
        else:
            base = last
            if done and done[0][0] == last + 1:
                base, done = done[0][1], done[1:]
        return self._with(base, done, claimed, acknowledged=acknowledged, indeterminate=indeterminate, read=read)

    def _with(
        self,
        base: int,
        done: Ranges,
        claimed: Ranges,
        *,
        acknowledged: int = 0,
        indeterminate: int = 0,
        read: int = 0,
    ) -> Cursor:
        """There, and so many more of each; `replace` costs three times as much, and this is done for each batch."""
        return Cursor(
            base,
            done,
            claimed,
            self.acknowledged + acknowledged,
            self.indeterminate + indeterminate,
            self.dead,
            self.dropped,
            self.read + read,
        )

    def encode(self, key: bytes) -> bytes:
        """As stored under `key`: msgpack with a checksum."""
        counts = (self.acknowledged, self.indeterminate, self.dead, self.dropped, self.read)
        return seal(key, _ENCODER.encode((self.base, self.done, self.claimed, *counts)))

    @classmethod
    def decode(cls, key: bytes, stored: Buffer) -> Cursor:
        """What `encode` made. Raises SealError for anything else."""
        try:
            base, done, claimed, *counts = _DECODER.decode(unseal(key, stored))
        except msgspec.DecodeError as error:
            raise SealError from error
        cursor = cls(base, tuple(done), tuple(claimed), *counts)
        apart = all(not meets(cursor.done, first, last) for first, last in cursor.claimed)
        placed = apart and sound(cursor.done, base) and _beyond(cursor.claimed, base)
        if not placed or cursor.begun < 0 or cursor.read > cursor.indeterminate:
            raise SealError
        return cursor


def _beyond(claimed: Ranges, base: int) -> bool:
    """Whether the claimed are sound; they may begin right behind the base."""
    return sound(claimed, base - 1) and (not claimed or claimed[0][0] > base)
