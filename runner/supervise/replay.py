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


def replay(letters: DeadLetters, processors: Mapping[str, ProcessorRun], bus: Bus) -> None:
    """Hand every letter that is marked to its reader. It stays a letter until it has an outcome.

    A warning is emitted for one whose reader is not there any more, or has a contract that does not answer; it stays.
    """
    for letter in letters.replayed():
        found = _reader(letter, processors)
        if found is None:
            text = f"dead letter {letter.id} cannot be replayed: nobody reads `{letter.channel}` there and answers"
            bus.emit(Warned(message=text, processor=letter.processor))
            continue
        inlet, reader = found
        try:
            batch = inlet.codec.batch_of([letter.payload])
        except RunnerError as error:
            bus.emit(Warned(message=f"dead letter {letter.id} cannot be replayed: {error}", processor=letter.processor))
            continue
        reader.account.replayed += 1
        reader.on_replayed = letters.done
        inlet.put_back([Piece(reader, batch, -letter.id, origin=(letter.number, f"{letter.channel}@{letter.epoch}"))])


def _reader(letter: Letter, processors: Mapping[str, ProcessorRun]) -> tuple[Inlet, Reader] | None:
    processor = processors.get(letter.processor)
    if processor is None or processor.spec.contract is Contract.STREAM:
        return None
    answered = [
        inlet
        for port, inlet in processor.shared.inlets.items()
        if port == "stdin" or processor.spec.contract is Contract.ACKNOWLEDGED
    ]
    ends = ((inlet, reader) for inlet in answered for reader in inlet.readers)
    return next(((inlet, reader) for inlet, reader in ends if reader.channel == letter.channel), None)
