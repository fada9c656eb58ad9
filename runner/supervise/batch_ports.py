"""The ports of one run of a program under contract `batch`: its batch in, and what it writes held back."""

from __future__ import annotations

import os
from collections.abc import Callable

from runner.bridge.batch_feeder import BatchFeeder
from runner.bridge.batch_outputs import Outputs
from runner.bridge.batches import RunBatch
from runner.bridge.logs import InstanceLog
from runner.bridge.outlet import Delivery
from runner.codec.base import Codec
from runner.errors import RunnerError
from runner.launch.memory_files import sealed_file
from runner.spec.model import BATCH_FILE, Processor
from runner.supervise.ports import Ports, Shared

_STDIN, _FILE = 0, 3


def _nothing() -> None:
    """Stand in for what batches have no use for."""


class BatchPorts(Ports):
    """See the module. `outputs` holds what the program has written."""

    def __init__(
        self,
        spec: Processor,
        shared: Shared,
        log: InstanceLog,
        batch: RunBatch,
        *,
        on_stray: Callable[[bytes], None],
        on_error: Callable[[RunnerError], None],
        on_progress: Callable[[], None],
    ) -> None:
        self.outputs = Outputs(shared.folder, spec.max_outputs_bytes, lambda: str(batch))
        self._batch = batch
        super().__init__(
            spec,
            shared,
            log,
            skip={},
            on_stray=on_stray,
            on_error=on_error,
            on_progress=on_progress,
            on_silent=lambda _why: None,
            on_finished=_nothing,
            on_nacked=lambda _piece, _reason: False,
        )

    @property
    def command(self) -> tuple[str, ...]:
        """The program's, with the path of the batch's file put in."""
        return tuple(word.replace(BATCH_FILE, f"/dev/fd/{_FILE}") for word in self._spec.command)

    @property
    def touched(self) -> int:
        """Once the run is settled: how many messages of the batch it had read, at least in part; of a file, all."""
        feeder = self.feeders[0] if self.feeders else None
        if not isinstance(feeder, BatchFeeder):
            return self._batch.count
        left, touched = feeder.read_bytes, 0
        for piece in self._batch.pieces:
            if left <= 0:
                break
            whole, end = self._batch.reader.codec.locate(piece.batch, min(left, piece.batch.size_bytes))
            touched += whole + (left > end and whole < piece.batch.count)
            left -= piece.batch.size_bytes
        return touched

    @property
    def answered_by_exit(self) -> bool:
        """See `Ports`."""
        return True

    def _open(self) -> None:
        if self._spec.batch_as_file:
            self._next_named = _FILE + 1
            self._give(_FILE, sealed_file("batch", self._batch.parts))
            self._give(_STDIN, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        else:
            self.feeders.append(BatchFeeder(self._pipe_out("stdin"), self._batch.parts))
        for port in self._spec.writes:
            self._collect(port.name, port.codec)
        self._open_logs()
        first, last, self.env["CONNECTOR_BATCH_CHANNEL"] = self._batch.identity
        self.env["CONNECTOR_BATCH"] = f"{first}-{last}"

    def _give(self, number: int, descriptor: int) -> None:
        self._owned.append(descriptor)
        self.theirs[number] = descriptor

    def _delivery(self, port: str, codec: Codec) -> Delivery:
        del codec
        return self.outputs.of(self._shared.outlets[port])
