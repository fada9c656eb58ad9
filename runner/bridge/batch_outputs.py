"""Contract `batch`: what one run of a program has written, held back until its batch is acknowledged."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runner.bridge.outlet import Delivery, Outlet
from runner.channel.base import Reader
from runner.codec.base import MERGED_BYTES, Batch
from runner.errors import ContractError, MachineError
from runner.units import format_size

IN_MEMORY_BYTES = 8 << 20
"""Beyond that much the outputs of a run go to a file."""
_SEGMENT_BYTES = 256 << 10


@dataclass(slots=True)
class _Segment:
    """Consecutive messages of one port in the file."""

    start: int
    size_bytes: int
    count: int


class Outputs:
    """See the module: the outputs of all ports of one run, which leave together (`commit`) or not at all.

    The first bytes are held in memory, the rest in a file without a name in `folder` (None: where temporary files go),
    `most_bytes` in all. `answers` names the messages that were answered, for the error when it is more.
    """

    def __init__(self, folder: Path | None, most_bytes: int, answers: Callable[[], str]) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._answers = answers
        self._ports: list[HeldPort] = []
        self._size_bytes = 0
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._file_bytes = 0

    def of(self, outlet: Outlet) -> HeldPort:
        """What the program writes to one of its ports; asked once for each."""
        port = HeldPort(self, outlet)
        self._ports.append(port)
        return port

    @property
    def spilled_bytes(self) -> int:
        """How much of it is in the file."""
        return self._file_bytes

    def hold(self, batch: Batch, held: list[Batch | _Segment], outlet: Outlet) -> None:
        """Keep `batch` behind `held`. Raises ContractError for too much, MachineError where it cannot be kept."""
        self._size_bytes += batch.size_bytes
        if self._size_bytes > self._most_bytes:
            raise ContractError(
                f"has written more than {format_size(self._most_bytes)} in answer to {self._answers()}",
                remedy="raise max_outputs, or make the batches smaller",
            )
        last = held[-1] if held else None
        if self._held_bytes + batch.size_bytes > IN_MEMORY_BYTES:
            start = self._spill(batch)
            if (
                isinstance(last, _Segment)
                and last.start + last.size_bytes == start
                and last.size_bytes < _SEGMENT_BYTES
            ):
                last.size_bytes += batch.size_bytes
                last.count += batch.count
            else:
                held.append(_Segment(start, batch.size_bytes, batch.count))
            return
        self._held_bytes += batch.size_bytes
        if isinstance(last, Batch) and last.size_bytes + batch.size_bytes <= MERGED_BYTES:
            held[-1] = outlet.writers[0].codec.merge(last, batch)
        else:
            held.append(batch)

    def _spill(self, batch: Batch) -> int:
        """Write `batch` to the file; where it begins."""
        start = self._file_bytes
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - see `discard`
            for part in batch.parts:
                left = memoryview(part)
                while left:
                    left = left[self._file.write(left) :]
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise MachineError(
                f"the outputs of a batch cannot be kept in {where}: {os.strerror(error.errno or 0)}",
                remedy="free some space there, or make the batches smaller",
            ) from error
        self._file_bytes += batch.size_bytes
        return start

    def commit(self) -> None:
        """Put everything into the channels, in one synchronous step.

        Raises CodecError when a channel cannot carry a message; then nothing of it has happened.
        """
        view = None
        if self._file is not None and self._file_bytes:
            # The bytes stay in the file until they are read, which memory for them would not allow.
            view = memoryview(mmap.mmap(self._file.fileno(), self._file_bytes, access=mmap.ACCESS_READ))
        found = [(port.outlet, [_batch(item, view) for item in port.held]) for port in self._ports]
        for outlet, batches in found:
            for batch in batches:
                outlet.check(batch)
        for outlet, batches in found:
            for batch in batches:
                outlet.deliver(batch)
        self.discard()

    def committed_by_port(self) -> dict[str, int]:
        """How many messages of each port `commit` delivers."""
        return {port.outlet.port: sum(item.count for item in port.held) for port in self._ports}

    def discard(self) -> None:
        """Let go of everything."""
        for port in self._ports:
            port.held.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


def _batch(item: Batch | _Segment, view: memoryview | None) -> Batch:
    if isinstance(item, Batch):
        return item
    assert view is not None
    return Batch((view[item.start : item.start + item.size_bytes],), item.count, item.size_bytes)


class HeldPort(Delivery):
    """One port's part of the outputs of a run. It is never full: the program could not go on, and so never end."""

    def __init__(self, home: Outputs, outlet: Outlet) -> None:
        self.outlet = outlet
        self.held: list[Batch | _Segment] = []
        self._home = home

    def deliver(self, batch: Batch) -> None:
        """See `Delivery`: it is kept. Raises ContractError or MachineError where that is not possible."""
        self._home.hold(batch, self.held, self.outlet)

    @property
    def full(self) -> bool:
        """See `Delivery`."""
        return False

    def when_room(self, callback: Callable[[], None]) -> None:
        """See `Delivery`."""
        callback()

    @property
    def blocked_by(self) -> tuple[Reader, ...]:
        """See `Delivery`."""
        return ()
