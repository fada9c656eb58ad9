"""Contract `acknowledged`: what a program has said and is not committed: its outputs, and what it acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from runner.bridge.handed import EACH_BYTES, Span
from runner.errors import ContractError
from runner.protocol.frames import Out, State
from runner.units import format_size

MOST_HELD_BYTES = 64 << 20
"""Outputs that are not committed, of one session."""


@dataclass(slots=True)
class Step:
    """What is to be committed together."""

    outputs: list[Out] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    state: State | None = None
    ended: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.outputs or self.spans or self.state is not None or self.ended)


class Uncommitted:
    """See the module. An output waits for the `ack` of its message; in a `stateful` session, for the next state.

    `step` is what may be committed now. `covered` is what the next state covers, its messages count `covered_bytes`.
    `name_of` names the message with a delivery, for an error.
    """

    def __init__(self, name_of: Callable[[int], str]) -> None:
        self.step = Step()
        self.covered = Step()
        self.covered_bytes = 0
        self._name_of = name_of
        self._by_delivery: dict[int, list[Out]] = {}
        self._held_bytes = 0

    @property
    def waiting(self) -> bool:
        """Whether anything is acknowledged and not committed."""
        return bool(self.step.spans or self.covered.spans)

    @property
    def spans(self) -> list[Span]:
        """All that is acknowledged."""
        return [*self.step.spans, *self.covered.spans]

    def hold(self, out: Out, *, stateful: bool) -> None:
        """An output; in answer to nothing, and without states, it may leave. Raises ContractError when too much is."""
        if not out.delivery:
            if not stateful:
                self.step.outputs.append(out)
                return
            self.covered.outputs.append(out)
        else:
            held = self._by_delivery.get(out.delivery)
            if held is None:
                self._by_delivery[out.delivery] = [out]
            else:
                held.append(out)
        self._held_bytes += len(out.payload) + EACH_BYTES
        if self._held_bytes > MOST_HELD_BYTES:
            raise self._too_much(out)

    def _too_much(self, out: Out) -> ContractError:
        answered = f"answers {self._name_of(out.delivery)}" if out.delivery else "answers nothing"
        return ContractError(
            f"has written more than {format_size(MOST_HELD_BYTES)} of outputs that are not committed; "
            f"the last one {answered}",
            remedy="acknowledge, or send a state, before so much has gathered",
        )

    def acknowledge(self, first: int, last: int, spans: list[Span], *, stateful: bool) -> None:
        """The messages `spans`, of these deliveries, with all their outputs."""
        into = self.covered if stateful else self.step
        into.spans += spans
        if self._by_delivery:
            before, pop = len(into.outputs), self._by_delivery.pop
            for delivery in range(first, last + 1):
                outputs = pop(delivery, None)
                if outputs is not None:
                    into.outputs += outputs
            if not stateful:
                self._held_bytes -= _weight(into.outputs[before:])
        if stateful:
            self.covered_bytes += sum(span.weight_bytes for span in spans)

    def drop(self, delivery: int) -> None:
        """The outputs of a message that was nacked."""
        self._held_bytes -= _weight(self._by_delivery.pop(delivery, []))

    def cover(self, state: State | None) -> None:
        """`state` (None: the program's end) commits what has gathered for it."""
        covered, self.covered = self.covered, Step()
        self.step.outputs += covered.outputs
        self.step.spans += covered.spans
        if state is not None:
            self.step.state = state
        self._held_bytes -= _weight(covered.outputs)
        self.covered_bytes = 0

    def end(self) -> None:
        """The program's end commits what it has acknowledged; outputs that wait for an `ack` are dropped."""
        self.cover(None)
        self._by_delivery.clear()
        self._held_bytes = 0
        self.step.ended = True

    def begin_anew(self) -> None:
        """What may be committed is."""
        self.step = Step()


def _weight(outputs: list[Out]) -> int:
    return sum(len(out.payload) + EACH_BYTES for out in outputs)
