"""Dead letters that come back: each to the reader it died for, before anything else, once."""

from __future__ import annotations

from collections.abc import Mapping

from runner.bridge.inlet import Inlet, Piece
from runner.channel.base import Reader
from runner.errors import RunnerError
from runner.events import Bus, Warned
from runner.spec.model import Contract
from runner.store.letters import Letter
from runner.supervise.letters import DeadLetters
from runner.supervise.processor import ProcessorRun


class Replays:
    """See the module. A letter that was handed over stays one until it has an outcome."""

    def __init__(self, letters: DeadLetters, processors: Mapping[str, ProcessorRun]) -> None:
        self._letters = letters
        self._processors = processors

    def begin(self, bus: Bus) -> None:
        """Hand every letter that is marked to its reader, before the run begins.

        A warning is emitted for one whose reader is not there any more, or has a contract that does not answer.
        """
        for letter in self._letters.replayed():
            why_not = self._hand_over(letter)
            if why_not is not None:
                text = f"dead letter {letter.id} cannot be replayed: {why_not}"
                bus.emit(Warned(message=text, processor=letter.processor))

    def now(self, letter: Letter) -> str | None:
        """Hand a letter to its reader while the run goes on. Else it is marked for the next start; then why."""
        self._letters.mark(letter)
        processor = self._processors.get(letter.processor)
        if processor is not None and not any(instance.takes_more for instance in processor.replicas):
            return f"the input of `{letter.processor}` has ended"
        return self._hand_over(letter)

    def _hand_over(self, letter: Letter) -> str | None:
        """Hand it over; or why not."""
        found = self._reader(letter)
        if found is None:
            return f"nobody reads `{letter.channel}` there and answers"
        inlet, reader = found
        if reader.left:
            return f"`{letter.processor}` has left"
        try:
            batch = inlet.codec.batch_of([letter.payload])
        except RunnerError as error:
            return str(error)
        reader.account.replayed += 1
        reader.on_replayed = self._letters.done
        self._letters.under_way.add(letter.id)
        inlet.put_back([Piece(reader, batch, -letter.id, origin=(letter.number, f"{letter.channel}@{letter.epoch}"))])
        return None

    def _reader(self, letter: Letter) -> tuple[Inlet, Reader] | None:
        processor = self._processors.get(letter.processor)
        if processor is None or processor.spec.contract is Contract.STREAM:
            return None
        answered = [
            inlet
            for port, inlet in processor.shared.inlets.items()
            if port == "stdin" or processor.spec.contract is Contract.ACKNOWLEDGED
        ]
        ends = ((inlet, reader) for inlet in answered for reader in inlet.readers)
        return next(((inlet, reader) for inlet, reader in ends if reader.channel == letter.channel), None)
