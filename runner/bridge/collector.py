"""Program to channel: reads one output port of one run of a program, and delivers whole messages."""

from __future__ import annotations

from collections.abc import Callable

from runner.bridge.guard import sift
from runner.bridge.intake import Intake
from runner.bridge.outlet import Delivery
from runner.codec.base import Batch, Codec
from runner.errors import CodecError, ContractError, MachineError, RunnerError


class Collector(Intake):
    """See the module. `skip` messages are discarded first (`resume = "skip"`)."""

    def __init__(
        self,
        descriptor: int,
        codec: Codec,
        delivery: Delivery,
        *,
        port: str,
        max_message_bytes: int,
        skip: int = 0,
        is_data: Callable[[bytes], bool] | None = None,
        on_stray: Callable[[bytes], None] | None = None,
        on_error: Callable[[RunnerError], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(descriptor, delivery, port=port, on_error=on_error, on_end=on_end)
        self._codec = codec
        self._delivery = delivery
        self._decoder = codec.decoder(max_message_bytes)
        self._to_skip = skip
        self._skipped = 0
        self._is_data = is_data
        self._on_stray = on_stray

    def _take(self, data: bytes) -> bool:
        try:
            batch = self._decoder.feed(data)
            if batch.count:
                self._deliver(batch)
        except CodecError as error:
            self._bad_message(error)
            return False
        except (ContractError, MachineError) as error:
            self._fail_with(error)
            return False
        return True

    def _bad_message(self, error: CodecError) -> None:
        """What was good before it is delivered, the program is told on."""
        if self._failed:
            return
        self._failed = True
        told: RunnerError
        try:
            rescued = self._decoder.rescued()
            if rescued.count:
                self._deliver(rescued)
            told = self._numbered(error)
        except (CodecError, ContractError, MachineError) as other:
            told = other
        self._fail_with(told)

    def _numbered(self, error: CodecError) -> CodecError:
        """`error` with the number of the bad message on this port, unless it says a number already."""
        if error.what.startswith("message"):
            return error
        number = self._skipped + self.delivered + 1
        return CodecError(f"message {number:,} on `{self.port}`: {error.what}", remedy=error.remedy)

    def _deliver(self, batch: Batch) -> None:
        if self._is_data is not None:
            batch, stray = sift(batch, self._codec, self._is_data)
            if self._on_stray is not None:
                for payload in stray:
                    self._on_stray(payload)
        if self._to_skip and batch.count:
            skipped, batch = self._codec.skip(batch, min(self._to_skip, batch.count))
            self._to_skip -= skipped.count
            self._skipped += skipped.count
        if batch.count:
            self._delivery.deliver(batch)
            self.delivered += batch.count

    def finish(self, *, clean: bool) -> None:
        """See `Intake`: what is a last message is delivered.

        Raises CodecError when the rest is none, ContractError when it answers nothing.
        """
        if self._failed:
            return
        try:
            batch = self._decoder.finish(clean=clean)
        except CodecError as error:
            raise self._numbered(error) from error
        if batch.count:
            self._deliver(batch)
