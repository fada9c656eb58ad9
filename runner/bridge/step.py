"""Contract `acknowledged`: what is committed together, in one synchronous step.

With durable channels that is one transaction of the store; with memory channels nobody sees half of it either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from runner.bridge.handed import Span
from runner.bridge.outlet import Outlet
from runner.bridge.states import KeptState
from runner.codec.base import Batch, Codec
from runner.codec.registry import codec_named
from runner.errors import CodecError
from runner.protocol.frames import Out, State
from runner.spec.model import Port


class Committer:
    """Publishes outputs, acknowledges what they answer and keeps the state, all of it or nothing.

    `skip` are outputs of each port that are there already (`resume = "skip"`); they are left out.
    """

    def __init__(
        self, writes: tuple[Port, ...], outlets: Mapping[str, Outlet], state: KeptState, skip: Mapping[str, int]
    ) -> None:
        self.delivered = {port.name: 0 for port in writes}
        self._ports: dict[str, tuple[Outlet, Codec]] = {
            port.name: (outlets[port.name], codec_named(port.codec)) for port in writes
        }
        self._state = state
        self._skip = dict(skip)

    def commit(
        self, outputs: list[Out], spans: list[Span], state: State | None, confirm: Callable[[int], None]
    ) -> None:
        """See the module; `confirm` is called with the number of `state` when that is safe.

        Raises CodecError when a channel cannot carry an output; then nothing of it has happened.
        """
        batches = [(self._ports[port][0], batch) for port, batch in self._framed(outputs)]
        for outlet, batch in batches:
            outlet.check(batch)
        for outlet, batch in batches:
            outlet.deliver(batch)
            self.delivered[outlet.port] += batch.count
        for span in spans:
            span.given.piece.reader.acknowledge(span.number, span.count)
        if state is not None:
            self._state.set(state.payload, partial(confirm, state.number))

    def _framed(self, outputs: list[Out]) -> list[tuple[str, Batch]]:
        """The outputs of each port. Raises CodecError."""
        payloads: dict[str, list[bytes]] = {}
        for out in outputs:
            payloads.setdefault(out.port, []).append(out.payload)
        found = []
        for port, each in payloads.items():
            there = min(self._skip.get(port, 0), len(each))
            if there:
                self._skip[port] -= there
                del each[:there]
            try:
                batch = self._ports[port][1].batch_of(each)
            except CodecError as error:
                number = self.delivered[port] + error.index + 1
                raise CodecError(f"output {number:,} on `{port}`: {error.what}", remedy=error.remedy) from error
            if batch.count:
                found.append((port, batch))
        return found

    @property
    def outlets(self) -> list[Outlet]:
        """All that it writes to."""
        return [outlet for outlet, _ in self._ports.values()]
