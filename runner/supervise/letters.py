"""The dead letters of a run: kept in its state where it has one, else for its report alone."""

from __future__ import annotations

import base64
import time
from functools import partial
from typing import Literal

import msgspec

from runner.channel.base import Reader
from runner.errors import RunnerError
from runner.events import Exited
from runner.store import letters as table
from runner.store.letters import Letter
from runner.store.store import Store
from runner.supervise.snapshot import DeadLetterReport, DeadLettersReport, ExitReport
from runner.units import format_size

MOST_BYTES = 256 << 20
"""A state holds at most so many bytes of dead letters."""
_LETTER_BYTES = 512
_SHOWN = 100
_SHOWN_BYTES = 16 << 10


class DeadLetters:
    """See the module. Of what is not kept in a state, the report has the first 100, with the first 16 KiB of each."""

    def __init__(self, store: Store | None, run: str, *, most_bytes: int = MOST_BYTES) -> None:
        self._store = store
        self._run = run
        self._most_bytes = most_bytes
        self._last = 0
        self._bytes = 0
        self._shown: list[DeadLetterReport] = []
        self._count = {"poison": 0, "refused": 0}
        self._left_out = 0
        self.under_way: set[int] = set()
        """Those that were given back to their readers, until what became of them is committed."""
        self._discarded: set[int] = set()
        """Those whose end is being committed."""
        for item in table.letters(store) if store is not None else ():
            self._last = item.id
            self._bytes += _size_bytes(item.payload)

    @property
    def in_state(self) -> bool:
        """Whether they outlive the run."""
        return self._store is not None

    def replayed(self) -> list[Letter]:
        """Those that somebody wants to be given back to their readers, oldest first."""
        return [item for item in table.letters(self._store) if item.replay] if self._store is not None else []

    def numbers(self) -> list[int]:
        """Those that are in the state, oldest first."""
        found = table.numbers(self._store) if self._store is not None else ()
        return [number for number in found if number not in self._discarded]

    def find(self, number: int) -> Letter | None:
        """The letter `number`; None where there is none (any more)."""
        if self._store is None or number in self._discarded:
            return None
        return table.letter(self._store, number)

    def mark(self, item: Letter) -> None:
        """It is to be given back to its reader: in this run, or else at the next start."""
        assert self._store is not None
        table.put(self._store, msgspec.structs.replace(item, replay=True))

    def discard(self, item: Letter) -> None:
        """It is no more; committed together with what the same callback does."""
        assert self._store is not None
        table.delete(self._store, item.id)
        self._bytes -= _size_bytes(item.payload)
        self._discarded.add(item.id)
        self._store.transaction.on_committed(partial(self._discarded.discard, item.id))

    async def committed(self) -> None:
        """Return when all that was done until now is committed. Raises RunnerError."""
        assert self._store is not None
        await self._store.flush()

    def poison(
        self,
        processor: str,
        reader: Reader,
        number: int,
        *,
        payload: bytes,
        cause: str,
        exited: Exited | None,
        log: tuple[str, ...],
    ) -> Letter:
        """Keep a message of `reader` that its program cannot handle; below 1 `number` is that of a replayed letter.

        It is committed together with what the same callback does. Raises RunnerError when there is no room.
        """
        before = table.letter(self._store, -number) if number < 1 and self._store is not None else None
        item = self._letter("poison", processor, reader.channel, number=number, payload=payload, cause=cause)
        code, by = (exited.code, exited.signal) if exited is not None else (None, None)
        item = msgspec.structs.replace(item, epoch=reader.epoch, code=code, signal=by, log=log)
        if before is not None:
            item = msgspec.structs.replace(item, id=before.id, number=before.number, epoch=before.epoch)
            self.under_way.discard(before.id)
        elif not self._has_room(payload):
            raise RunnerError(
                f"the dead letters take {format_size(self._most_bytes)}, which is all there is for them",
                remedy="look at them: connector dead-letters list, replay, discard",
            )
        self._keep(item, again=before is not None)
        return item

    def refused(self, processor: str, channel: str, number: int, *, payload: bytes, cause: str) -> None:
        """Keep a message that does not fit the schema of its channel, as long as there is room."""
        item = self._letter("refused", processor, channel, number=number, payload=payload, cause=cause)
        if self._has_room(payload):
            self._keep(item, again=False)
        else:
            self._count["refused"] += 1
            self._left_out += 1

    def done(self, number: int, messages: int) -> None:
        """Replayed letters have an outcome: those with the negative numbers from `number` on."""
        for each in range(-number, -number - messages, -1):
            item = self.find(each)
            if item is not None:
                self.discard(item)
            self.under_way.discard(each)

    def report(self) -> DeadLettersReport:
        """What the report says of those of this run."""
        return DeadLettersReport(
            kept="state" if self.in_state else "report",
            poison=self._count["poison"],
            refused=self._count["refused"],
            left_out=self._left_out,
            letters=list(self._shown),
        )

    def _letter(
        self,
        kind: Literal["poison", "refused"],
        processor: str,
        channel: str,
        *,
        number: int,
        payload: bytes,
        cause: str,
    ) -> Letter:
        return Letter(
            id=self._last + 1,
            kind=kind,
            run=self._run,
            processor=processor,
            channel=channel,
            number=max(0, number),
            at_s=time.time(),
            cause=cause,
            payload=payload,
        )

    def _has_room(self, payload: bytes) -> bool:
        return self._store is None or self._bytes + _size_bytes(payload) <= self._most_bytes

    def _keep(self, item: Letter, *, again: bool) -> None:
        if not again:
            self._last = item.id
            self._bytes += _size_bytes(item.payload)
        self._count[item.kind] += 1
        if self._store is not None:
            table.put(self._store, item)
        if len(self._shown) < _SHOWN:
            self._shown.append(report_of(item))
        elif self._store is None:
            self._left_out += 1


def _size_bytes(payload: bytes) -> int:
    return len(payload) + _LETTER_BYTES


def report_of(item: Letter, *, most_bytes: int | None = _SHOWN_BYTES) -> DeadLetterReport:
    """A letter as JSON shows it: its payload as text, or in base64 where it is none; at most `most_bytes` of it."""
    payload = item.payload if most_bytes is None else item.payload[:most_bytes]
    text, encoded = None, None
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        encoded = base64.b64encode(payload).decode()
    return DeadLetterReport(
        id=item.id,
        kind=item.kind,
        processor=item.processor,
        channel=item.channel,
        number=item.number,
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(item.at_s)),
        cause=item.cause,
        exit=ExitReport(item.code, item.signal),
        log=list(item.log),
        size_bytes=len(item.payload),
        payload=text,
        payload_base64=encoded,
    )
